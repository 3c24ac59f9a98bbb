//! Certificates that nobody is to trust: for the demo.

use std::io;

use rcgen::{CertificateParams, DnType, KeyPair};

/// A certificate for these names that is signed by itself, and its key; both PEM. It does not end.
///
/// # Errors
/// The system has no random numbers, or one of the names is none.
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
