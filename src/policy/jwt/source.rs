//! Where the keys of an issuer come from.

use std::fmt;
use std::path::Path;

use weir_config::{FetchUrl, JwtAlgorithm as Algorithm, JwtIssuer, JwtKeys, NamedFile};

use super::key::{Key, KeyOrigin};
use super::key_set::{KeySet, ReadKeySet};
use crate::policy::json::Object;

/// Where the keys of an issuer come from, and which of its algorithms may be used. Routes with equal sources share the
/// keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// The place.
    pub place: JwtKeys,
    /// What the discovery document must name as its issuer.
    pub issuer: Option<Box<str>>,
    /// The authorities that the issuer's certificate must come from; `None` for the system's.
    pub ca: Option<NamedFile>,
    /// Algorithms that may be used; empty for all.
    pub algorithms: Box<[Algorithm]>,
}

impl KeySource {
    /// The source of an issuer's keys.
    #[must_use]
    pub fn new(issuer: &JwtIssuer) -> Self {
        let is_discovered = matches!(issuer.keys, JwtKeys::Discovery(_));
        let name = issuer.issuer.as_deref().filter(|_| is_discovered);
        Self {
            place: issuer.keys.clone(),
            issuer: name.map(Into::into),
            ca: issuer.ca.clone(),
            algorithms: issuer.algorithms.as_slice().into(),
        }
    }

    /// The URL that Weir asks first; `None` if the keys are in a file.
    #[must_use]
    pub fn url(&self) -> Option<&FetchUrl> {
        match &self.place {
            JwtKeys::Discovery(url) | JwtKeys::Url(url) => Some(url),
            JwtKeys::SetFile(_) | JwtKeys::KeyFile(_) | JwtKeys::SecretFile(_) => None,
        }
    }

    /// The file with the keys, if they are in one.
    #[must_use]
    pub fn file(&self) -> Option<&NamedFile> {
        match &self.place {
            JwtKeys::SetFile(file) | JwtKeys::KeyFile(file) | JwtKeys::SecretFile(file) => {
                Some(file)
            }
            JwtKeys::Discovery(_) | JwtKeys::Url(_) => None,
        }
    }

    /// All that makes the keys what they are, as text. The line in the file is not part of it.
    #[must_use]
    pub fn name(&self) -> String {
        let kind = match &self.place {
            JwtKeys::Discovery(_) => "discovery",
            JwtKeys::Url(_) => "url",
            JwtKeys::SetFile(_) => "set",
            JwtKeys::KeyFile(_) => "key",
            JwtKeys::SecretFile(_) => "secret",
        };
        let ca = self.ca.as_ref().map(|ca| &ca.path);
        format!("{kind} {self} {:?} {ca:?}", self.algorithms)
    }

    /// Reads a key set that was fetched.
    ///
    /// # Errors
    /// Those of [`KeySet::parse`].
    pub fn read_fetched(&self, text: &[u8]) -> Result<ReadKeySet, String> {
        KeySet::parse(text, &self.algorithms, KeyOrigin::Fetched)
    }

    /// Reads the keys in the content of the file.
    ///
    /// # Errors
    /// It has no key that can be used, or one that is not public where it should be.
    pub fn read_file(&self, content: &[u8]) -> Result<ReadKeySet, String> {
        let only = |key| ReadKeySet {
            keys: KeySet::of(key),
            left_out: Vec::new(),
        };
        match &self.place {
            JwtKeys::SetFile(_) => KeySet::parse(content, &self.algorithms, KeyOrigin::File),
            JwtKeys::SecretFile(_) => {
                let secret = content.strip_suffix(b"\n").unwrap_or(content);
                let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
                Key::from_secret_file(secret, &self.algorithms).map(only)
            }
            JwtKeys::KeyFile(_) if content.trim_ascii_start().starts_with(b"{") => {
                let jwk =
                    Object::parse(content).map_err(|error| format!("it is not a JWK: {error}"))?;
                let key = Key::from_jwk(&jwk, &self.algorithms, KeyOrigin::File)?;
                key.map(only)
                    .ok_or_else(|| "the key is not for signatures".to_owned())
            }
            JwtKeys::KeyFile(_) => Key::from_pem(content, &self.algorithms).map(only),
            JwtKeys::Discovery(_) | JwtKeys::Url(_) => Err("the keys are not in a file".to_owned()),
        }
    }
}

impl fmt::Display for KeySource {
    /// Names the source in logs and metrics: the issuer, the URL or the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |path: &Path| path.display().to_string();
        match (&self.place, &self.issuer) {
            (JwtKeys::Discovery(_), Some(issuer)) => f.write_str(issuer),
            (JwtKeys::Discovery(url) | JwtKeys::Url(url), _) => url.fmt(f),
            (JwtKeys::SetFile(file) | JwtKeys::KeyFile(file) | JwtKeys::SecretFile(file), _) => {
                f.write_str(&path(&file.path))
            }
        }
    }
}
