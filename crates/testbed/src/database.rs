//! Databases for services under test.

use std::path::Path;

use crate::{Result, TestDir};

/// An empty database that outlives the services on it, by the URL that a configuration takes.
#[derive(Debug)]
pub struct Database {
    url: String,
    /// Keeps the SQLite file alive.
    _folder: Option<TestDir>,
}

impl Database {
    /// A SQLite file, removed when this is dropped.
    ///
    /// # Errors
    /// When its folder cannot be created.
    pub fn sqlite() -> Result<Self> {
        let folder = TestDir::new("database")?;
        Ok(Self {
            url: format!("sqlite://{}", folder.path().join("ledger.db").display()),
            _folder: Some(folder),
        })
    }

    /// On this process's PostgreSQL.
    ///
    /// # Errors
    /// When there is none, or it refuses.
    pub async fn postgres() -> Result<Self> {
        let url = crate::postgres().await?.create_database().await?;
        Ok(Self { url, _folder: None })
    }

    /// Where the SQLite file is.
    pub fn file(&self) -> Option<&Path> {
        self.url.strip_prefix("sqlite://").map(Path::new)
    }

    /// For the key `database.url`.
    pub fn url(&self) -> &str {
        &self.url
    }
}
