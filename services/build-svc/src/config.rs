//! The service's configuration file, typed and checked.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use build_domain::{
    build::{Limits, MAX_TIMEOUT},
    repository::RepositoryPattern,
};
use serde::Deserialize;
use slipway_model::ImageName;
use slipway_server::ConfigError;

/// The whole file.
pub type Config = slipway_server::Config<Settings>;

/// The keys of this service alone.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Scratch space of this replica: checkouts, the builders' storage, images that are not pushed yet. An absolute path
    /// without `:`.
    pub(crate) data_dir: PathBuf,
    #[serde(default)]
    pub(crate) limits: LimitsConfig,
    pub(crate) logs: LogsConfig,
    /// Repositories that may be fetched from: URLs in which `*` in the path stands for any text. Empty: none.
    #[serde(default)]
    pub(crate) repositories: Vec<RepositoryPattern>,
    #[serde(default)]
    pub(crate) git: GitConfig,
    /// By the names that requests call them.
    pub(crate) builders: BTreeMap<String, BuilderConfig>,
    /// The builder for requests that name none; may be left out if there is only one.
    #[serde(default)]
    pub(crate) default_builder: Option<String>,
    /// Registries that images may be pushed to. Empty: none.
    #[serde(default)]
    pub(crate) registries: Vec<RegistryConfig>,
}

/// `limits:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsConfig {
    /// Builds that this replica runs at once; others wait, or run on another replica.
    pub(crate) concurrency: usize,
    /// How long a build may take, from its first start to its end, unless its request says otherwise.
    #[serde(with = "slipway_model::duration")]
    pub(crate) timeout: Duration,
    /// Attempts in all before a transient fault ends the build.
    pub(crate) attempts: u32,
    /// Wait before the second attempt; doubles with each further one, up to five minutes.
    #[serde(with = "slipway_model::duration")]
    pub(crate) backoff: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            concurrency: 2,
            timeout: Duration::from_secs(30 * 60),
            attempts: 4,
            backoff: Duration::from_secs(2),
        }
    }
}

impl LimitsConfig {
    /// The limits of a build whose request has this timeout.
    pub(crate) fn of_build(&self, timeout: Option<Duration>) -> Limits {
        Limits {
            timeout_s: timeout.unwrap_or(self.timeout).as_secs().max(1),
            attempts: self.attempts,
            backoff_ms: u64::try_from(self.backoff.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// `logs:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogsConfig {
    /// A folder that all replicas share.
    pub(crate) directory: PathBuf,
    /// The longest log of one build, in bytes; the rest is dropped and the log marked as cut.
    #[serde(default = "max_log")]
    pub(crate) max_bytes: u64,
}

fn max_log() -> u64 {
    8 << 20
}

/// `git:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct GitConfig {
    /// For `https` repositories that are not public.
    pub(crate) credentials: Vec<GitCredentialConfig>,
    /// For `ssh` repositories.
    pub(crate) ssh: Option<SshConfig>,
}

/// One of `git.credentials:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GitCredentialConfig {
    /// The beginning of the URLs that it is for, up to a slash: `https://git.example/team/`. The longest match wins.
    pub(crate) prefix: String,
    pub(crate) username: String,
    /// A file with the password or token and nothing else.
    pub(crate) password_file: PathBuf,
}

/// `git.ssh:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SshConfig {
    pub(crate) key_file: PathBuf,
    pub(crate) known_hosts_file: PathBuf,
}

/// One of `builders:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BuilderConfig {
    pub(crate) kind: BuilderKind,
    /// `buildah`: the program, on PATH or by its path.
    #[serde(default)]
    pub(crate) program: Option<String>,
    /// `buildah`: `chroot` (default), `rootless` or `oci`.
    #[serde(default)]
    pub(crate) isolation: Option<Isolation>,
    /// `buildah`: `vfs` (default) or `overlay`.
    #[serde(default)]
    pub(crate) storage_driver: Option<StorageDriver>,
    /// `buildah`: registries for short names such as `rust:1`; `docker.io` when left out.
    #[serde(default)]
    pub(crate) search_registries: Option<Vec<String>>,
}

