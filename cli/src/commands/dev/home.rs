//! The folder of `slipway dev`: certificates, tokens, configuration, databases, images. Created once, kept from then
//! on.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::TcpListener,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    configs::{self, DRIVER, PEOPLE, Place, Repository},
    own_cluster,
};
use crate::{args::Globals, context::Context, failure::Failure};

#[derive(Debug, Clone, Default)]
pub(crate) struct Options {
    /// The first of the ports; 0 picks free ones.
    pub(crate) port: u16,
    /// The initial catalog; a commented example if there is none.
    pub(crate) catalog: Option<String>,
    /// GitOps repositories to begin with.
    pub(crate) repositories: Vec<Repository>,
}

#[derive(Debug)]
pub(crate) struct Home {
    folder: PathBuf,
}

impl Home {
    /// Opens the folder, and creates whatever is missing.
    pub(crate) fn open(folder: &Path, options: &Options) -> Result<Self, Failure> {
        private_folder(folder)?;
        let home = Self {
            folder: folder.canonicalize()?,
        };
        for name in ["tokens", "config", "images", "git"] {
            private_folder(&home.path(name))?;
        }
        home.certificates()?;
        let mut hashes = BTreeMap::new();
        for name in PEOPLE.iter().map(|(name, _)| *name).chain([DRIVER]) {
            hashes.insert(name, home.token(name)?);
        }
        if !home.path("context.yaml").exists() {
            home.configure(options, &hashes)?;
        }
        Ok(home)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The configuration file of a service.
    pub(crate) fn config(&self, service: &str) -> PathBuf {
        self.folder.join("config").join(format!("{service}.yaml"))
    }

    pub(crate) fn context(&self) -> Result<Context, Failure> {
        let output = crate::args::Output::Table;
        Context::load(&Globals {
            context: Some(self.path("context.yaml")),
            user: None,
            output,
        })
    }

    /// Uses a context of the user's own kubeconfig for the cluster `local`.
    pub(crate) fn use_kube_context(&self, context: &str) -> Result<(), Failure> {
        write_private(&self.path("kubeconfig"), &own_cluster::kubeconfig(context)?)
    }

    /// A certificate authority of this folder's own, and one certificate for loopback.
    fn certificates(&self) -> Result<(), Failure> {
        if self.path("tls.key").exists() {
            return Ok(());
        }
        let made = (|| {
            let authority_key = rcgen::KeyPair::generate()?;
            let mut authority = rcgen::CertificateParams::new(Vec::<String>::new())?;
            authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            authority
                .distinguished_name
                .push(rcgen::DnType::CommonName, "slipway dev");
            let authority_certificate = authority.self_signed(&authority_key)?;
            let issuer = rcgen::Issuer::new(authority, authority_key);
            let key = rcgen::KeyPair::generate()?;
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let certificate = rcgen::CertificateParams::new(names)?.signed_by(&key, &issuer)?;
            Ok::<_, rcgen::Error>((
                authority_certificate.pem(),
                certificate.pem(),
                key.serialize_pem(),
            ))
        })();
        let (authority, certificate, key) = made.map_err(Failure::new)?;
        write_private(&self.path("ca.pem"), authority.as_bytes())?;
        write_private(&self.path("tls.pem"), certificate.as_bytes())?;
        // Last: it marks the folder as complete.
        write_private(&self.path("tls.key"), key.as_bytes())
    }

    /// The hash of a person's token, which is created if there is none.
    fn token(&self, name: &str) -> Result<String, Failure> {
        let path = self.path("tokens").join(name);
        if !path.exists() {
            let token = format!(
                "slipway_{}{}",
                uuid::Uuid::new_v4().simple(),
                uuid::Uuid::new_v4().simple()
            );
            write_private(&path, token.as_bytes())?;
        }
        let token = fs::read_to_string(path)?;
        Ok(hex::encode(Sha256::digest(token.trim())))
    }

    /// A GitOps repository to begin with: bare, with one empty commit on `main`.
    fn gitops_repository(&self) -> Result<Repository, Failure> {
        let path = self.path("platform.git");
        let git = |arguments: &[&str]| {
            let mut command = std::process::Command::new("git");
            command
                .arg("--git-dir")
                .arg(&path)
                .args(arguments)
                .stdin(std::process::Stdio::null());
            for role in ["AUTHOR", "COMMITTER"] {
                command.env(format!("GIT_{role}_NAME"), "slipway dev");
                command.env(format!("GIT_{role}_EMAIL"), "slipway@localhost");
            }
            let output = command
                .output()
                .map_err(|error| Failure::new(format!("cannot run git: {error}")))?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
            }
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            Err(Failure::new(format!("git {}: {said}", arguments.join(" "))))
        };
        git(&["init", "--quiet", "--bare", "--initial-branch=main"])?;
        let tree = git(&["hash-object", "-w", "-t", "tree", "--stdin"])?;
        let commit = git(&["commit-tree", &tree, "-m", "chore: an empty GitOps repository"])?;
        git(&["update-ref", "refs/heads/main", &commit])?;
        Ok(Repository {
            name: "platform".to_owned(),
            url: path.display().to_string(),
        })
    }

    /// Writes the catalog, the four configurations and, last, the context.
    fn configure(&self, options: &Options, hashes: &BTreeMap<&str, String>) -> Result<(), Failure> {
        let ports = ports(options.port)?;
        let email = own_email();
        let mut repositories = options.repositories.clone();
        if repositories.is_empty() {
            repositories.push(self.gitops_repository()?);
        }
        let place = Place {
            folder: &self.folder,
            ports,
            hashes,
            repositories: &repositories,
            email: email.as_deref(),
        };
        let catalog = options.catalog.as_deref().unwrap_or(configs::EXAMPLE_CATALOG);
        write_private(&self.path("catalog.yaml"), catalog.as_bytes())?;
        for (service, text) in place.all() {
            write_private(&self.config(service), text.as_bytes())?;
        }
        let urls = ports.map(|port| format!("https://127.0.0.1:{port}"));
        let token_files = PEOPLE
            .iter()
            .map(|(name, _)| ((*name).to_owned(), Path::new("tokens").join(name)))
            .collect();
        let context = Context::new(urls, "alice", token_files, Some("ca.pem".into()));
        let text = serde_saphyr::to_string(&context).map_err(Failure::new)?;
        write_private(&self.path("context.yaml"), text.as_bytes())
    }
}

/// The author that `git commit` would use, if git knows one.
fn own_email() -> Option<String> {
    let mut command = std::process::Command::new("git");
    let output = command.args(["config", "--global", "user.email"]).output().ok()?;
    let email = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let known = PEOPLE
        .iter()
        .any(|(name, _)| email == format!("{name}@example.com"));
    (email.contains('@') && !known).then_some(email)
}

/// Four ports from `first` on, or four free ones.
fn ports(first: u16) -> Result<[u16; 4], Failure> {
    if first != 0 {
        return Ok([0, 1, 2, 3].map(|offset| first.saturating_add(offset)));
    }
    // Kept open until all four are known, so that they differ.
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(TcpListener::bind("127.0.0.1:0")?);
    }
    let mut ports = [0; 4];
    for (port, listener) in ports.iter_mut().zip(&held) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

fn private_folder(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    Ok(())
}

/// Written completely or not at all, and not readable by others.
fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let new = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    Ok(())
}
