//! Loads the files that a configuration names and builds the TLS settings of listeners and upstreams. All errors in
//! those files show up here, on the control thread, with their place in the configuration.

use std::collections::HashSet;
use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use weir_config::{
    CertFiles, ClientCert, Code, Config, Diagnostic, Excerpt, ListenTls, Listener, ListenerTarget,
    NamedFile, Severity, TlsVersion, UpstreamTls, Verify,
};

use super::certificate_identity::CertificateIdentity;
use super::client::{AnyCertificate, TlsClient};
use super::failure::describe;
use super::provider::provider;
use super::server::{CertificatesByName, TlsServer, apply_common_settings};
use super::ticket_keys::{ClientVerification, TicketKeys};
use crate::files;
use crate::limits::TLS_FILE_BYTES_MAX;

/// The TLS settings made from a configuration's files.
#[derive(Debug, Default)]
pub struct LoadedTls {
    /// By listener, in file order.
    pub servers: Vec<Option<Arc<TlsServer>>>,
    /// By upstream, in file order.
    pub clients: Vec<Option<Arc<TlsClient>>>,
    /// Every certificate that Weir presents, each file once.
    pub certificates: Vec<OwnCertificate>,
    /// Every file that was read, and its state at that time.
    pub files: Vec<(PathBuf, Option<FileStamp>)>,
}

/// Tells states of a file apart: replacing a file changes its inode, and writing to it changes its size or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl FileStamp {
    fn of(file: &fs::Metadata) -> Self {
        Self {
            inode: file.ino(),
            bytes: file.size(),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// The file's present state; `None` if it cannot be examined.
    pub fn now(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|file| Self::of(&file))
    }
}

/// A certificate that Weir presents, for monitoring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificate {
    pub path: PathBuf,
    pub identity: CertificateIdentity,
}

/// Loads all files that a configuration names. `file` is the configuration's own name, for diagnostics.
///
/// # Errors
/// All errors in these files.
pub fn load(
    config: &Config,
    tickets: Option<&TicketKeys>,
    file: &str,
) -> Result<(LoadedTls, Vec<Diagnostic>), Vec<Diagnostic>> {
    read_all(config, tickets, file, false)
}

/// Loads the files of a configuration for another machine. Skips files that do not exist here.
///
/// # Errors
/// All errors in the files that exist.
pub fn load_available(
    config: &Config,
    file: &str,
) -> Result<(LoadedTls, Vec<Diagnostic>), Vec<Diagnostic>> {
    read_all(config, None, file, true)
}

fn read_all(
    config: &Config,
    tickets: Option<&TicketKeys>,
    file: &str,
    skips_missing: bool,
) -> Result<(LoadedTls, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut reader = TlsLoader {
        skips_missing,
        file,
        loaded: LoadedTls::default(),
        seen: HashSet::new(),
        shown: HashSet::new(),
        warnings: Vec::new(),
        errors: Vec::new(),
    };
    for listener in &config.listeners {
        let server = listener
            .tls
            .as_ref()
            .and_then(|tls| reader.server(tls, tickets, offered_on(listener)));
        reader.loaded.servers.push(server);
    }
    for upstream in &config.upstreams {
        let checks_tls = upstream.health.as_ref().and_then(|health| health.tls);
        let speaks =
            checks_tls == Some(true) || upstream.endpoints.iter().any(|endpoint| endpoint.tls);
        // With the PROXY protocol each client has connections of its own, so requests cannot share them.
        let http2 = upstream.proxy_protocol.is_none();
        let client = speaks
            .then(|| reader.client(&upstream.tls, http2))
            .flatten();
        reader.loaded.clients.push(client);
    }
    if reader.errors.is_empty() {
        Ok((reader.loaded, weir_config::bounded(reader.warnings)))
    } else {
        Err(weir_config::bounded(reader.errors))
    }
}

/// The protocols that a listener offers by ALPN. Without HTTP it offers none, and accepts clients that ask for any.
fn offered_on(listener: &Listener) -> Vec<Vec<u8>> {
    match listener.target {
        ListenerTarget::Http => super::AlpnProtocol::offered(listener.http2),
        _ => Vec::new(),
    }
}

