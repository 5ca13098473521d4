//! Builds with the `buildah` program: each try in a storage of its own, so that tries cannot disturb each other and
//! whatever is left of one is a folder to remove.

use std::{ffi::OsString, fs, path::PathBuf};

use async_trait::async_trait;
use slipway_model::Digest;

use super::{Builder, Job};
use crate::{
    build::codes,
    git::write_private,
    layout::Image,
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
    /// `vfs` works everywhere; `overlay` is faster where the kernel and the file system allow it.
    pub(crate) storage_driver: String,
    /// Where short names such as `rust:1` come from.
    pub(crate) search_registries: Vec<String>,
    /// Credentials for base images, as an auth file's JSON; secret.
    pub(crate) auth: Secret,
    /// Hosts that are reached without TLS or without checking it.
    pub(crate) insecure: Vec<String>,
}

/// Text that is not printed.
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
        let place = Place::prepare(self, &job).map_err(|error| broken(format!("scratch space: {error}")))?;

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
            place.auth.clone().into(),
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
        let outcome = self.run(&place, &job, build).await?;
        if !outcome.ended_well {
            return Err(classify(&outcome.lines));
        }
        let id = fs::read_to_string(&id_file).map_err(|error| broken(format!("no image id: {error}")))?;

        let target = format!("oci:{}", job.image.display());
        let export = ["push", "--quiet", "--format=oci", "--", id.trim(), &target]
            .map(OsString::from)
            .to_vec();
        let outcome = self.run(&place, &job, export).await?;
        if !outcome.ended_well {
            let words = outcome.lines.last().cloned().unwrap_or_default();
            return Err(broken(format!("the image could not be exported: {words}")));
        }
        let image = Image::open(job.image).map_err(|error| broken(error.to_string()))?;
        Ok(image.digest)
    }
}

/// The files that one try's buildah works with.
struct Place {
    storage: PathBuf,
    run: PathBuf,
    tmp: PathBuf,
    auth: PathBuf,
    registries: PathBuf,
}

impl Place {
    fn prepare(buildah: &Buildah, job: &Job<'_>) -> std::io::Result<Self> {
        let attempt = job.attempt;
        let place = Self {
            storage: attempt.folder("storage")?,
            run: attempt.folder("run")?,
            tmp: attempt.folder("tmp")?,
            auth: attempt.path().join("auth.json"),
            registries: attempt.path().join("registries.conf"),
        };
        write_private(&place.auth, &buildah.auth.0)?;
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
        write_private(&place.registries, &registries)?;
        Ok(place)
    }
}

struct Outcome {
    ended_well: bool,
    /// The last lines, for [`classify`].
    lines: Vec<String>,
}

impl Buildah {
    async fn run(&self, place: &Place, job: &Job<'_>, arguments: Vec<OsString>) -> Result<Outcome, Stop> {
        let global: [OsString; 8] = [
            "--storage-driver".into(),
            self.storage_driver.clone().into(),
            "--root".into(),
            place.storage.clone().into(),
            "--runroot".into(),
            place.run.clone().into(),
            "--registries-conf".into(),
            place.registries.clone().into(),
        ];
        let mut program = Program::new(&self.program, job.attempt.path())
            .args(global)
            .args(arguments)
            .env("HOME", job.attempt.path())
            .env("TMPDIR", &place.tmp)
            .env("XDG_RUNTIME_DIR", &place.run);
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
                ended_well: status.success(),
                lines,
            }),
            Err(ProcessError::Cancelled) => Err(Stop::Cancelled),
            Err(error) => Err(broken(error.to_string())),
        }
    }
}

/// The builder itself does not work; may pass.
fn broken(message: impl std::fmt::Display) -> Stop {
    Stop::unavailable(codes::BUILDER_UNAVAILABLE, format!("builder: {message}"))
}

/// What buildah's last words mean. Only an error that names the fetching of an image and a network fault may pass;
/// everything else is the Dockerfile's, and final.
fn classify(lines: &[String]) -> Stop {
    // An error may go on over further lines.
    let from = lines
        .iter()
        .rposition(|line| line.to_ascii_lowercase().starts_with("error"));
    let words = lines[from.unwrap_or(lines.len().saturating_sub(1))..]
        .iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ");
    let message: String = if words.is_empty() {
        "buildah said nothing".to_owned()
    } else {
        words.chars().take(500).collect()
    };
    let lower = message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let fetching = has(&[
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
    if fetching && network {
        let message = format!("base image: {message}");
        return Stop::unavailable(codes::BASE_IMAGE_UNAVAILABLE, message);
    }
    let own = has(&[
        "no space left on device",
        "cannot allocate memory",
        "configure storage",
        "is not in the list of supported",
    ]);
    if own {
        broken(message)
    } else {
        Stop::failed(codes::BUILD_FAILED, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_words_are_understood() {
        let said = |line: &str| {
            let stop = classify(&["STEP 1".to_owned(), line.to_owned(), "trailer".to_owned()]);
            stop.kind().map(|(code, passes)| (code.to_owned(), passes))
        };
        let is = |code: &str, passes| Some((code.to_owned(), passes));
        assert_eq!(
            said("Error: error building at STEP \"RUN false\": error while running runtime: exit status 1"),
            is(codes::BUILD_FAILED, false)
        );
        assert_eq!(
            said(
                "error creating build container: initializing source docker://r.example/a:1: pinging container registry \
                 r.example: Get \"https://r.example/v2/\": dial tcp 127.0.0.1:1: connect: connection refused"
            ),
            is(codes::BASE_IMAGE_UNAVAILABLE, true)
        );
        assert_eq!(
            said(
                "error creating build container: initializing source docker://r.example/a:1: reading manifest 1: manifest unknown"
            ),
            is(codes::BUILD_FAILED, false)
        );
        assert_eq!(
            said("Error: writing blob: no space left on device"),
            is(codes::BUILDER_UNAVAILABLE, true)
        );
    }
}