/// The kinds of builders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BuilderKind {
    Buildah,
    /// Not supported yet.
    Docker,
    /// Not supported yet.
    Kubernetes,
    /// Not supported yet.
    GithubActions,
    /// Not supported yet.
    Command,
}

/// How buildah isolates the commands of a Dockerfile.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Isolation {
    Chroot,
    Rootless,
    Oci,
}

/// Where buildah keeps layers.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StorageDriver {
    Vfs,
    Overlay,
}

/// One of `registries:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistryConfig {
    /// The beginning of the names of its images, host first: `registry.example/team`. The longest match wins. Empty: names
    /// without a host.
    #[serde(default)]
    pub(crate) prefix: String,
    pub(crate) kind: RegistryKind,
    /// `oci_layout`: the folder; `DIRECTORY/<repository>/` is then an OCI image layout.
    #[serde(default)]
    pub(crate) directory: Option<PathBuf>,
    /// `oci`: how it is reached; `verify` when left out.
    #[serde(default)]
    pub(crate) tls: Option<TlsMode>,
    /// `oci`: PEM certificates to trust besides the system's.
    #[serde(default)]
    pub(crate) ca_file: Option<PathBuf>,
    /// `oci`: for pushing, and for base images from there.
    #[serde(default)]
    pub(crate) username: Option<String>,
    /// `oci`: a file with the password or token and nothing else.
    #[serde(default)]
    pub(crate) password_file: Option<PathBuf>,
}

/// Whether a registry with this prefix takes images of this name; the longest prefix that does wins. The empty prefix is
/// for names without a registry host.
pub(crate) fn belongs(prefix: &str, image: &ImageName) -> bool {
    match prefix {
        "" => image.registry().is_none(),
        _ => image
            .as_str()
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    }
}

/// The kinds of registries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RegistryKind {
    Oci,
    OciLayout,
    /// Not supported yet.
    Ecr,
}

/// Whether TLS is used, and the registry's certificate verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TlsMode {
    Verify,
    /// TLS with any certificate.
    Insecure,
    /// No TLS at all.
    Plaintext,
}

impl Settings {
    /// Checks what the types of the keys leave open. Reads no files.
    pub(crate) fn check_values(&self) -> Result<(), ConfigError> {
        if !self.data_dir.is_absolute() {
            return Err(ConfigError::invalid("data_dir", "must be an absolute path"));
        }
        if self.data_dir.to_string_lossy().contains([':', '\n']) {
            return Err(ConfigError::invalid(
                "data_dir",
                "must not contain a colon or a line break",
            ));
        }
        for (key, zero) in [
            ("limits.concurrency", self.limits.concurrency == 0),
            ("limits.attempts", self.limits.attempts == 0),
            ("limits.timeout", self.limits.timeout.as_secs() == 0),
            ("logs.max_bytes", self.logs.max_bytes == 0),
        ] {
            if zero {
                return Err(ConfigError::invalid(
                    key,
                    "must be more than 0; leave it out for the default",
                ));
            }
        }
        if self.limits.timeout > MAX_TIMEOUT {
            return Err(ConfigError::invalid("limits.timeout", "must be at most 6h"));
        }
        self.check_git()?;
        self.check_builders()?;
        self.check_registries()
    }

    /// Whether images of this name are kept in a folder, from which no cluster can pull.
    pub fn keeps_in_a_folder(&self, image: &ImageName) -> bool {
        let registries = self.registries.iter();
        let of_image = registries.filter(|registry| belongs(&registry.prefix, image));
        of_image
            .max_by_key(|registry| registry.prefix.len())
            .is_some_and(|registry| registry.kind == RegistryKind::OciLayout)
    }

    /// The name of the builder that is used when a request names none.
    pub(crate) fn default_builder(&self) -> &str {
        let named = self
            .default_builder
            .as_ref()
            .or_else(|| self.builders.keys().next());
        named.map_or("", String::as_str)
    }