struct TlsLoader<'a> {
    file: &'a str,
    /// Whether a missing file is not an error.
    skips_missing: bool,
    loaded: LoadedTls,
    /// Files that were read.
    seen: HashSet<PathBuf>,
    /// Files of certificates that Weir presents.
    shown: HashSet<PathBuf>,
    warnings: Vec<Diagnostic>,
    errors: Vec<Diagnostic>,
}

impl TlsLoader<'_> {
    fn server(
        &mut self,
        tls: &ListenTls,
        tickets: Option<&TicketKeys>,
        offered: Vec<Vec<u8>>,
    ) -> Option<Arc<TlsServer>> {
        let provider = Arc::new(provider(&tls.ciphers));
        let mut names = CertificatesByName::new(provider.cipher_suites.clone());
        let errors = self.errors.len();
        for files in &tls.certs {
            if let Some((key, hosts)) = self.certified(files, &provider) {
                names.add(&hosts, Arc::new(key));
            }
        }
        let (verifier, clients) = match &tls.client_ca {
            None => (None, ClientVerification::default()),
            Some(ca) => {
                let (verifier, clients) = self.verifier(tls, ca, &provider)?;
                (Some(verifier), clients)
            }
        };
        if self.errors.len() > errors {
            return None;
        }
        let versions: &[_] = match tls.min_version {
            TlsVersion::V12 if tls.ciphers.is_empty() || tls.ciphers.iter().any(|c| !c.is_13()) => {
                &[&TLS13, &TLS12]
            }
            _ => &[&TLS13],
        };
        let versions: Vec<_> = versions
            .iter()
            .copied()
            .filter(|version| {
                provider
                    .cipher_suites
                    .iter()
                    .any(|suite| suite.version() == *version)
            })
            .collect();
        let builder =
            ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions);
        let builder = match builder {
            Ok(builder) => builder,
            Err(error) => return self.wrong(&tls.certs.first()?.cert, &error),
        };
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(names));
        apply_common_settings(&mut config, offered);
        if let Some(tickets) = tickets {
            match tickets.for_verification(&clients) {
                Ok(ticketer) => config.ticketer = ticketer,
                Err(error) => return self.wrong(&tls.certs.first()?.cert, &error),
            }
        }
        let (asks, shows) = (tls.client_ca.is_some(), tls.client_headers);
        Some(Arc::new(TlsServer::new(config, asks, shows)))
    }

    /// The verifier of client certificates, and the settings that ticket keys depend on.
    fn verifier(
        &mut self,
        tls: &ListenTls,
        ca: &NamedFile,
        provider: &Arc<CryptoProvider>,
    ) -> Option<(Arc<dyn ClientCertVerifier>, ClientVerification)> {
        let mut clients = ClientVerification {
            authorities: self.read(ca)?,
            revoked: Vec::new(),
            required: tls.client_cert == ClientCert::Required,
        };
        let roots = Arc::new(self.roots(ca)?);
        let mut builder = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
        if !clients.required {
            builder = builder.allow_unauthenticated();
        }
        if let Some(crl) = &tls.client_crl {
            clients.revoked = self.read(crl)?;
            let lists: Result<Vec<_>, _> =
                CertificateRevocationListDer::pem_slice_iter(&clients.revoked).collect();
            builder = match lists {
                Ok(lists) if lists.is_empty() => {
                    return self.wrong(crl, &"there is no revocation list in it (PEM)");
                }
                Ok(lists) => builder.with_crls(lists),
                Err(error) => return self.wrong(crl, &error),
            };
        }
        match builder.build() {
            Ok(verifier) => Some((verifier, clients)),
            Err(error) => self.wrong(tls.client_crl.as_ref().unwrap_or(ca), &error),
        }
    }

    fn client(&mut self, tls: &UpstreamTls, http2: bool) -> Option<Arc<TlsClient>> {
        let provider = Arc::new(provider(&[]));
        let builder = ClientConfig::builder_with_provider(provider.clone());
        let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).ok()?;
        let builder = match (tls.verify, &tls.ca) {
            (Verify::Off, _) => {
                self.warn_unverified(tls.verify_excerpt.clone());
                let any = Arc::new(AnyCertificate(provider));
                builder.dangerous().with_custom_certificate_verifier(any)
            }
            (Verify::On, Some(ca)) => builder.with_root_certificates(self.roots(ca)?),
            (Verify::On, None) => builder.with_root_certificates(self.system_roots()?),
        };
        let mut config = match &tls.cert {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let (chain, private) = (self.chain(cert), self.key(key));
                self.note_certificate(cert, chain.as_ref()?.first()?);
                match builder.with_client_auth_cert(chain?, private?) {
                    Ok(config) => config,
                    Err(error) => return self.wrong(key, &describe(&error)),
                }
            }
        };
        config.alpn_protocols = super::AlpnProtocol::offered(http2);
        Some(Arc::new(TlsClient {
            config: Arc::new(config),
            settings: settings(tls, http2),
        }))
    }

    /// A certificate with its key, and the hosts in its names.
    fn certified(
        &mut self,
        files: &CertFiles,
        provider: &CryptoProvider,
    ) -> Option<(CertifiedKey, Vec<String>)> {
        let (chain, key) = (self.chain(&files.cert), self.key(&files.key));
        let ocsp = match &files.ocsp {
            None => None,
            Some(file) => {
                let bytes = self.read(file)?;
                if !is_ocsp_response(&bytes) {
                    return self.wrong(file, &"it is not an OCSP response (DER)");
                }
                Some(bytes)
            }
        };
        let (chain, key) = (chain?, key?);
        let hosts = self.note_certificate(&files.cert, chain.first()?)?;
        match CertifiedKey::from_der(chain, key, provider) {
            Ok(certified) => Some((CertifiedKey { ocsp, ..certified }, hosts)),
            Err(error) => self.wrong(&files.key, &describe(&error)),
        }
    }

    /// Records a certificate that Weir presents, and warns if it expires soon. Returns its host names.
    fn note_certificate(
        &mut self,
        file: &NamedFile,
        certificate: &CertificateDer<'_>,
    ) -> Option<Vec<String>> {
        let Some(identity) = CertificateIdentity::from_der(certificate) else {
            return self.wrong(file, &"it is not a readable certificate");
        };
        let hosts = identity.hosts().map(str::to_owned).collect();
        let certificate = OwnCertificate {
            path: file.path.clone(),
            identity,
        };
        if !self.shown.insert(file.path.clone()) {
            return Some(hosts);
        }
        if let Some(message) = certificate.identity.time_warning() {
            let message = format!("the certificate {} {message}", file.path.display());
            self.warnings.push(self.diagnostic(
                Severity::Warning,
                Code::NamedFile,
                message,
                &file.excerpt,
            ));
        }
        self.loaded.certificates.push(certificate);
        Some(hosts)
    }

    fn chain(&mut self, file: &NamedFile) -> Option<Vec<CertificateDer<'static>>> {
        let bytes = self.read(file)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match chain {
            Ok(chain) if chain.is_empty() => {
                self.wrong(file, &"there is no certificate in it (PEM)")
            }
            Ok(chain) => Some(chain),
            Err(error) => self.wrong(file, &error),
        }
    }

    fn key(&mut self, file: &NamedFile) -> Option<PrivateKeyDer<'static>> {
        let bytes = self.read(file)?;
        // PKCS#8 puts this word into its label, older formats into a header, and base64 never contains it.
        let is_locked = || bytes.windows(9).any(|word| word == b"ENCRYPTED");
        match PrivateKeyDer::from_pem_slice(&bytes) {
            Ok(key) => Some(key),
            Err(_) if is_locked() => self.wrong(
                file,
                &"it is protected by a passphrase, which Weir cannot ask for; \
                  `openssl pkey -in FILE -out NEW` writes a copy without one",
            ),
            Err(rustls::pki_types::pem::Error::NoItemsFound) => {
                self.wrong(file, &"there is no private key in it (PEM)")
            }
            Err(error) => self.wrong(file, &error),
        }
    }

    fn roots(&mut self, file: &NamedFile) -> Option<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for certificate in self.chain(file)? {
            if let Err(error) = roots.add(certificate) {
                return self.wrong(file, &describe(&error));
            }
        }
        Some(roots)
    }

    fn system_roots(&mut self) -> Option<RootCertStore> {
        let roots = system_roots();
        if roots.is_none() {
            let message = "the system has no CA certificates; install the package `ca-certificates` or set `ca`";
            self.errors.push(self.diagnostic(
                Severity::Error,
                Code::NamedFile,
                message.to_owned(),
                &None,
            ));
        }
        roots
    }

    fn read(&mut self, file: &NamedFile) -> Option<Vec<u8>> {
        let stamp = FileStamp::now(&file.path);
        if self.seen.insert(file.path.clone()) {
            self.loaded.files.push((file.path.clone(), stamp));
        }
        match files::read(&file.path, TLS_FILE_BYTES_MAX) {
            Ok(bytes) => Some(bytes),
            Err(_) if stamp.is_none() && self.skips_missing => None,
            Err(error) => {
                let message = format!("cannot read {}: {error}", file.path.display());
                self.errors.push(self.diagnostic(
                    Severity::Error,
                    Code::NamedFile,
                    message,
                    &file.excerpt,
                ));
                None
            }
        }
    }

    fn wrong<T>(&mut self, file: &NamedFile, why: &dyn Display) -> Option<T> {
        let message = format!("cannot use {}: {why}", file.path.display());
        self.errors
            .push(self.diagnostic(Severity::Error, Code::NamedFile, message, &file.excerpt));
        None
    }

    fn warn_unverified(&mut self, excerpt: Option<Excerpt>) {
        let message = "the certificates of these endpoints are not verified, so anybody on the network path can read and change the traffic".to_owned();
        let mut warning = self.diagnostic(Severity::Warning, Code::Unsafe, message, &excerpt);
        warning.help.push(
            "if the endpoints have certificates of a private authority, set `ca` to its file"
                .to_owned(),
        );
        self.warnings.push(warning);
    }

    fn diagnostic(
        &self,
        severity: Severity,
        code: Code,
        message: String,
        excerpt: &Option<Excerpt>,
    ) -> Diagnostic {
        Diagnostic {
            severity,
            code,
            message,
            file: self.file.to_owned(),
            excerpt: excerpt.clone(),
            help: Vec::new(),
        }
    }
}

