//! The server name in a client's hello (RFC 8446 section 4.1.2, RFC 6066 section 3). rustls parses the name for itself
//! and does not pass it on.

use std::borrow::Cow;
use std::rc::Rc;

/// The server name that a client requests, as far as the received bytes show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum RequestedName {
    /// The hello is still incomplete.
    #[default]
    Unknown,
    /// The client has requested no name, or not in a readable form.
    Absent,
    /// The client has requested this name.
    Name(Rc<str>),
}

/// Weir does not read a hello in more records, because assembling it again for each of its bytes would cost too much.
const RECORDS_MAX: usize = 4;

/// The content type of handshake records, and the type of a client's hello.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Bytes of a handshake message's header: type and length.
const HELLO_HEADER_BYTES: usize = 4;

/// The extension, and the type of a host name in it.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// The extension that offers sessions of TLS 1.3 (RFC 8446 section 4.2.11).
const PRE_SHARED_KEY: u16 = 41;

/// A client's hello without its header; empty if the client has sent something else, or its hello in too many records.
pub(super) struct Hello<'a>(Cow<'a, [u8]>);

impl<'a> Hello<'a> {
    /// Reads the hello from what the client has sent so far. Returns `None` if it is incomplete.
    pub(super) fn read(sent: &'a [u8]) -> Option<Self> {
        first_message(sent).map(Self)
    }

    /// The server name that it requests.
    pub(super) fn requested_name(&self) -> RequestedName {
        match self.extension(SERVER_NAME).and_then(host_name) {
            Some(name) => RequestedName::Name(name.into()),
            None => RequestedName::Absent,
        }
    }

    /// Whether it offers to resume a session of TLS 1.3.
    pub(super) fn offers_session(&self) -> bool {
        self.extension(PRE_SHARED_KEY).is_some()
    }

    /// The content of the first extension of this type.
    fn extension(&self, wanted: u16) -> Option<&[u8]> {
        let mut hello = HelloReader(&self.0);
        // Skips version and random number.
        hello.take(2 + 32)?;
        let _session = hello.list8()?;
        let _suites = hello.list16()?;
        let _compressions = hello.list8()?;
        let mut extensions = HelloReader(hello.list16()?);
        loop {
            let (kind, content) = (extensions.u16()?, extensions.list16()?);
            if kind == wanted {
                return Some(content);
            }
        }
    }
}

/// The first handshake message without its header, assembled from its records. Returns `None` if it is incomplete, and
/// an empty message if it is not a hello or comes in too many records.
fn first_message(sent: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut records = HelloReader(sent);
    let mut message: Cow<'_, [u8]> = Cow::default();
    for _ in 0..RECORDS_MAX {
        let kind = records.u8()?;
        records.take(2)?;
        let payload = records.list16()?;
        if kind != HANDSHAKE || payload.is_empty() {
            return Some(Cow::default());
        }
        if message.is_empty() {
            message = Cow::Borrowed(payload);
        } else {
            message.to_mut().extend_from_slice(payload);
        }
        let mut start = HelloReader(&message);
        if let (Some(kind), Some(len)) = (start.u8(), start.u24())
            && start.take(len).is_some()
        {
            let body = match kind {
                CLIENT_HELLO => HELLO_HEADER_BYTES..HELLO_HEADER_BYTES + len,
                _ => 0..0,
            };
            return Some(match message {
                Cow::Borrowed(all) => Cow::Borrowed(&all[body]),
                Cow::Owned(all) => Cow::Owned(all[body].to_vec()),
            });
        }
    }
    Some(Cow::default())
}

/// The host name in the content of a server name extension.
fn host_name(content: &[u8]) -> Option<&str> {
    let mut names = HelloReader(HelloReader(content).list16()?);
    let (kind, name) = (names.u8()?, names.list16()?);
    let name = std::str::from_utf8(name).ok()?;
    let is_name = kind == HOST_NAME && name.bytes().all(|byte| byte.is_ascii_graphic());
    (is_name && !name.is_empty()).then_some(name)
}

