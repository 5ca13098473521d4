//! Signatures of commits in git's SSH format, which `git log --show-signature` and the forges verify.
//!
//! The signature covers the commit without the signature itself, in the namespace `git`, hashed with SHA-512, and is
//! placed in the commit's header `gpgsig` (gitformat-signature(5), OpenSSH's PROTOCOL.sshsig). All three algorithms
//! here are deterministic, so that a commit made again after a crash is the same commit.

use std::{fmt, path::Path, sync::Arc};

use rsa::signature::{SignatureEncoding as _, Signer as _};
use secrecy::ExposeSecret as _;
use slipway_server::ConfigError;
use ssh_key::{
    Algorithm, EcdsaCurve, HashAlg, LineEnding, PrivateKey, Signature, SshSig, private::RsaKeypair,
};

use crate::{
    backends::credentials,
    config::{Author, RepositoryConfig, SigningConfig},
};

/// The namespace in which git signs commits and tags, so that no other signature of the key can be passed off as one.
const NAMESPACE: &str = "git";
/// The hash of the signed bytes, as git uses it with ssh-keygen.
const HASH: HashAlg = HashAlg::Sha512;
/// ssh rejects signatures of shorter keys.
const MIN_RSA_BITS: usize = 2048;

/// The author of commits, and the key that proves it.
#[derive(Debug, Clone)]
pub(crate) struct Committer {
    pub(crate) author: Author,
    pub(crate) key: Option<Arc<Key>>,
}

impl Committer {
    /// A repository's own, if it has them.
    ///
    /// # Errors
    /// As [`Key::read`].
    pub(crate) fn of(name: &str, config: &RepositoryConfig, service: &Self) -> Result<Self, ConfigError> {
        let key = match &config.signing {
            Some(signing) => Some(Arc::new(Key::read(
                signing,
                &format!("repositories.{name}.signing"),
            )?)),
            None => service.key.clone(),
        };
        Ok(Self {
            author: config.author.clone().unwrap_or_else(|| service.author.clone()),
            key,
        })
    }
}

/// A key that signs commits.
pub(crate) struct Key {
    key: PrivateKey,
    /// For RSA, in the form of the crate that signs with it.
    rsa: Option<rsa::pkcs1v15::SigningKey<rsa::sha2::Sha512>>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.key.fingerprint(HashAlg::Sha256))
    }
}

/// The key cannot sign.
#[derive(Debug, thiserror::Error)]
#[error("the commit cannot be signed: {0}")]
pub(crate) struct SigningError(String);

impl From<ssh_key::Error> for SigningError {
    fn from(error: ssh_key::Error) -> Self {
        Self(error.to_string())
    }
}

impl Key {
    /// Reads the key, and signs something with it, so that a bad key is found before the first commit.
    ///
    /// # Errors
    /// Names the key of the configuration, below `section`, and the remedy. Contains nothing from the files.
    pub(crate) fn read(config: &SigningConfig, section: &str) -> Result<Self, ConfigError> {
        let wrong = |field: &str, path: &Path, problem: &str| {
            ConfigError::invalid(
                format!("{section}.{field}"),
                format!("{}: {problem}", path.display()),
            )
        };
        let path = &config.ssh_key_file;
        let bad_key = |problem: &str| wrong("ssh_key_file", path, problem);
        let text = credentials::read_private_key(path).map_err(|problem| bad_key(&problem))?;
        let mut key = PrivateKey::from_openssh(text.expose_secret()).map_err(|_| {
            bad_key(
                "is not a private key in OpenSSH's form; `ssh-keygen -t ed25519 -f FILE` makes one, and \
                 `ssh-keygen -p -f FILE` rewrites an old one",
            )
        })?;
        if key.is_encrypted() {
            let file = config.passphrase_file.as_deref().ok_or_else(|| {
                bad_key(&format!(
                    "has a passphrase: set {section}.passphrase_file, or use a key without one"
                ))
            })?;
            let passphrase =
                credentials::read(file).map_err(|problem| wrong("passphrase_file", file, &problem))?;
            // An editor's last newline is not part of it; spaces may be.
            let passphrase = passphrase.expose_secret().trim_end_matches(['\r', '\n']);
            key = key
                .decrypt(passphrase)
                .map_err(|_| wrong("passphrase_file", file, "does not unlock the key"))?;
        }
        match key.algorithm() {
            Algorithm::Ed25519
            | Algorithm::Rsa { .. }
            | Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP256,
            } => {}
            other => {
                return Err(bad_key(&format!(
                    "is of the kind {other}, which cannot sign here: use ed25519, ECDSA P-256 or RSA"
                )));
            }
        }
        let rsa = key
            .key_data()
            .rsa()
            .map(rsa_key)
            .transpose()
            .map_err(|problem| bad_key(&problem))?;
        let key = Self { key, rsa };
        let probe = b"probe";
        key.signature(probe)
            .and_then(|signature| Ok(key.key.public_key().verify(NAMESPACE, probe, &signature)?))
            .map_err(|_| bad_key("makes signatures that its public half does not verify; it is damaged"))?;
        Ok(key)
    }

    /// The value of the header `gpgsig` for a commit whose object, without that header, is `commit`.
    ///
    /// # Errors
    /// When the key cannot sign, which [`Key::read`] rules out.
    pub(crate) fn sign(&self, commit: &[u8]) -> Result<String, SigningError> {
        Ok(self.signature(commit)?.to_pem(LineEnding::LF)?)
    }

    fn signature(&self, message: &[u8]) -> Result<SshSig, SigningError> {
        let Some(rsa) = &self.rsa else {
            return Ok(self.key.sign(NAMESPACE, HASH, message)?);
        };
        let data = SshSig::signed_data(NAMESPACE, HASH, message)?;
        let signature = rsa
            .try_sign(&data)
            .map_err(|error| SigningError(error.to_string()))?;
        let signature = Signature::new(Algorithm::Rsa { hash: Some(HASH) }, signature.to_vec())?;
        let public = self.key.public_key().key_data().clone();
        Ok(SshSig::new(public, NAMESPACE, HASH, signature)?)
    }
}

