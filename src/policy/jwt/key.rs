//! One key that verifies tokens.

use std::fmt;

use jsonwebtoken::{Algorithm as Library, DecodingKey, crypto};
use weir_config::JwtAlgorithm as Algorithm;

use super::base64;
use super::signature::{has_small_order, is_point, verify_es512};
use crate::limits::{RSA_BITS_MAX, RSA_BITS_MIN};
use crate::policy::json::Object;

/// A key that verifies tokens. It says by which algorithms, so that a token cannot choose another: a public key is
/// never taken for a secret.
//= rfc8725#3.1
pub struct Key {
    id: Option<Box<str>>,
    algorithms: Box<[Algorithm]>,
    material: Material,
}

enum Material {
    Rsa {
        key: DecodingKey,
        modulus_bytes: usize,
    },
    P521(Box<[u8]>),
    /// All others, which the library handles.
    Other(DecodingKey),
}

/// The curve of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
    Ed25519,
}

/// The type of a key, which decides the algorithms that fit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyType {
    Rsa,
    Curve(Curve),
    Secret,
}

/// Where a key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyOrigin {
    /// A file of the machine. It may have secrets.
    File,
    /// The issuer published it for everyone, so it cannot be a secret.
    Fetched,
}

impl KeyType {
    /// The algorithms of this type. Without a choice by the key or the file, it means the first.
    fn algorithms(self) -> &'static [Algorithm] {
        match self {
            Self::Rsa => &[
                Algorithm::Rs256,
                Algorithm::Rs384,
                Algorithm::Rs512,
                Algorithm::Ps256,
                Algorithm::Ps384,
                Algorithm::Ps512,
            ],
            Self::Curve(Curve::P256) => &[Algorithm::Es256],
            Self::Curve(Curve::P384) => &[Algorithm::Es384],
            Self::Curve(Curve::P521) => &[Algorithm::Es512],
            Self::Curve(Curve::Ed25519) => &[Algorithm::EdDsa],
            Self::Secret => &[Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512],
        }
    }

    /// The algorithms of a key whose own choice is `own`, out of those that the configuration allows.
    fn choose(self, own: Option<&str>, allowed: &[Algorithm]) -> Result<Box<[Algorithm]>, String> {
        let fitting = self.algorithms();
        if let Some(name) = own {
            let own = Algorithm::from_name(name).filter(|own| fitting.contains(own));
            let own = own.ok_or_else(|| format!("its algorithm {name:?} does not fit it"))?;
            if !allowed.is_empty() && !allowed.contains(&own) {
                return Err(format!("its algorithm {name} is not among `algorithms`"));
            }
            return Ok([own].into());
        }
        if allowed.is_empty() {
            //= rfc8725#3.1
            // A key is for one algorithm. The first is what issuers use who do not say it.
            return Ok(fitting.iter().take(1).copied().collect());
        }
        let both = fitting
            .iter()
            .filter(|algorithm| allowed.contains(algorithm));
        let both: Box<[_]> = both.copied().collect();
        if both.is_empty() {
            return Err("no algorithm of `algorithms` fits it".to_owned());
        }
        Ok(both)
    }
}

