//! The service's configuration file, typed and checked.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::Deserialize;
use slipway_server::{ConfigError, ServiceSettings};

use crate::{build::Limits, repository::RepositoryPattern};

/// The longest time that a build may take, whatever a caller asks for.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(6 * 3600);

/// The whole file.
pub type Config = slipway_server::Config<Settings>;

/// The keys that are this service's own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Scratch space of this replica: checkouts, the builders' storage, images that are not pushed yet. An absolute path
    /// without `:`.
    pub data_dir: PathBuf,
    #[serde(default)]
    pub limits: LimitsConfig,
    pub logs: LogsConfig,
    /// Where commits may be fetched from: URLs in which `*` in the path stands for any text. Empty: from nowhere.
    #[serde(default)]
    pub repositories: Vec<RepositoryPattern>,
    #[serde(default)]
    pub git: GitConfig,
    /// By the names that requests call them.
    pub builders: BTreeMap<String, BuilderConfig>,
    /// The one for requests that name none; may be left out where there is only one.
    #[serde(default)]
    pub default_builder: Option<String>,
    /// Where images may be pushed to. Empty: nowhere.
    #[serde(default)]
    pub registries: Vec<RegistryConfig>,
}

/// `limits:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Builds that this replica runs at once; others wait, or run on another replica.
    pub concurrency: usize,
    /// How long a build may take from its first start to its end, when its request does not say.
    #[serde(with = "slipway_server::config::duration")]
    pub timeout: Duration,
    /// Tries in all before a fault that may pass ends the build.
    pub attempts: u32,
    /// Wait before the second try; doubles with each further one, up to five minutes.
    #[serde(with = "slipway_server::config::duration")]
    pub backoff: Duration,
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
    /// The limits of one build.
    pub fn of_build(&self, timeout: Option<Duration>) -> Limits {
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
pub struct LogsConfig {
    /// A folder that all replicas share.
    pub directory: PathBuf,
    /// The longest log of one build, in bytes; what comes after is dropped and the log marked as cut.
    #[serde(default = "max_log")]
    pub max_bytes: u64,
}

fn max_log() -> u64 {
    8 << 20
}

/// `git:`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GitConfig {
    /// For `https` repositories that are not open.
    pub credentials: Vec<GitCredentialConfig>,
    /// For `ssh` repositories.
    pub ssh: Option<SshConfig>,
}

/// One of `git.credentials:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitCredentialConfig {
    /// The beginning of the URLs that it is for, up to a slash: `https://git.example/team/`.
    pub prefix: String,
    pub username: String,
    /// A file that holds the password or token and nothing else.
    pub password_file: PathBuf,
}

/// `git.ssh:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SshConfig {
    pub key_file: PathBuf,
    pub known_hosts_file: PathBuf,
}

/// One of `builders:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuilderConfig {
    pub kind: BuilderKind,
    /// `buildah`: the program, on PATH or by its path.
    #[serde(default)]
    pub program: Option<String>,
    /// `buildah`: `chroot` (default), `rootless` or `oci`.
    #[serde(default)]
    pub isolation: Option<Isolation>,
    /// `buildah`: `vfs` (default) or `overlay`.
    #[serde(default)]
    pub storage_driver: Option<StorageDriver>,
    /// `buildah`: where short names such as `rust:1` come from; `docker.io` when left out.
    #[serde(default)]
    pub search_registries: Option<Vec<String>>,
}

/// What kind of builder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuilderKind {
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

/// How buildah runs what a Dockerfile says.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    Chroot,
    Rootless,
    Oci,
}

/// Where buildah keeps layers.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StorageDriver {
    Vfs,
    Overlay,
}

/// One of `registries:`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// The beginning of the names of its images, host first: `registry.example/team`. The longest that fits wins. Empty:
    /// names without a host.
    #[serde(default)]
    pub prefix: String,
    pub kind: RegistryKind,
    /// `oci_layout`: the folder; `DIRECTORY/<repository>/` is then an OCI image layout.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// `oci`: how it is reached; `verify` when left out.
    #[serde(default)]
    pub tls: Option<TlsMode>,
    /// `oci`: PEM certificates to trust besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// `oci`: for pushing, and for base images from there.
    #[serde(default)]
    pub username: Option<String>,
    /// `oci`: a file that holds the password or token and nothing else.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

/// What kind of registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistryKind {
    Oci,
    OciLayout,
    /// Not supported yet.
    Ecr,
}

/// How a registry's certificate is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsMode {
    Verify,
    /// TLS with any certificate.
    Insecure,
    /// No TLS at all.
    Plaintext,
}

impl ServiceSettings for Settings {
    fn check(&self) -> Result<(), ConfigError> {
        if !self.data_dir.is_absolute() {
            return Err(ConfigError::invalid("data_dir", "must be an absolute path"));
        }
        if self.data_dir.to_string_lossy().contains([':', '\n']) {
            return Err(ConfigError::invalid("data_dir", "must not hold a colon"));
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
        self.check_builders()?;
        self.check_registries()
    }

    fn check_files(&self) -> Result<(), ConfigError> {
        self.backends().map(drop)
    }
}

impl Settings {
    /// The name of the builder that is used when a request names none.
    pub(crate) fn default_builder(&self) -> &str {
        let named = self
            .default_builder
            .as_ref()
            .or_else(|| self.builders.keys().next());
        named.map_or("", String::as_str)
    }

    fn check_builders(&self) -> Result<(), ConfigError> {
        if self.builders.is_empty() {
            return Err(ConfigError::invalid(
                "builders",
                "name at least one, such as {default: {kind: buildah}}",
            ));
        }
        match &self.default_builder {
            None if self.builders.len() > 1 => {
                return Err(ConfigError::invalid(
                    "default_builder",
                    "is required where there are several builders; name the one for requests that name none",
                ));
            }
            Some(name) if !self.builders.contains_key(name) => {
                return Err(ConfigError::invalid(
                    "default_builder",
                    format!("{name:?} is not one of builders"),
                ));
            }
            _ => {}
        }
        for (name, builder) in &self.builders {
            let invalid = |key: &str, message: String| {
                Err(ConfigError::invalid(format!("builders.{name}.{key}"), message))
            };
            if name.is_empty() {
                return Err(ConfigError::invalid("builders", "must not hold an empty name"));
            }
            match builder.kind {
                BuilderKind::Buildah => {}
                later => return invalid("kind", format!("{later:?} is not supported yet; use buildah")),
            }
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
                return invalid("prefix", "is another registry's too");
            }
            if registry.prefix.ends_with('/') {
                return invalid("prefix", "must not end with a slash");
            }
            match registry.kind {
                RegistryKind::Oci => {
                    if format!("{}/x", registry.prefix)
                        .parse()
                        .ok()
                        .and_then(|name: slipway_model::ImageName| name.registry().map(drop))
                        .is_none()
                    {
                        return invalid(
                            "prefix",
                            "must begin with the registry's host, such as registry.example or 127.0.0.1:5000",
                        );
                    }
                    if registry.directory.is_some() {
                        return invalid("directory", "is for kind oci_layout only");
                    }
                    if registry.username.is_some() != registry.password_file.is_some() {
                        return invalid("username", "and password_file belong together; give both or none");
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
                        return invalid("kind", "oci_layout takes prefix and directory only");
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
#[path = "config_tests.rs"]
mod tests;