    fn check_git(&self) -> Result<(), ConfigError> {
        for (at, credential) in self.git.credentials.iter().enumerate() {
            // Without the slash, the credential for https://git.example would also go to https://git.example.elsewhere.
            let whole = credential
                .prefix
                .strip_prefix("https://")
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('/'));
            if !whole {
                return Err(ConfigError::invalid(
                    format!("git.credentials[{at}].prefix"),
                    "must begin with https:// and end with a slash, such as https://git.example/team/",
                ));
            }
        }
        let Some(ssh) = &self.git.ssh else {
            return Ok(());
        };
        for (key, path) in [
            ("key_file", &ssh.key_file),
            ("known_hosts_file", &ssh.known_hosts_file),
        ] {
            // Git passes these to a shell.
            let plain = path
                .to_string_lossy()
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
            if !plain || !path.is_absolute() {
                return Err(ConfigError::invalid(
                    format!("git.ssh.{key}"),
                    "must be an absolute path of letters, digits, /, ., _ and -",
                ));
            }
        }
        Ok(())
    }

    fn check_builders(&self) -> Result<(), ConfigError> {
        if self.builders.is_empty() {
            return Err(ConfigError::invalid(
                "builders",
                "must have at least one, such as {default: {kind: buildah}}",
            ));
        }
        match &self.default_builder {
            None if self.builders.len() > 1 => {
                return Err(ConfigError::invalid(
                    "default_builder",
                    "is required with several builders; name the one for requests that name none",
                ));
            }
            Some(name) if !self.builders.contains_key(name) => {
                return Err(ConfigError::invalid(
                    "default_builder",
                    format!("{name:?} is not one of `builders`"),
                ));
            }
            _ => {}
        }
        for (name, builder) in &self.builders {
            if name.is_empty() {
                return Err(ConfigError::invalid("builders", "must not have an empty name"));
            }
            let unsupported = match builder.kind {
                BuilderKind::Buildah => continue,
                BuilderKind::Docker => "docker",
                BuilderKind::Kubernetes => "kubernetes",
                BuilderKind::GithubActions => "github_actions",
                BuilderKind::Command => "command",
            };
            return Err(ConfigError::invalid(
                format!("builders.{name}.kind"),
                format!("{unsupported} is not supported yet; use buildah"),
            ));
        }
        Ok(())
    }

    fn check_registries(&self) -> Result<(), ConfigError> {
        for (at, registry) in self.registries.iter().enumerate() {
            let invalid = |key: &str, message: &str| {
                Err(ConfigError::invalid(format!("registries[{at}].{key}"), message))
            };
            if self.registries[..at]
                .iter()
                .any(|other| other.prefix == registry.prefix)
            {
                return invalid("prefix", "is used by another registry; give each its own");
            }
            if registry.prefix.ends_with('/') {
                return invalid("prefix", "must not end with a slash");
            }
            match registry.kind {
                RegistryKind::Oci => {
                    if format!("{}/x", registry.prefix)
                        .parse()
                        .ok()
                        .and_then(|name: ImageName| name.registry().map(drop))
                        .is_none()
                    {
                        return invalid(
                            "prefix",
                            "must begin with the registry's host, such as registry.example or 127.0.0.1:5000",
                        );
                    }
                    if registry.directory.is_some() {
                        return invalid("directory", "applies to kind oci_layout only; leave it out");
                    }
                    if registry.username.is_some() != registry.password_file.is_some() {
                        return invalid("username", "requires password_file; give both or neither");
                    }
                }
                RegistryKind::OciLayout => {
                    if registry.directory.is_none() {
                        return invalid("directory", "is required for kind oci_layout");
                    }
                    if registry.tls.is_some()
                        || registry.ca_file.is_some()
                        || registry.username.is_some()
                        || registry.password_file.is_some()
                    {
                        return invalid(
                            "kind",
                            "oci_layout supports prefix and directory only; leave the others out",
                        );
                    }
                }
                RegistryKind::Ecr => {
                    return invalid(
                        "kind",
                        "ecr is not supported yet; use oci with a user name and password",
                    );
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
