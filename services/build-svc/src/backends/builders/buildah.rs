//! Builds with the `buildah` program: each attempt with a storage of its own, so that attempts cannot disturb each other
//! and all that is left of one is a folder to remove.

use std::{ffi::OsString, fs, path::PathBuf};

use async_trait::async_trait;
use build_domain::build::codes;
use slipway_model::Digest;

use super::{Builder, Job};
use crate::backends::{
    image_layout::Image,
    process::{self, ProcessError, Program},
    stop::Stop,
};

/// A configured buildah.
#[derive(Debug, Clone)]
pub(crate) struct Buildah {
    /// The program's name or path.
    pub(crate) program: String,
    /// `chroot`, `rootless` or `oci`, as `buildah build --isolation` takes it.
    pub(crate) isolation: String,
    /// `vfs`, which works everywhere, or `overlay`, which is faster where the kernel and the file system support it.
    pub(crate) storage_driver: String,
    /// Registries for short names such as `rust:1`.
    pub(crate) search_registries: Vec<String>,
    /// Credentials for base images, as an auth file's JSON; secret.
    pub(crate) auth: Secret,
    /// Registries that are reached without TLS, or without verifying their certificates.
    pub(crate) insecure: Vec<String>,
}

/// Text that `Debug` does not show.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) String);

