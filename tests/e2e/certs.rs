//! Certificate authorities and certificates made for one test.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, DnValue, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SanType, date_time_ymd,
};

/// A certificate authority made for one test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate, in PEM.
    pub pem: String,
}

/// A certificate and its key.
pub struct Issued {
    /// The certificate, in PEM.
    pub cert: String,
    /// The private key, in PEM.
    pub key: String,
}

impl Authority {
    /// Makes an authority with this common name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// The authority's own certificate and key: `openssl req -x509` makes such self-signed certificates for servers.
    pub fn own_certificate(&self) -> Issued {
        Issued {
            cert: self.pem.clone(),
            key: self.issuer.key().serialize_pem(),
        }
    }

    /// Signs a certificate for these hosts and for 127.0.0.1.
    pub fn sign(&self, hosts: &[&str]) -> Issued {
        self.sign_until(hosts, 2049)
    }

    /// Like `sign`; the certificate expires at the beginning of `year`.
    pub fn sign_until(&self, hosts: &[&str], year: i32) -> Issued {
        self.sign_key(hosts, year, KeyPair::generate().unwrap())
    }

    /// Like `sign`; the certificate expires after `life`.
    pub fn sign_for(&self, hosts: &[&str], life: Duration) -> Issued {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        self.issue(hosts, KeyPair::generate().unwrap(), |params| {
            params.not_after = date_time_ymd(1970, 1, 1) + now + life;
        })
    }

    /// Like `sign_until`, with a given key.
    pub fn sign_key(&self, hosts: &[&str], year: i32, key: KeyPair) -> Issued {
        self.issue(hosts, key, |params| {
            params.not_after = date_time_ymd(year, 1, 1);
        })
    }

    /// Like `sign`, with a serial number.
    pub fn sign_numbered(&self, hosts: &[&str], serial: u64) -> Issued {
        self.issue(hosts, KeyPair::generate().unwrap(), |params| {
            params.serial_number = Some(serial.into());
            params.not_after = date_time_ymd(2049, 1, 1);
        })
    }

    /// Makes a revocation list of these serial numbers.
    pub fn revoke(&self, serials: &[u64]) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: date_time_ymd(2020, 1, 2),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 2),
            next_update: date_time_ymd(2020, 1, 3),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// Signs a certificate with this subject and with these URIs as its only alternative names.
    pub fn sign_as(&self, subject: &[(DnType, &str)], uris: &[&str]) -> Issued {
        self.issue(&["a.test"], KeyPair::generate().unwrap(), |params| {
            params.distinguished_name = DistinguishedName::new();
            for (kind, value) in subject {
                let value = DnValue::Utf8String((*value).to_owned());
                params.distinguished_name.push(kind.clone(), value);
            }
            let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
            params.subject_alt_names = uris.iter().map(uri).collect();
            params.not_after = date_time_ymd(2049, 1, 1);
        })
    }

    fn issue(
        &self,
        hosts: &[&str],
        key: KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        let names: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let loopback = SanType::IpAddress("127.0.0.1".parse().unwrap());
        params.subject_alt_names.push(loopback);
        params.distinguished_name.push(DnType::CommonName, hosts[0]);
        params.not_before = date_time_ymd(2020, 1, 1);
        change(&mut params);
        Issued {
            cert: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    /// Writes the authority's certificate to `path`.
    pub fn write(&self, path: &Path) -> PathBuf {
        std::fs::write(path, &self.pem).unwrap();
        path.to_owned()
    }
}

impl Issued {
    /// Writes `NAME.pem` and `NAME.key` into a directory. Returns the keys `cert` and `key` for a configuration.
    pub fn write(&self, dir: &Path, name: &str) -> String {
        let (cert, key) = (
            dir.join(format!("{name}.pem")),
            dir.join(format!("{name}.key")),
        );
        // Renaming replaces each file in one step, so Weir never reads half a file.
        for (path, text) in [(&key, &self.key), (&cert, &self.cert)] {
            let fresh = path.with_extension("new");
            std::fs::write(&fresh, text).unwrap();
            std::fs::rename(&fresh, path).unwrap();
        }
        format!("cert = {cert:?}, key = {key:?}")
    }
}