/// The unread part of a message.
struct HelloReader<'a>(&'a [u8]);

impl<'a> HelloReader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u24(&mut self) -> Option<usize> {
        let high = usize::from(self.u8()?);
        Some(high << 16 | usize::from(self.u16()?))
    }

    fn list8(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(len.into())
    }

    fn list16(&mut self) -> Option<&'a [u8]> {
        let len = self.u16()?;
        self.take(len.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_in(sent: &[u8]) -> RequestedName {
        Hello::read(sent).map_or(RequestedName::Unknown, |hello| hello.requested_name())
    }

    fn list16(content: &[u8]) -> Vec<u8> {
        [&(content.len() as u16).to_be_bytes()[..], content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &list16(content)].concat()
    }

    fn asks_for(name: &[u8]) -> Vec<u8> {
        extension(0, &list16(&[&[0][..], &list16(name)].concat()))
    }

    /// A hello with these extensions, in records of at most `record_bytes`.
    fn hello(extensions: &[Vec<u8>], record_bytes: usize) -> Vec<u8> {
        let body = [
            &[3, 3][..],
            &[7; 32],
            &[3, 1, 2, 3],
            &list16(&[0x13, 1]),
            &[1, 0],
            &list16(&extensions.concat()),
        ]
        .concat();
        let len = (body.len() as u32).to_be_bytes();
        let message = [&[1][..], &len[1..], &body].concat();
        let records = message.chunks(record_bytes);
        records
            .flat_map(|piece| [&[22, 3, 1][..], &list16(piece)].concat())
            .collect()
    }

    #[test]
    fn an_offered_session_is_noticed() {
        let (other, offer) = (extension(16, b"\0\x03\x02h2"), extension(41, b"\0\0\0\0"));
        let offers = |extensions: &[Vec<u8>]| {
            let sent = hello(extensions, 16_384);
            Hello::read(&sent).unwrap().offers_session()
        };
        assert!(offers(&[asks_for(b"a.test"), offer.clone()]));
        assert!(offers(&[offer]));
        assert!(!offers(&[asks_for(b"a.test"), other]));
        assert!(!offers(&[]));
    }

    #[test]
    fn the_server_name_is_read_however_the_hello_is_cut() {
        let other = extension(16, b"\0\x03\x02h2");
        for (extensions, expected) in [
            (
                vec![asks_for(b"a.test")],
                RequestedName::Name("a.test".into()),
            ),
            (
                vec![other.clone(), asks_for(b"A.Test"), other.clone()],
                RequestedName::Name("A.Test".into()),
            ),
            (vec![other], RequestedName::Absent),
            (vec![], RequestedName::Absent),
            (vec![asks_for(b"")], RequestedName::Absent),
            (vec![asks_for(b"a b\n")], RequestedName::Absent),
            (vec![asks_for(b"\xff")], RequestedName::Absent),
            (
                vec![extension(0, b"\0\x04\x01\0\x01a")],
                RequestedName::Absent,
            ),
            (vec![extension(0, b"\0\xff\0")], RequestedName::Absent),
        ] {
            for record_bytes in [30, 60, 16_384] {
                let sent = hello(&extensions, record_bytes);
                assert_eq!(name_in(&sent), expected, "{extensions:?}");
                for len in 0..sent.len() {
                    assert_eq!(name_in(&sent[..len]), RequestedName::Unknown, "{len}");
                }
            }
        }
    }

    #[test]
    fn a_hello_in_many_records_is_not_read() {
        let sent = hello(&[asks_for(b"a.test")], 1);
        assert_eq!(name_in(&sent), RequestedName::Absent);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let good = hello(&[asks_for(b"a.test")], 50);
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(..=good.len()));
            name_in(&bytes);
        }
        assert_eq!(name_in(b"GET / HTTP/1.1\r\n\r\n"), RequestedName::Unknown);
    }
}
