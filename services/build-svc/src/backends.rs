//! The outside systems of the service, made from its configuration: one file or folder for each, and what they share.
//! Secrets are read here and nowhere else.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use slipway_server::ConfigError;

use self::{
    builders::{
        Builder,
        buildah::{Buildah, Secret},
    },
    git::{Git, GitCredential, Ssh},
    redact::Redactor,
    registries::{
        Registries, Registry,
        oci::{Oci, Transport},
        oci_layout::OciLayout,
    },
};
use crate::config::{BuilderConfig, GitConfig, Isolation, RegistryKind, Settings, StorageDriver, TlsMode};

pub(crate) mod builders;
pub(crate) mod git;
pub(crate) mod image_layout;
pub(crate) mod logs;
pub(crate) mod process;
pub(crate) mod redact;
pub(crate) mod registries;
pub(crate) mod stop;
pub(crate) mod workspace;

#[cfg(test)]
mod tests;

/// The outside systems that builds work with. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Backends {
    pub(crate) git: Git,
    pub(crate) registries: Registries,
    /// By the names that requests call them.
    pub(crate) builders: BTreeMap<String, Arc<dyn Builder>>,
    pub(crate) redactor: Redactor,
}

impl Backends {
    /// Reads the files of secrets and makes the backends of checked settings.
    pub(crate) fn open(settings: &Settings) -> Result<Self, ConfigError> {
        let mut secrets = Vec::new();
        let git = git(&settings.git, &mut secrets)?;
        let mut entries: Vec<(String, Arc<dyn Registry>)> = Vec::new();
        let mut auths = serde_json::Map::new();
        let mut insecure = Vec::new();
        for (at, config) in settings.registries.iter().enumerate() {
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
        let builders = settings
            .builders
            .iter()
            .map(|(name, config)| {
                let builder: Arc<dyn Builder> = Arc::new(buildah(config, auth.clone(), insecure.clone()));
                (name.clone(), builder)
            })
            .collect();
        Ok(Self {
            git,
            registries: Registries::new(entries),
            builders,
            redactor: Redactor::new(secrets),
        })
    }
}

/// Reads the credentials of git.
fn git(config: &GitConfig, secrets: &mut Vec<String>) -> Result<Git, ConfigError> {
    let mut credentials = Vec::new();
    for (at, config) in config.credentials.iter().enumerate() {
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
    let ssh = config.ssh.as_ref().map(|ssh| Ssh {
        key_file: ssh.key_file.clone(),
        known_hosts_file: ssh.known_hosts_file.clone(),
    });
    Ok(Git { credentials, ssh })
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

/// The only line of a file that holds a secret.
fn secret_file(key: &str, path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::invalid(key, format!("{}: {error}", path.display())))?;
    match text.trim() {
        "" => Err(ConfigError::invalid(
            key,
            format!("{}: the file is empty", path.display()),
        )),
        secret if secret.contains('\n') => Err(ConfigError::invalid(
            key,
            format!("{}: the file has more than one line", path.display()),
        )),
        secret => Ok(secret.to_owned()),
    }
}
