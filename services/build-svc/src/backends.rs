//! Everything outside that the service talks to, made from its configuration. Secrets are read here and nowhere else.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use slipway_server::ConfigError;

use crate::{
    builders::{
        Builder,
        buildah::{Buildah, Secret},
    },
    config::{BuilderConfig, Isolation, RegistryKind, Settings, StorageDriver, TlsMode},
    git::{Git, GitCredential, Ssh},
    redact::Redactor,
    registries::{
        Registries, Registry,
        oci::{Oci, Transport},
        oci_layout::OciLayout,
    },
};

/// Everything outside that the service talks to, made from the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Backends {
    pub(crate) git: Git,
    pub(crate) registries: Registries,
    pub(crate) builders: BTreeMap<String, Arc<dyn Builder>>,
    pub(crate) redactor: Redactor,
}

impl Settings {
    /// Reads the secrets' files and makes the backends.
    pub(crate) fn backends(&self) -> Result<Backends, ConfigError> {
        let mut secrets = Vec::new();
        let git = self.git(&mut secrets)?;
        let mut entries: Vec<(String, Arc<dyn Registry>)> = Vec::new();
        let mut auths = serde_json::Map::new();
        let mut insecure = Vec::new();
        for (at, config) in self.registries.iter().enumerate() {
            let registry: Arc<dyn Registry> = match (config.kind, &config.directory) {
                (RegistryKind::OciLayout, Some(directory)) => Arc::new(OciLayout::new(directory.clone())),
                _ => {
                    let mut credential = None;
                    if let (Some(user), Some(file)) = (&config.username, &config.password_file) {
                        let password = secret_file(&format!("registries[{at}].password_file"), file)?;
                        let basic = STANDARD.encode(format!("{user}:{password}"));
                        secrets.extend([password.clone(), basic.clone()]);
                        auths.insert(config.prefix.clone(), serde_json::json!({ "auth": basic }));
                        credential = Some((user.clone(), password));
                    }
                    let transport = match config.tls.unwrap_or(TlsMode::Verify) {
                        TlsMode::Verify => Transport::Https,
                        TlsMode::Insecure => Transport::InsecureHttps,
                        TlsMode::Plaintext => Transport::Http,
                    };
                    if transport != Transport::Https {
                        insecure.push(config.prefix.clone());
                    }
                    let oci =
                        Oci::new(transport, config.ca_file.as_ref(), credential).map_err(|message| {
                            ConfigError::invalid(format!("registries[{at}].ca_file"), message)
                        })?;
                    Arc::new(oci)
                }
            };
            entries.push((config.prefix.clone(), registry));
        }
        let auth = Secret(serde_json::json!({ "auths": auths }).to_string());
        let builders = self
            .builders
            .iter()
            .map(|(name, config)| {
                let builder: Arc<dyn Builder> = Arc::new(buildah(config, auth.clone(), insecure.clone()));
                (name.clone(), builder)
            })
            .collect();
        Ok(Backends {
            git,
            registries: Registries::new(entries),
            builders,
            redactor: Redactor::new(secrets),
        })
    }

    fn git(&self, secrets: &mut Vec<String>) -> Result<Git, ConfigError> {
        let mut credentials = Vec::new();
        for (at, config) in self.git.credentials.iter().enumerate() {
            // Without the slash, the credential for https://git.example would also go to https://git.example.elsewhere.
            let whole = config
                .prefix
                .strip_prefix("https://")
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('/'));
            if !whole {
                let message =
                    "must begin with https:// and end with a slash, such as https://git.example/team/";
                return Err(ConfigError::invalid(
                    format!("git.credentials[{at}].prefix"),
                    message,
                ));
            }
            let password = secret_file(
                &format!("git.credentials[{at}].password_file"),
                &config.password_file,
            )?;
            secrets.push(password.clone());
            secrets.push(STANDARD.encode(format!("{}:{password}", config.username)));
            credentials.push(GitCredential {
                prefix: config.prefix.clone(),
                username: config.username.clone(),
                password,
            });
        }
        let ssh = match &self.git.ssh {
            None => None,
            Some(config) => {
                for (key, path) in [
                    ("key_file", &config.key_file),
                    ("known_hosts_file", &config.known_hosts_file),
                ] {
                    // Git hands these to a shell.
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
                Some(Ssh {
                    key_file: config.key_file.clone(),
                    known_hosts_file: config.known_hosts_file.clone(),
                })
            }
        };
        Ok(Git { credentials, ssh })
    }
}

fn buildah(config: &BuilderConfig, auth: Secret, insecure: Vec<String>) -> Buildah {
    Buildah {
        program: config.program.clone().unwrap_or_else(|| "buildah".to_owned()),
        isolation: match config.isolation.unwrap_or(Isolation::Chroot) {
            Isolation::Chroot => "chroot",
            Isolation::Rootless => "rootless",
            Isolation::Oci => "oci",
        }
        .to_owned(),
        storage_driver: match config.storage_driver.unwrap_or(StorageDriver::Vfs) {
            StorageDriver::Vfs => "vfs",
            StorageDriver::Overlay => "overlay",
        }
        .to_owned(),
        search_registries: config
            .search_registries
            .clone()
            .unwrap_or_else(|| vec!["docker.io".to_owned()]),
        auth,
        insecure,
    }
}

/// The one line of a file that holds a secret.
fn secret_file(key: &str, path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::invalid(key, format!("{}: {error}", path.display())))?;
    match text.trim() {
        "" => Err(ConfigError::invalid(key, format!("{}: is empty", path.display()))),
        secret if secret.contains('\n') => Err(ConfigError::invalid(
            key,
            format!("{}: has more than one line", path.display()),
        )),
        secret => Ok(secret.to_owned()),
    }
}