/// ssh-key 0.6 takes the first prime twice when it converts an RSA key itself, and so can never sign with one.
fn rsa_key(pair: &RsaKeypair) -> Result<rsa::pkcs1v15::SigningKey<rsa::sha2::Sha512>, String> {
    use rsa::traits::PublicKeyParts as _;

    let number = |number: &ssh_key::Mpint| rsa::BigUint::try_from(number);
    let key = (|| {
        let primes = vec![number(&pair.private.p)?, number(&pair.private.q)?];
        rsa::RsaPrivateKey::from_components(
            number(&pair.public.n)?,
            number(&pair.public.e)?,
            number(&pair.private.d)?,
            primes,
        )
        .map_err(|_| ssh_key::Error::Crypto)
    })()
    .map_err(|_| "is not a complete RSA key; it is damaged".to_owned())?;
    let bits = key.n().bits();
    if bits < MIN_RSA_BITS {
        return Err(format!(
            "is an RSA key of {bits} bits: ssh accepts no fewer than {MIN_RSA_BITS}"
        ));
    }
    Ok(rsa::pkcs1v15::SigningKey::new(key))
}

#[cfg(test)]
mod tests {
    use slipway_testbed::{TestDir, ssh_key};

    use super::{Key, NAMESPACE};
    use crate::config::SigningConfig;

    #[test]
    fn the_same_commit_has_the_same_signature() {
        let folder = TestDir::new("signing").unwrap();
        for (name, kind) in [
            ("ed25519", &["-t", "ed25519"][..]),
            ("ecdsa", &["-t", "ecdsa", "-b", "256"]),
            ("rsa", &["-t", "rsa", "-b", "2048"]),
        ] {
            let ssh_key_file = folder.path().join(name);
            ssh_key(&ssh_key_file, kind, "").unwrap();
            let config = SigningConfig {
                ssh_key_file,
                passphrase_file: None,
            };
            let key = Key::read(&config, "signing").unwrap();
            let signed = key.sign(b"tree 1a2b").unwrap();
            assert_eq!(
                Key::read(&config, "signing").unwrap().sign(b"tree 1a2b").unwrap(),
                signed
            );
            let signature: ssh_key::SshSig = signed.parse().unwrap();
            let public = key.key.public_key();
            assert!(public.verify(NAMESPACE, b"tree 1a2b", &signature).is_ok());
            assert!(public.verify(NAMESPACE, b"tree 1a2c", &signature).is_err());
            assert!(public.verify("file", b"tree 1a2b", &signature).is_err());
            assert!(signed.lines().all(|line| line.len() <= 76), "{signed}");
            assert!(format!("{key:?}").starts_with("Key(SHA256:"));
        }
    }
}