impl Curve {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "P-256" => Some(Self::P256),
            "P-384" => Some(Self::P384),
            "P-521" => Some(Self::P521),
            "Ed25519" => Some(Self::Ed25519),
            _ => None,
        }
    }

    /// The length of a coordinate, in bytes.
    fn coordinate_bytes(self) -> usize {
        match self {
            Self::P256 | Self::Ed25519 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// The curve of a point that is not compressed, by its length.
    fn of_point(point: &[u8]) -> Option<Self> {
        let all = [Self::P256, Self::P384, Self::P521];
        all.into_iter()
            .find(|curve| point.len() == 1 + 2 * curve.coordinate_bytes())
    }
}

impl Key {
    /// The key that a JWK describes (RFC 7517), or `None` for one that is not for signatures. `allowed` has the
    /// algorithms that the configuration allows; empty for all.
    ///
    /// # Errors
    /// A member is missing or broken, Weir does not support the key, or it may not come from `origin`.
    pub fn from_jwk(
        jwk: &Object,
        allowed: &[Algorithm],
        origin: KeyOrigin,
    ) -> Result<Option<Self>, String> {
        if !is_for_signatures(jwk)? {
            return Ok(None);
        }
        let id = optional_text(jwk, "kid")?.map(Into::into);
        let own = optional_text(jwk, "alg")?;
        let (key_type, material) = match text(jwk, "kty")? {
            "RSA" => (KeyType::Rsa, rsa(&bytes(jwk, "n")?, &bytes(jwk, "e")?)?),
            "EC" => {
                let curve = curve(jwk, &[Curve::P256, Curve::P384, Curve::P521])?;
                let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
                let length = curve.coordinate_bytes();
                //= rfc7518#6.2.1.2
                if x.len() != length || y.len() != length {
                    return Err(format!("`x` and `y` must have {length} bytes each"));
                }
                (
                    KeyType::Curve(curve),
                    point(curve, &[&[4], &*x, &*y].concat())?,
                )
            }
            "OKP" => {
                let curve = curve(jwk, &[Curve::Ed25519])?;
                (KeyType::Curve(curve), point(curve, &bytes(jwk, "x")?)?)
            }
            "oct" if origin == KeyOrigin::Fetched => {
                return Err("it is a secret, and everyone may fetch it".to_owned());
            }
            "oct" => {
                let secret = bytes(jwk, "k")?;
                let algorithms = KeyType::Secret.choose(own, allowed)?;
                return Self::from_secret(id, &secret, algorithms).map(Some);
            }
            other => return Err(format!("Weir does not support its type {other:?}")),
        };
        Ok(Some(Self {
            id,
            algorithms: key_type.choose(own, allowed)?,
            material,
        }))
    }

    /// The public key in a PEM text.
    ///
    /// # Errors
    /// The text has no public key, more than one, or one that Weir does not support.
    pub fn from_pem(text: &[u8], allowed: &[Algorithm]) -> Result<Self, String> {
        let marks = String::from_utf8_lossy(text);
        let mut labels = marks.split("-----BEGIN ").skip(1);
        let label = labels.next().and_then(|rest| rest.split("-----").next());
        if labels.next().is_some() {
            return Err(
                "it has several keys; write them as a key set, and name it with `jwks_file`"
                    .to_owned(),
            );
        }
        match label {
            Some("PUBLIC KEY" | "RSA PUBLIC KEY") => {}
            Some("CERTIFICATE") => {
                return Err(
                    "it is a certificate; `openssl x509 -pubkey -noout -in FILE` writes its key"
                        .to_owned(),
                );
            }
            Some(label) if label.ends_with("PRIVATE KEY") => {
                return Err(
                    "it is a private key; `openssl pkey -pubout -in FILE` writes the public one"
                        .to_owned(),
                );
            }
            _ => return Err("it is neither a public key in PEM nor a JWK".to_owned()),
        }
        let (key_type, material) = if let Ok(key) = DecodingKey::from_rsa_pem(text) {
            let (modulus, exponent) =
                read_rsa_der(key.as_bytes()).ok_or("it is not a valid RSA key")?;
            (KeyType::Rsa, rsa(modulus, exponent)?)
        } else if let Ok(key) = DecodingKey::from_ec_pem(text) {
            let curve = Curve::of_point(key.as_bytes()).ok_or("Weir does not support its curve")?;
            (KeyType::Curve(curve), point(curve, key.as_bytes())?)
        } else {
            let key = DecodingKey::from_ed_pem(text);
            let key = key.map_err(
                |_| "Weir does not support it: it is no RSA, P-256, P-384, P-521 or Ed25519 key",
            )?;
            (
                KeyType::Curve(Curve::Ed25519),
                point(Curve::Ed25519, key.as_bytes())?,
            )
        };
        Ok(Self {
            id: None,
            algorithms: key_type.choose(None, allowed)?,
            material,
        })
    }

    /// The secret in a file.
    ///
    /// # Errors
    /// It is too short for an algorithm.
    pub fn from_secret_file(secret: &[u8], allowed: &[Algorithm]) -> Result<Self, String> {
        let algorithms = KeyType::Secret.choose(None, allowed)?;
        Self::from_secret(None, secret, algorithms)
    }

    fn from_secret(
        id: Option<Box<str>>,
        secret: &[u8],
        algorithms: Box<[Algorithm]>,
    ) -> Result<Self, String> {
        let least = |algorithm: &Algorithm| signature_bytes(*algorithm).unwrap_or(0);
        //= rfc7518#3.2
        // A secret has at least as many bytes as the hash.
        let least = algorithms.iter().map(least).max().unwrap_or(0);
        if secret.len() < least {
            return Err(format!(
                "it has {} bytes, and a secret needs at least {least}",
                secret.len()
            ));
        }
        Ok(Self {
            id,
            algorithms,
            material: Material::Other(DecodingKey::from_secret(secret)),
        })
    }

    /// The id by which tokens name the key.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether tokens may be signed with this algorithm.
    #[must_use]
    pub fn allows(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether both allow one algorithm.
    pub(super) fn shares_algorithm(&self, other: &Self) -> bool {
        self.algorithms
            .iter()
            .any(|algorithm| other.allows(*algorithm))
    }

    /// Whether `signature`, in base64url, is one of `message` with this key and algorithm. False for an algorithm that
    /// the key does not allow.
    #[must_use]
    pub fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        if !self.allows(algorithm) {
            return false;
        }
        let Some(bytes) = base64::decode(signature.as_bytes()) else {
            return false;
        };
        let length = match &self.material {
            Material::Rsa { modulus_bytes, .. } => Some(*modulus_bytes),
            Material::P521(_) | Material::Other(_) => signature_bytes(algorithm),
        };
        if length != Some(bytes.len()) {
            return false;
        }
        let key = match &self.material {
            Material::P521(point) => return verify_es512(point, message, &bytes),
            Material::Rsa { key, .. } | Material::Other(key) => key,
        };
        let Some(algorithm) = of_library(algorithm) else {
            return false;
        };
        crypto::verify(signature, message, key, algorithm).unwrap_or(false)
    }
}

impl PartialEq for Key {
    /// Whether both verify the same tokens.
    fn eq(&self, other: &Self) -> bool {
        let is_same_material = match (&self.material, &other.material) {
            (Material::P521(one), Material::P521(other)) => one == other,
            (
                Material::Rsa { key: one, .. } | Material::Other(one),
                Material::Rsa { key: other, .. } | Material::Other(other),
            ) => is_same(one, other),
            _ => false,
        };
        is_same_material && self.id == other.id && self.algorithms == other.algorithms
    }
}

impl fmt::Debug for Key {
    /// Leaves the material out: it may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self
            .algorithms
            .iter()
            .map(|algorithm| algorithm.name())
            .collect();
        write!(f, "Key({:?}, {})", self.id, names.join(" "))
    }
}