impl Default for Secret {
    /// An auth file without credentials.
    fn default() -> Self {
        Self(r#"{"auths":{}}"#.to_owned())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[async_trait]
impl Builder for Buildah {
    async fn build(&self, job: Job<'_>) -> Result<Digest, Stop> {
        let files = Files::prepare(self, &job).map_err(|error| broken(format!("scratch space: {error}")))?;

        let id_file = job.attempt.path().join("image-id");
        let mut build: Vec<OsString> = vec![
            "build".into(),
            "--isolation".into(),
            self.isolation.clone().into(),
        ];
        let seconds = job.created.as_micros().div_euclid(1_000_000);
        build.extend(
            [
                "--layers=false",
                "--format=oci",
                "--identity-label=false",
                "--no-cache",
            ]
            .map(OsString::from),
        );
        build.push(format!("--timestamp={seconds}").into());
        build.extend([
            "--authfile".into(),
            files.auth.clone().into(),
            "--iidfile".into(),
            id_file.clone().into(),
        ]);
        for (key, value) in job.arguments {
            build.extend(["--build-arg".into(), format!("{key}={value}").into()]);
        }
        for (key, value) in job.labels {
            build.extend(["--label".into(), format!("{key}={value}").into()]);
        }
        if !job.target.is_empty() {
            build.extend(["--target".into(), job.target.into()]);
        }
        build.extend([
            "--file".into(),
            job.dockerfile.into(),
            "--".into(),
            job.context.into(),
        ]);
        let outcome = self.run(&files, &job, build).await?;
        if !outcome.success {
            return Err(classify(&outcome.lines));
        }
        let id = fs::read_to_string(&id_file)
            .map_err(|error| broken(format!("cannot read the image id: {error}")))?;

        let target = format!("oci:{}", job.image.display());
        let export = ["push", "--quiet", "--format=oci", "--", id.trim(), &target]
            .map(OsString::from)
            .to_vec();
        let outcome = self.run(&files, &job, export).await?;
        if !outcome.success {
            let last = outcome.lines.last().cloned().unwrap_or_default();
            return Err(broken(format!("cannot export the image: {last}")));
        }
        let image = Image::open(job.image).map_err(|error| broken(error.to_string()))?;
        Ok(image.digest)
    }
}

/// The files and folders of one attempt that buildah works with.
struct Files {
    storage: PathBuf,
    run: PathBuf,
    tmp: PathBuf,
    auth: PathBuf,
    registries: PathBuf,
}

impl Files {
    fn prepare(buildah: &Buildah, job: &Job<'_>) -> std::io::Result<Self> {
        let attempt = job.attempt;
        let quoted = |text: &String| serde_json::Value::from(text.as_str()).to_string();
        let search: Vec<String> = buildah.search_registries.iter().map(quoted).collect();
        let mut registries = format!(
            "unqualified-search-registries = [{}]\nshort-name-mode = \"disabled\"\n",
            search.join(", ")
        );
        for host in &buildah.insecure {
            registries.push_str(&format!(
                "[[registry]]\nlocation = {}\ninsecure = true\n",
                quoted(host)
            ));
        }
        Ok(Self {
            storage: attempt.folder("storage")?,
            run: attempt.folder("run")?,
            tmp: attempt.folder("tmp")?,
            auth: attempt.private_file("auth.json", &buildah.auth.0)?,
            registries: attempt.private_file("registries.conf", &registries)?,
        })
    }
}

struct Outcome {
    success: bool,
    /// The last lines, for [`classify`].
    lines: Vec<String>,
}

impl Buildah {
    async fn run(&self, files: &Files, job: &Job<'_>, arguments: Vec<OsString>) -> Result<Outcome, Stop> {
        let global: [OsString; 8] = [
            "--storage-driver".into(),
            self.storage_driver.clone().into(),
            "--root".into(),
            files.storage.clone().into(),
            "--runroot".into(),
            files.run.clone().into(),
            "--registries-conf".into(),
            files.registries.clone().into(),
        ];
        let mut program = Program::new(&self.program, job.attempt.path())
            .args(global)
            .args(arguments)
            .env("HOME", job.attempt.path())
            .env("TMPDIR", &files.tmp)
            .env("XDG_RUNTIME_DIR", &files.run);
        program.group_file = Some(job.attempt.group_file());
        for key in [
            "http_proxy",
            "https_proxy",
            "no_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "NO_PROXY",
        ] {
            if let Some(value) = std::env::var_os(key) {
                program = program.env(key, value);
            }
        }
        let mut lines: Vec<String> = Vec::new();
        let status = process::run(&program, job.cancelled, &mut |line| {
            job.log.write(&line);
            if lines.len() == 60 {
                lines.remove(0);
            }
            lines.push(line.text);
        })
        .await;
        match status {
            Ok(status) => Ok(Outcome {
                success: status.success(),
                lines,
            }),
            Err(ProcessError::Cancelled) => Err(Stop::Cancelled),
            Err(error) => Err(broken(error.to_string())),
        }
    }
}

/// The builder itself does not work: a transient fault.
fn broken(message: impl std::fmt::Display) -> Stop {
    Stop::unavailable(codes::BUILDER_UNAVAILABLE, format!("builder: {message}"))
}

/// What buildah's last messages mean. An error is transient only if it is about this machine, or names both the pull of an
/// image and a network fault; all others are the Dockerfile's, and permanent.
fn classify(lines: &[String]) -> Stop {
    // An error may span several lines.
    let from = lines
        .iter()
        .rposition(|line| line.to_ascii_lowercase().starts_with("error"));
    let error = lines[from.unwrap_or(lines.len().saturating_sub(1))..]
        .iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ");
    let message: String = if error.is_empty() {
        "buildah failed without a message".to_owned()
    } else {
        error.chars().take(500).collect()
    };
    let lower = message.to_ascii_lowercase();
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| lower.contains(phrase));
    let pulling = has(&[
        "initializing source",
        "pinging container registry",
        "reading manifest",
        "copying blob",
        "reading blob",
    ]);
    let network = has(&[
        "i/o timeout",
        "connection refused",
        "connection reset",
        "no such host",
        "tls handshake timeout",
        "unexpected eof",
        "network is unreachable",
        "temporary failure in name resolution",
        "too many requests",
        "toomanyrequests",
        "server misbehaving",
        "status: 5",
        "received unexpected http status: 5",
        "deadline exceeded",
    ]);
    if pulling && network {
        let message = format!("base image: {message}");
        return Stop::unavailable(codes::BASE_IMAGE_UNAVAILABLE, message);
    }
    let this_machine = has(&[
        "no space left on device",
        "cannot allocate memory",
        "configure storage",
        "is not in the list of supported",
    ]);
    if this_machine {
        broken(message)
    } else {
        Stop::failed(codes::BUILD_FAILED, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_buildah_are_classified() {
        let classified = |line: &str| {
            let stop = classify(&["STEP 1".to_owned(), line.to_owned(), "trailer".to_owned()]);
            stop.kind().map(|(code, transient)| (code.to_owned(), transient))
        };
        let is = |code: &str, transient| Some((code.to_owned(), transient));
        assert_eq!(
            classified(
                "Error: error building at STEP \"RUN false\": error while running runtime: exit status 1"
            ),
            is(codes::BUILD_FAILED, false)
        );
        assert_eq!(
            classified(
                "error creating build container: initializing source docker://r.example/a:1: pinging container registry \
                 r.example: Get \"https://r.example/v2/\": dial tcp 127.0.0.1:1: connect: connection refused"
            ),
            is(codes::BASE_IMAGE_UNAVAILABLE, true)
        );
        assert_eq!(
            classified(
                "error creating build container: initializing source docker://r.example/a:1: reading manifest 1: manifest unknown"
            ),
            is(codes::BUILD_FAILED, false)
        );
        assert_eq!(
            classified("Error: writing blob: no space left on device"),
            is(codes::BUILDER_UNAVAILABLE, true)
        );
    }
}
