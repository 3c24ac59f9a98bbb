//! What Weir reads from a certificate besides whether it is trusted: its subject, its names and its validity.
//!
//! This is a reader of DER (ITU-T X.690) for these few fields. Client certificates have been verified before they get
//! here, but the reader does not rely on that.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir_config::is_certificate_name;

use crate::limits::CERTIFICATE_EXPIRES_SOON_DAYS;

/// The subject, names and validity of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// The subject in the form of RFC 4514: `CN=client,O=Example`.
    pub subject: String,
    /// The subject's alternative names: `DNS:example.com`, `IP:192.0.2.1`, `URI:spiffe://...`, `email:a@example.com`.
    pub names: Vec<String>,
    /// Start of the validity, in seconds since the Unix epoch.
    pub not_before: u64,
    /// End of the validity, in seconds since the Unix epoch.
    pub not_after: u64,
}

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT: u8 = 0x06;
const OCTETS: u8 = 0x04;
const BOOLEAN: u8 = 0x01;
const UTC_TIME: u8 = 0x17;
const BMP_STRING: u8 = 0x1e;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// The object identifier 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// The attribute names of RFC 4514 section 3, and the one of e-mail addresses.
const ATTRIBUTES: [(&[u8], &str); 10] = [
    (&[0x55, 0x04, 0x03], "CN"),
    (&[0x55, 0x04, 0x05], "serialNumber"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x09], "STREET"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19],
        "DC",
    ),
    (
        &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01],
        "emailAddress",
    ),
];

impl CertificateIdentity {
    /// Reads a certificate. Returns `None` if the bytes are not a certificate.
    pub fn from_der(certificate: &[u8]) -> Option<Self> {
        let mut outer = DerReader(certificate);
        let mut to_be_signed = DerReader(DerReader(outer.take(SEQUENCE)?).take(SEQUENCE)?);
        if to_be_signed.0.first() == Some(&VERSION) {
            to_be_signed.any()?;
        }
        // Skips the serial number, the signature algorithm and the issuer.
        for _ in 0..3 {
            to_be_signed.any()?;
        }
        let mut validity = DerReader(to_be_signed.take(SEQUENCE)?);
        let (tag, not_before) = validity.any()?;
        // Only times before 1970 fail to parse.
        let not_before = time(tag, not_before).unwrap_or(0);
        let (tag, not_after) = validity.any()?;
        let subject = subject(to_be_signed.take(SEQUENCE)?)?;
        to_be_signed.any()?;
        let mut names = Vec::new();
        while let Some((tag, value)) = to_be_signed.any() {
            if tag == EXTENSIONS {
                names = alt_names(DerReader(value).take(SEQUENCE)?);
            }
        }
        Some(Self {
            subject,
            names,
            not_before,
            not_after: time(tag, not_after)?,
        })
    }

    /// An identity given as texts. Texts that start with a kind of name are names; the first other text is the subject.
    /// Returns `None` without any text.
    pub fn from_texts(texts: &[String]) -> Option<Self> {
        let is_name = |text: &&String| is_certificate_name(text);
        let subject = texts.iter().find(|text| !is_name(text));
        (!texts.is_empty()).then(|| Self {
            subject: subject.cloned().unwrap_or_default(),
            names: texts.iter().filter(is_name).cloned().collect(),
            not_before: 0,
            not_after: u64::MAX,
        })
    }

    /// Seconds until the certificate expires; negative afterwards.
    pub fn seconds_left(&self) -> i64 {
        seconds(self.not_after) - now()
    }

    /// Says if the certificate is outside its validity or expires soon. Soon means that less is left than
    /// `CERTIFICATE_EXPIRES_SOON_DAYS` and less than a third of its lifetime, which is when ACME clients renew it.
    pub fn time_warning(&self) -> Option<String> {
        self.time_warning_at(now())
    }

    fn time_warning_at(&self, now: i64) -> Option<String> {
        let (begin, end) = (seconds(self.not_before), seconds(self.not_after));
        let soon = ((end - begin) / 3).min(CERTIFICATE_EXPIRES_SOON_DAYS * DAY);
        match (begin - now, end - now) {
            (_, left) if left < 0 => Some(format!("expired {} ago", span(-left))),
            (wait, _) if wait > 0 => Some(format!("is not valid for another {}", span(wait))),
            (_, left) if left < soon => Some(format!("expires in {}", span(left))),
            _ => None,
        }
    }

    /// The host names among its names.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.names
            .iter()
            .filter_map(|name| name.strip_prefix("DNS:"))
    }
}

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    seconds(now.unwrap_or(Duration::ZERO).as_secs())
}

fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// A number of seconds as text, in the largest unit that gives at least two.
pub(crate) fn span(seconds: i64) -> String {
    let (unit, name) = match seconds {
        s if s >= 2 * DAY => (DAY, "days"),
        s if s >= 2 * HOUR => (HOUR, "hours"),
        s if s >= 120 => (60, "minutes"),
        1 => (1, "second"),
        _ => (1, "seconds"),
    };
    format!("{} {name}", seconds / unit)
}

/// The remaining DER values.
struct DerReader<'a>(&'a [u8]);

impl<'a> DerReader<'a> {
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Lengths of up to three bytes, because 16 MiB is enough.
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = bytes
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                (length, rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    fn take(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.any()
            .filter(|(tag, _)| *tag == wanted)
            .map(|(_, value)| value)
    }
}

/// A distinguished name with the most specific part first.
fn subject(name: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    let mut sets = DerReader(name);
    while let Some(set) = sets.take(SET) {
        let mut text = String::new();
        let mut attributes = DerReader(set);
        while let Some(attribute) = attributes.take(SEQUENCE) {
            let mut attribute = DerReader(attribute);
            let id = attribute.take(OBJECT)?;
            let (tag, value) = attribute.any()?;
            if !text.is_empty() {
                text.push('+');
            }
            let known = ATTRIBUTES.iter().find(|(known, _)| *known == id);
            match known {
                Some((_, name)) => text.push_str(name),
                None => id.iter().for_each(|byte| {
                    let _ = write!(text, "{byte:02x}");
                }),
            }
            text.push('=');
            escape(&mut text, &string(tag, value));
        }
        parts.push(text);
    }
    parts.reverse();
    Some(parts.join(","))
}

fn string(tag: u8, value: &[u8]) -> String {
    if tag == BMP_STRING {
        let units = value
            .as_chunks::<2>()
            .0
            .iter()
            .map(|unit| u16::from_be_bytes(*unit));
        return char::decode_utf16(units)
            .map(|c| c.unwrap_or('\u{fffd}'))
            .collect();
    }
    String::from_utf8_lossy(value).into_owned()
}

//= rfc4514#2.4
fn escape(out: &mut String, value: &str) {
    let last = value.chars().count().saturating_sub(1);
    for (at, c) in value.chars().enumerate() {
        let outer = (at == 0 && (c == ' ' || c == '#')) || (at == last && c == ' ');
        if c.is_control() {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(out, "\\{byte:02x}");
            }
            continue;
        }
        if outer || matches!(c, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
}

/// The subject's alternative names (RFC 5280 section 4.2.1.6) that have a text form.
fn alt_names(extensions: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut extensions = DerReader(extensions);
    while let Some(extension) = extensions.take(SEQUENCE) {
        let mut extension = DerReader(extension);
        if extension.take(OBJECT) != Some(SUBJECT_ALT_NAME) {
            continue;
        }
        let mut value = extension.any();
        if matches!(value, Some((BOOLEAN, _))) {
            value = extension.any();
        }
        let Some((OCTETS, value)) = value else {
            continue;
        };
        let mut list = DerReader(DerReader(value).take(SEQUENCE).unwrap_or_default());
        while let Some((tag, value)) = list.any() {
            let kind = match tag {
                0x81 => "email",
                0x82 => "DNS",
                0x86 => "URI",
                0x87 => {
                    names.extend(ip(value).map(|ip| format!("IP:{ip}")));
                    continue;
                }
                _ => continue,
            };
            // Other bytes could not be part of a header field.
            if value.iter().all(u8::is_ascii_graphic) {
                names.push(format!("{kind}:{}", String::from_utf8_lossy(value)));
            }
        }
    }
    names
}

fn ip(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

/// Parses a time into seconds since the Unix epoch. Certificates give times in UTC and with seconds (RFC 5280 section
/// 4.1.2.5).
fn time(tag: u8, text: &[u8]) -> Option<u64> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |from: usize, to: usize| -> Option<i64> {
        digits.get(from..to)?.iter().try_fold(0, |sum, digit| {
            digit
                .is_ascii_digit()
                .then(|| sum * 10 + i64::from(digit - b'0'))
        })
    };
    let (year, rest) = if tag == UTC_TIME {
        let year = number(0, 2)?;
        (year + if year < 50 { 2000 } else { 1900 }, 2)
    } else {
        (number(0, 4)?, 4)
    };
    let at = |i: usize| number(rest + 2 * i, rest + 2 * i + 2);
    let (month, day) = (at(0)?, at(1)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = at(2)? * 3_600 + at(3)? * 60 + at(4)?;
    u64::try_from(days(year, month, day) * 86_400 + seconds).ok()
}

/// Days since 1970-01-01 in the Gregorian calendar. The calculation starts years in March, so that the leap day comes
/// last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let of_years = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    of_years + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType, date_time_ymd};

    use super::*;

    fn certificate() -> Vec<u8> {
        let mut params =
            CertificateParams::new(["a.example.com".to_owned(), "*.b.example.com".to_owned()])
                .unwrap();
        params
            .subject_alt_names
            .push(SanType::IpAddress("192.0.2.1".parse().unwrap()));
        params
            .subject_alt_names
            .push(SanType::IpAddress("2001:db8::1".parse().unwrap()));
        params
            .subject_alt_names
            .push(SanType::URI("spiffe://example.com/a".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Example, Inc.");
        params
            .distinguished_name
            .push(DnType::CommonName, DnValue::Utf8String(" ä#1".to_owned()));
        params.not_after = date_time_ymd(2049, 2, 28);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn an_identity_from_texts_never_expires() {
        let texts = ["DNS:a.example.com".to_owned(), "CN=a".to_owned()];
        let known = CertificateIdentity::from_texts(&texts).unwrap();
        assert_eq!((&*known.subject, &*known.names), ("CN=a", &texts[..1]));
        assert!(known.seconds_left() > 0);
        assert_eq!(CertificateIdentity::from_texts(&[]), None);
    }

    #[test]
    fn a_certificates_subject_names_and_validity_are_read() {
        let identity = CertificateIdentity::from_der(&certificate()).unwrap();
        assert_eq!(identity.subject, "CN=\\ ä#1,O=Example\\, Inc.");
        let names = [
            "DNS:a.example.com",
            "DNS:*.b.example.com",
            "IP:192.0.2.1",
            "IP:2001:db8::1",
            "URI:spiffe://example.com/a",
        ];
        assert_eq!(identity.names, names);
        assert_eq!(
            identity.hosts().collect::<Vec<_>>(),
            ["a.example.com", "*.b.example.com"]
        );
        // date -u -d 2049-02-28 +%s
        assert_eq!(identity.not_after, 2_498_083_200);
    }

    #[test]
    fn expiry_is_soon_by_the_share_of_the_lifetime_left() {
        for (life, left, expected) in [
            // A year.
            (365 * DAY, 31 * DAY, None),
            (365 * DAY, 29 * DAY, Some("expires in 29 days")),
            // ACME's 90 days.
            (90 * DAY, 31 * DAY, None),
            (90 * DAY, 29 * DAY, Some("expires in 29 days")),
            // A week.
            (7 * DAY, 3 * DAY, None),
            (7 * DAY, 2 * DAY, Some("expires in 2 days")),
            // A day, an hour.
            (DAY, 12 * HOUR, None),
            (DAY, 7 * HOUR, Some("expires in 7 hours")),
            (HOUR, 1_300, None),
            (HOUR, 1_190, Some("expires in 19 minutes")),
            (HOUR, 0, Some("expires in 0 seconds")),
            (HOUR, -1, Some("expired 1 second ago")),
            (DAY, -3 * DAY, Some("expired 3 days ago")),
            (
                DAY,
                DAY + 3 * HOUR,
                Some("is not valid for another 3 hours"),
            ),
        ] {
            let now = 1_700_000_000;
            let identity = CertificateIdentity {
                not_before: (now + left - life).cast_unsigned(),
                not_after: (now + left).cast_unsigned(),
                ..CertificateIdentity::default()
            };
            let found = identity.time_warning_at(now);
            assert_eq!(found.as_deref(), expected, "{left} of {life}");
        }
        let texts = ["CN=a".to_owned()];
        assert_eq!(
            CertificateIdentity::from_texts(&texts)
                .unwrap()
                .time_warning(),
            None
        );
    }

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(time(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(time(0x18, b"20240229123456Z"), Some(1_709_210_096));
        assert_eq!(time(UTC_TIME, b"991231235959Z"), Some(946_684_799));
        for wrong in [
            &b"20241301000000Z"[..],
            b"2024",
            b"2024022912345Z",
            b"20240229123456",
            b"xxxx0229123456Z",
        ] {
            assert_eq!(time(0x18, wrong), None);
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let certificate = certificate();
        for cut in 0..certificate.len() {
            let _ = CertificateIdentity::from_der(&certificate[..cut]);
            for byte in [0x00, 0x30, 0x7f, 0x80, 0x83, 0xff] {
                let mut changed = certificate.clone();
                changed[cut] = byte;
                let _ = CertificateIdentity::from_der(&changed);
            }
        }
    }
}