/// Whether a file begins like an OCSP response (RFC 6960 section 4.2.1): a sequence as long as the file, whose first
/// element is a status of one byte. Clients abort the handshake on anything else.
fn is_ocsp_response(bytes: &[u8]) -> bool {
    let (length, rest) = match bytes {
        [0x30, short @ 0..=0x7f, rest @ ..] => (usize::from(*short), rest),
        [0x30, 0x81, a, rest @ ..] => (usize::from(*a), rest),
        [0x30, 0x82, a, b, rest @ ..] => (usize::from(u16::from_be_bytes([*a, *b])), rest),
        _ => return false,
    };
    rest.len() == length && rest.starts_with(&[0x0a, 0x01])
}

/// The settings of an upstream as text. Where they stand in the file does not matter.
fn settings(tls: &UpstreamTls, http2: bool) -> String {
    let path = |file: &NamedFile| file.path.clone();
    let (ca, cert) = (tls.ca.as_ref().map(path), &tls.cert);
    let cert = cert.as_ref().map(|(cert, key)| (path(cert), path(key)));
    format!("{ca:?} {cert:?} {:?} {http2}", tls.verify)
}

/// The certificate authorities that the system trusts; `None` if there are none.
pub(super) fn system_roots() -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    (!roots.is_empty()).then_some(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ocsp_response_is_told_from_other_files() {
        assert!(is_ocsp_response(&[0x30, 3, 0x0a, 1, 6]));
        let long = [&[0x30, 0x82, 1, 3, 0x0a, 1, 0][..], &[0; 256]].concat();
        assert!(is_ocsp_response(&long));
        assert!(!is_ocsp_response(&long[..long.len() - 1]), "truncated");
        assert!(!is_ocsp_response(b"-----BEGIN CERTIFICATE-----"));
        assert!(!is_ocsp_response(&[0x30, 3, 0x02, 1, 6]));
        assert!(!is_ocsp_response(b""));
    }
}
