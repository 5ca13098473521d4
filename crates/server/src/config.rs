//! How a configuration file is read: YAML, unknown keys refused, every error with file, line, column and key. The
//! sections that every service has are in `sections`, `principals` and `tls`, the whole file in `file`.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;

mod file;
mod principals;
mod sections;
pub(crate) mod tls;

pub use file::{Config, ServiceSettings};
pub use principals::{Action, PrincipalConfig, RoleConfig, Subject, TokenHash};
pub use sections::{BusConfig, DatabaseConfig, ServerConfig};
pub use tls::Tls;

/// A configuration file is at most this long; a longer one is a mistake.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: is larger than 4 MiB; is it the right file?", path.display())]
    TooLarge { path: PathBuf },
    /// The text is not valid. `key` is the path to the value, such as `server.principals[0].subject`.
    #[error("{}:{line}:{column}: {key}: {message}", path.display())]
    Parse {
        path: PathBuf,
        line: u64,
        column: u64,
        key: String,
        message: String,
    },
    /// The values do not fit together.
    #[error("{key}: {message}")]
    Invalid { key: String, message: String },
}

// Messages are passed both as errors and as formatted texts, by value.
#[allow(clippy::needless_pass_by_value)]
impl ConfigError {
    /// A value that parses but cannot be used; `message` says what to do.
    pub fn invalid(key: impl Into<String>, message: impl ToString) -> Self {
        Self::Invalid {
            key: key.into(),
            message: message.to_string(),
        }
    }
}

/// Reads a YAML file.
///
/// # Errors
/// Names the file, and within it the line, the column and the key. Values are not repeated except where the type's own
/// message does.
pub fn read<T: DeserializeOwned>(path: impl AsRef<Path>) -> Result<T, ConfigError> {
    let path = path.as_ref();
    let unreadable = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    if std::fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
        });
    }
    parse(path, &std::fs::read_to_string(path).map_err(unreadable)?)
}

/// Reads YAML text; `path` is used only in errors.
///
/// # Errors
/// As [`read`].
pub fn parse<T: DeserializeOwned>(path: impl AsRef<Path>, text: &str) -> Result<T, ConfigError> {
    // Snippets would show neighbouring lines, and one of them may contain a password.
    let options = serde_saphyr::options! { with_snippet: false };
    let mut key = String::new();
    let parsed = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            key = error.path().to_string();
            error.into_inner()
        })
    });
    parsed.map_err(|error| {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        let message = plain_message(&error.to_string());
        let key = if key.is_empty() || key == "." {
            "(document)".to_owned()
        } else {
            key
        };
        ConfigError::Parse {
            path: path.as_ref().to_owned(),
            line,
            column,
            key,
            message,
        }
    })
}

/// The library's message without the position, which our error puts in front.
fn plain_message(message: &str) -> String {
    let first = message.lines().next().unwrap_or(message);
    match first.rfind(" at line ") {
        Some(at) => first[..at].trim_end_matches([',', ':']).to_owned(),
        None => first.to_owned(),
    }
}

/// A secret that is given inline or as the name of a file.
pub(crate) fn one_secret(
    key: &str,
    value: Option<&SecretString>,
    file_key: &str,
    file: Option<&Path>,
) -> Result<Option<SecretString>, ConfigError> {
    match (value, file) {
        (Some(_), Some(_)) => Err(ConfigError::invalid(
            key,
            format!("and {file_key} exclude each other; keep one"),
        )),
        (Some(value), None) if value.expose_secret().trim().is_empty() => {
            Err(ConfigError::invalid(key, "is empty"))
        }
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(path)) => secret_file(file_key, path).map(Some),
        (None, None) => Ok(None),
    }
}

/// The only line of a file that contains a secret.
pub(crate) fn secret_file(key: &str, path: &Path) -> Result<SecretString, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::invalid(key, format!("{}: cannot be read: {error}", path.display())))?;
    match text.trim() {
        "" => Err(ConfigError::invalid(key, format!("{}: is empty", path.display()))),
        secret if secret.contains('\n') => Err(ConfigError::invalid(
            key,
            format!("{}: has more than one line", path.display()),
        )),
        secret => Ok(SecretString::from(secret.to_owned())),
    }
}

#[cfg(test)]
mod tests;
