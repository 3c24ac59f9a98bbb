//! Self-signed certificates for the demo.

use std::io;

use rcgen::{CertificateParams, DnType, KeyPair};

/// A self-signed certificate for these names and its key, both in PEM. The certificate never expires.
///
/// # Errors
/// The system has no random numbers, or a name is invalid.
pub fn self_signed(names: &[&str]) -> io::Result<(String, String)> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).map_err(io::Error::other)?;
    params.distinguished_name.remove(DnType::CommonName);
    params
        .distinguished_name
        .push(DnType::CommonName, "weir demo");
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let cert = params.self_signed(&key).map_err(io::Error::other)?;
    Ok((cert.pem(), key.serialize_pem()))
}