fn is_same(one: &DecodingKey, other: &DecodingKey) -> bool {
    use jsonwebtoken::DecodingKeyKind as Kind;
    match (one.kind(), other.kind()) {
        (Kind::SecretOrDer(a), Kind::SecretOrDer(b)) => one.family() == other.family() && a == b,
        (Kind::RsaModulusExponent { n: n1, e: e1 }, Kind::RsaModulusExponent { n: n2, e: e2 }) => {
            n1 == n2 && e1 == e2
        }
        _ => false,
    }
}

/// The length of signatures by this algorithm, in bytes; `None` if it depends on the key.
fn signature_bytes(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::Es256 | Algorithm::EdDsa | Algorithm::Hs512 => Some(64),
        Algorithm::Es384 => Some(96),
        Algorithm::Es512 => Some(132),
        Algorithm::Hs256 => Some(32),
        Algorithm::Hs384 => Some(48),
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512 => None,
    }
}

/// The library's name of an algorithm. It has no ES512.
fn of_library(algorithm: Algorithm) -> Option<Library> {
    Some(match algorithm {
        Algorithm::Rs256 => Library::RS256,
        Algorithm::Rs384 => Library::RS384,
        Algorithm::Rs512 => Library::RS512,
        Algorithm::Ps256 => Library::PS256,
        Algorithm::Ps384 => Library::PS384,
        Algorithm::Ps512 => Library::PS512,
        Algorithm::Es256 => Library::ES256,
        Algorithm::Es384 => Library::ES384,
        Algorithm::Es512 => return None,
        Algorithm::EdDsa => Library::EdDSA,
        Algorithm::Hs256 => Library::HS256,
        Algorithm::Hs384 => Library::HS384,
        Algorithm::Hs512 => Library::HS512,
    })
}

