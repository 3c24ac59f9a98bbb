//! Reads the server name and the protocols from a TLS ClientHello, without ending TLS. Sources: RFC 8446, sections 4.1.2
//! and 5.1; RFC 6066, section 3 (server name); RFC 7301 (ALPN).

use std::borrow::Cow;

use crate::limits::CLIENT_HELLO_BYTES_MAX;

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER_BYTES: usize = 5;
/// The most bytes in one record (RFC 8446, section 5.1).
const RECORD_BYTES_MAX: usize = 16 * 1024;
const MESSAGE_HEADER_BYTES: usize = 4;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// The longest name that DNS has.
const NAME_BYTES_MAX: usize = 255;

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server name, in the client's case of letters.
    pub server_name: Option<Box<str>>,
    /// The application protocols, the preferred one first.
    pub protocols: Vec<Box<[u8]>>,
}

/// The bytes are not a ClientHello, or not one that Weir reads: it is malformed or too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloError;

/// Reads a ClientHello, which may come in several records. `Ok(None)`: the bytes are only a part of one.
///
/// # Errors
/// See [`HelloError`]. Bytes that cannot become a ClientHello fail at once.
pub fn read_client_hello(bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    let Some(message) = collect_message(bytes)? else {
        return match bytes.len() < CLIENT_HELLO_BYTES_MAX {
            true => Ok(None),
            false => Err(HelloError),
        };
    };
    let mut rest = HelloReader(&message);
    // Version and random, session id, cipher suites, compression methods.
    rest.take(2 + 32)?;
    rest.vector8()?;
    rest.vector16()?;
    rest.vector8()?;
    let mut hello = ClientHello::default();
    if rest.0.is_empty() {
        // TLS 1.2 and older clients may have no extensions.
        return Ok(Some(hello));
    }
    let mut extensions = HelloReader(rest.vector16()?);
    if !rest.0.is_empty() {
        return Err(HelloError);
    }
    let (mut has_name, mut has_protocols) = (false, false);
    while !extensions.0.is_empty() {
        let (kind, body) = (extensions.u16()?, extensions.vector16()?);
        let seen = match kind {
            SERVER_NAME => &mut has_name,
            ALPN => &mut has_protocols,
            // No route depends on other extensions; those of GREASE (RFC 8701) are among them.
            _ => continue,
        };
        if std::mem::replace(seen, true) {
            return Err(HelloError);
        }
        match kind {
            SERVER_NAME => hello.server_name = Some(read_name(body)?),
            _ => hello.protocols = read_protocols(body)?,
        }
    }
    Ok(Some(hello))
}

/// The body of the handshake message that the records carry. `None`: some of it is missing.
fn collect_message(bytes: &[u8]) -> Result<Option<Cow<'_, [u8]>>, HelloError> {
    let mut records = bytes;
    let mut collected: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        if let Some(header) = collected.first_chunk::<MESSAGE_HEADER_BYTES>() {
            let [kind, high, middle, low] = *header;
            let length = u32::from_be_bytes([0, high, middle, low]) as usize;
            let end = MESSAGE_HEADER_BYTES + length;
            if kind != CLIENT_HELLO || end > CLIENT_HELLO_BYTES_MAX {
                return Err(HelloError);
            }
            if collected.len() >= end {
                return Ok(Some(match collected {
                    Cow::Borrowed(all) => {
                        let body = all.get(MESSAGE_HEADER_BYTES..end);
                        Cow::Borrowed(body.ok_or(HelloError)?)
                    }
                    Cow::Owned(mut all) => {
                        all.truncate(end);
                        all.drain(..MESSAGE_HEADER_BYTES);
                        Cow::Owned(all)
                    }
                }));
            }
        } else if collected.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Err(HelloError);
        }
        let Some(&[kind, major, _, high, low]) = records.first_chunk::<RECORD_HEADER_BYTES>()
        else {
            let wrong = records.first().is_some_and(|kind| *kind != HANDSHAKE)
                || records.get(1).is_some_and(|major| *major != 3);
            return if wrong { Err(HelloError) } else { Ok(None) };
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind != HANDSHAKE || major != 3 || length == 0 || length > RECORD_BYTES_MAX {
            return Err(HelloError);
        }
        let end = RECORD_HEADER_BYTES + length;
        let is_whole = records.len() >= end;
        let piece = records.get(RECORD_HEADER_BYTES..end.min(records.len()));
        let piece = piece.ok_or(HelloError)?;
        if collected.is_empty() {
            collected = Cow::Borrowed(piece);
        } else {
            collected.to_mut().extend_from_slice(piece);
        }
        if !is_whole && !has_all(&collected) {
            return match collected.first() {
                Some(kind) if *kind != CLIENT_HELLO => Err(HelloError),
                _ => Ok(None),
            };
        }
        records = records.get(end..).unwrap_or_default();
    }
}

/// Whether the bytes have a whole message, so that the rest of their record does not matter.
fn has_all(collected: &[u8]) -> bool {
    let Some([_, high, middle, low]) = collected.first_chunk::<MESSAGE_HEADER_BYTES>() else {
        return false;
    };
    let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
    collected.len() >= MESSAGE_HEADER_BYTES + length
}

fn read_name(body: &[u8]) -> Result<Box<str>, HelloError> {
    let mut body = HelloReader(body);
    let mut names = HelloReader(body.vector16()?);
    let (kind, name) = (names.u8()?, names.vector16()?);
    // One name of the only kind that there is (host_name).
    if kind != 0 || !names.0.is_empty() || !body.0.is_empty() {
        return Err(HelloError);
    }
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.iter().all(is_plain) {
        return Err(HelloError);
    }
    let name = std::str::from_utf8(name).map_err(|_| HelloError)?;
    Ok(name.into())
}

fn read_protocols(body: &[u8]) -> Result<Vec<Box<[u8]>>, HelloError> {
    let mut body = HelloReader(body);
    let mut list = HelloReader(body.vector16()?);
    if list.0.is_empty() || !body.0.is_empty() {
        return Err(HelloError);
    }
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        let protocol = list.vector8()?;
        if protocol.is_empty() {
            return Err(HelloError);
        }
        protocols.push(protocol.into());
    }
    Ok(protocols)
}

/// Reads numbers and vectors from the front of bytes.
struct HelloReader<'b>(&'b [u8]);

impl<'b> HelloReader<'b> {
    fn take(&mut self, n: usize) -> Result<&'b [u8], HelloError> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(HelloError)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, HelloError> {
        self.take(1)?.first().copied().ok_or(HelloError)
    }

    fn u16(&mut self) -> Result<u16, HelloError> {
        let bytes = self.take(2)?.first_chunk().ok_or(HelloError)?;
        Ok(u16::from_be_bytes(*bytes))
    }

    /// A vector with a length of one byte.
    fn vector8(&mut self) -> Result<&'b [u8], HelloError> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A vector with a length of two bytes.
    fn vector16(&mut self) -> Result<&'b [u8], HelloError> {
        let length = self.u16()?;
        self.take(length.into())
    }
}