/// Whether the key is for signatures, as `use` and `key_ops` say (RFC 7517, sections 4.2 and 4.3).
fn is_for_signatures(jwk: &Object) -> Result<bool, String> {
    if optional_text(jwk, "use")?.is_some_and(|purpose| purpose != "sig") {
        return Ok(false);
    }
    let Some(operations) = jwk.get("key_ops") else {
        return Ok(true);
    };
    let operations = operations.as_list().ok_or("`key_ops` is not a list")?;
    Ok(operations
        .iter()
        .any(|operation| operation.as_text() == Some("verify")))
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Material, String> {
    let first = modulus
        .iter()
        .position(|&byte| byte != 0)
        .unwrap_or(modulus.len());
    let modulus = modulus.get(first..).unwrap_or_default();
    let leading_zeros = modulus
        .first()
        .map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = modulus.len() * 8 - leading_zeros;
    //= rfc7518#3.3
    if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
        return Err(format!(
            "it has {bits} bits, and an RSA key needs {RSA_BITS_MIN} to {RSA_BITS_MAX}"
        ));
    }
    Ok(Material::Rsa {
        key: DecodingKey::from_rsa_raw_components(modulus, exponent),
        modulus_bytes: modulus.len(),
    })
}

fn point(curve: Curve, point: &[u8]) -> Result<Material, String> {
    if !is_point(curve, point) {
        return Err("it is not a point of its curve".to_owned());
    }
    if curve == Curve::Ed25519 && has_small_order(point) {
        return Err("it is a point of small order, for which anyone could sign".to_owned());
    }
    Ok(match curve {
        Curve::P256 | Curve::P384 => Material::Other(DecodingKey::from_ec_der(point)),
        Curve::P521 => Material::P521(point.into()),
        Curve::Ed25519 => Material::Other(DecodingKey::from_ed_der(point)),
    })
}

/// Modulus and exponent of an RSAPublicKey in DER (RFC 8017, appendix A.1.1).
pub(in crate::policy::jwt) fn read_rsa_der(der: &[u8]) -> Option<(&[u8], &[u8])> {
    const INTEGER: u8 = 0x02;
    const SEQUENCE: u8 = 0x30;
    let (numbers, []) = read_der(SEQUENCE, der)? else {
        return None;
    };
    let (modulus, rest) = read_der(INTEGER, numbers)?;
    let (exponent, []) = read_der(INTEGER, rest)? else {
        return None;
    };
    Some((modulus, exponent))
}

/// Content of the first element of `der`, which has this tag, and what follows it.
fn read_der(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (
                length
                    .iter()
                    .fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
                rest,
            )
        }
        _ => return None,
    };
    if found == tag {
        rest.split_at_checked(length)
    } else {
        None
    }
}

fn curve(jwk: &Object, known: &[Curve]) -> Result<Curve, String> {
    let name = text(jwk, "crv")?;
    let curve = Curve::from_name(name).filter(|curve| known.contains(curve));
    curve.ok_or_else(|| format!("Weir does not support its curve {name:?}"))
}

fn bytes(jwk: &Object, name: &str) -> Result<Vec<u8>, String> {
    let text = text(jwk, name)?;
    base64::decode(text.as_bytes())
        .ok_or_else(|| format!("`{name}` is not base64url without padding"))
}

fn text<'o>(jwk: &'o Object, name: &str) -> Result<&'o str, String> {
    optional_text(jwk, name)?.ok_or_else(|| format!("`{name}` is missing"))
}

fn optional_text<'o>(jwk: &'o Object, name: &str) -> Result<Option<&'o str>, String> {
    match jwk.get(name) {
        None => Ok(None),
        Some(value) => value
            .as_text()
            .map(Some)
            .ok_or_else(|| format!("`{name}` is not a string")),
    }
}
