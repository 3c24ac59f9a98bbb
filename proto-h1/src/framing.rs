//! How long a body is, and which fields are hop-by-hop.

use crate::error::Error;
use crate::field::{FieldId, FieldSet};
use crate::guard::find_claim;
use crate::head::{Field, Head, Method, Span, Version};
use crate::limits::{CONNECTION_OPTIONS_MAX, LENGTH_MAX};

/// How a body is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyKind {
    /// There is no body.
    #[default]
    None,
    /// The body has this many bytes.
    Length(u64),
    /// The body is chunked.
    Chunked,
    /// The body lasts until the connection closes. Responses only.
    UntilClose,
}

/// Determines how the body of a request is framed.
///
/// # Errors
/// Anything that parsers could read in two ways: see RFC 9112, section 6.3.
//= rfc9112#6.3
// A request without Content-Length and Transfer-Encoding has no body.
#[inline]
pub fn request_body(head: &mut Head, block: &[u8]) -> Result<BodyKind, Error> {
    if !head.present.meets(BODY_FIELDS) {
        return Ok(BodyKind::None);
    }
    let framed = framed(head, block)?;
    Ok(framed.unwrap_or_default())
}

/// Determines how the body of a response to `method` is framed.
///
/// The fields must be valid even if the response cannot have a body.
///
/// # Errors
/// As [`request_body`].
//= rfc9112#6.3
// Responses to HEAD, 1xx, 204, 304 and successful CONNECT have no body. Otherwise chunked applies,
// then the length, then until close.
#[inline]
pub fn response_body(head: &mut Head, block: &[u8], method: Method) -> Result<BodyKind, Error> {
    let framed = if head.present.meets(BODY_FIELDS) {
        framed(head, block)?
    } else {
        None
    };
    if has_no_body(head.status, method) {
        return Ok(BodyKind::None);
    }
    Ok(framed.unwrap_or(BodyKind::UntilClose))
}

/// Returns whether a response has no body, whatever its fields say.
#[inline]
#[must_use]
pub const fn has_no_body(status: u16, method: Method) -> bool {
    matches!(method, Method::Head)
        || matches!(status, 100..=199 | 204 | 304)
        || matches!((method, status), (Method::Connect, 200..=299))
}

pub(crate) const BODY_FIELDS: FieldSet =
    FieldSet::of(&[FieldId::ContentLength, FieldId::TransferEncoding]);

/// What Content-Length and Transfer-Encoding say. If they are spelt as the encoder would write
/// them, the head records that their lines can stay.
fn framed(head: &mut Head, block: &[u8]) -> Result<Option<BodyKind>, Error> {
    let (mut kind, mut is_plain) = (None, true);
    if let Some(field) = head.find(FieldId::ContentLength) {
        let value = field.value.get(block);
        let is_list = head.repeated.has(FieldId::ContentLength) || value.contains(&b',');
        let length = if is_list {
            repeated_length(head.elements(FieldId::ContentLength, block))?
        } else {
            content_length(value)?
        };
        kind = Some(BodyKind::Length(length));
        is_plain = !is_list && !has_leading_zero(value);
    }
    if head.find(FieldId::TransferEncoding).is_some() {
        //= rfc9112#6.1
        // Both in one message suggest smuggling. HTTP/1.0 has no transfer codings.
        if kind.is_some() {
            return Err(Error::LengthAndEncoding);
        }
        if head.version == Version::Http10 {
            return Err(Error::EncodingInHttp10);
        }
        is_plain = transfer_encoding(head.all(FieldId::TransferEncoding), block)?;
        kind = Some(BodyKind::Chunked);
    }
    head.wire_framing = kind.filter(|_| is_plain);
    Ok(kind)
}

/// Reads a length that appears more than once, in a list or in several fields.
//= rfc9110#8.6
// Equal values may be merged. They must be spelt alike, and in one way only: to a parser that reads
// octal, `05, 5` is two numbers, and to one that compares texts it is a conflict.
#[cold]
fn repeated_length<'b>(mut elements: impl Iterator<Item = &'b [u8]>) -> Result<u64, Error> {
    let first = elements.next().unwrap_or_default();
    let length = content_length(first)?;
    if has_leading_zero(first) {
        return Err(Error::BadContentLength);
    }
    for element in elements {
        content_length(element)?;
        if element != first {
            return Err(Error::ConflictingContentLength);
        }
    }
    Ok(length)
}

/// Returns whether a parser could read a number as octal.
fn has_leading_zero(digits: &[u8]) -> bool {
    digits.len() > 1 && digits.starts_with(b"0")
}

/// Reads a number of digits only.
fn content_length(text: &[u8]) -> Result<u64, Error> {
    if text.is_empty() || text.len() > 19 {
        return Err(Error::BadContentLength);
    }
    let mut length = 0u64;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Error::BadContentLength);
        }
        // 19 digits stay below 2^64.
        length = length * 10 + u64::from(digit);
    }
    if length > LENGTH_MAX {
        Err(Error::BadContentLength)
    } else {
        Ok(length)
    }
}

/// Accepts `chunked` and nothing else. Returns whether a single line says so.
fn transfer_encoding<'h>(
    fields: impl Iterator<Item = &'h Field>,
    block: &[u8],
) -> Result<bool, Error> {
    let (mut codings, mut chunked, mut is_last_chunked) = (0u32, 0u32, false);
    for element in fields.flat_map(|field| list(field.value.get(block))) {
        if element.is_empty() || !element.iter().all(|&b| b > b' ' && b < 0x7f) {
            return Err(Error::BadTransferEncoding);
        }
        codings += 1;
        is_last_chunked = is_word(element, b"chunked");
        chunked += u32::from(is_last_chunked);
    }
    match (codings, chunked, is_last_chunked) {
        (1, 1, true) => Ok(true),
        //= rfc9112#7.1
        // Chunked is applied once, and last.
        (_, 1, true) => Err(Error::UnsupportedTransferCoding),
        _ => Err(Error::BadTransferEncoding),
    }
}

/// The trimmed elements of a comma-separated list, including empty ones.
pub(crate) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim)
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Which kind of message a head belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A request.
    Request,
    /// A response.
    Response,
}

/// What the hop-by-hop fields of a head said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HopOptions {
    /// The protocol to switch to. Only HTTP/1.1 messages whose Connection names Upgrade have one,
    /// and only `websocket` may pass.
    pub upgrade: Option<Span>,
    /// Whether the sender wants to leave HTTP for a protocol that Weir does not pass on.
    pub leaves_http: bool,
    /// Whether TE contains `trailers`.
    pub accepts_trailers: bool,
    /// Whether Connection contains `keep-alive`.
    pub keep_alive: bool,
    /// Whether Connection contains `close`.
    pub close: bool,
}

impl HopOptions {
    /// Returns whether the sender wants to reuse the connection.
    //= rfc9112#9.3
    // HTTP/1.1 connections persist unless closed, HTTP/1.0 connections only on request.
    #[inline]
    #[must_use]
    pub const fn keeps_alive(&self, version: Version) -> bool {
        !self.close && (self.keep_alive || matches!(version, Version::Http11))
    }
}

/// Returns whether the sender of a head wants to reuse the connection.
#[must_use]
pub fn keep_alive(head: &Head, block: &[u8]) -> bool {
    let mut hop = HopOptions::default();
    for option in connection_options(head, block) {
        hop.record(option);
    }
    hop.keeps_alive(head.version)
}

/// Removes the hop-by-hop fields and those that Connection names. Returns their meaning for this
/// hop.
///
/// Connection cannot remove fields that other rules rely on: Host, Content-Length, credentials,
/// cookies, Via, the fields of [`guard`](crate::guard). Naming one of these has no effect.
///
/// # Errors
/// [`Error::TooManyConnectionOptions`].
//= rfc9110#7.6.1
// Before it forwards, an intermediary removes Connection and the fields that it names.
#[inline]
pub fn strip_hop_by_hop(
    head: &mut Head,
    block: &[u8],
    role: MessageKind,
) -> Result<HopOptions, Error> {
    if !head.present.meets(HOP_FIELDS) {
        return Ok(HopOptions::default());
    }
    strip(head, block, role)
}

fn strip(head: &mut Head, block: &[u8], role: MessageKind) -> Result<HopOptions, Error> {
    let (mut hop, mut has_upgrade, mut has_te) = (HopOptions::default(), false, false);
    if let Some(field) = head.find(FieldId::Connection) {
        if !head.repeated.has(FieldId::Connection) {
            hop.record(field.value.get(block));
        }
        // Most often one of these is the only option. Then no field is named.
        if !hop.keep_alive && !hop.close {
            let named = named_options(head, block, &mut hop)?;
            has_upgrade = named.has(FieldId::Upgrade);
            has_te = named.has(FieldId::Te);
        }
    }
    //= rfc9110#7.8
    // Upgrade counts only if Connection names it, and never in HTTP/1.0.
    if has_upgrade && head.version == Version::Http11 {
        hop.upgrade = head
            .find(FieldId::Upgrade)
            .filter(|_| !head.repeated.has(FieldId::Upgrade))
            .map(|field| field.value)
            .filter(|value| is_word(value.get(block), b"websocket"));
        hop.leaves_http = hop.upgrade.is_none() && leaves_http(head, block);
    }
    //= rfc9110#10.1.4
    // TE concerns this hop only, but Weir passes on that trailers are accepted.
    if role == MessageKind::Request && has_te {
        hop.accepts_trailers = head
            .elements(FieldId::Te, block)
            .any(|element| is_word(element, b"trailers"));
    }
    head.remove_set(HOP_FIELDS);
    Ok(hop)
}

/// Returns whether Upgrade offers only protocols that Weir cannot pass on.
//= rfc9110#7.8
// A server may ignore an offer of another HTTP (`h2c`, `TLS/1.2`) and answer the request. A client
// that offers anything else wants a tunnel, and would mistake an ordinary response for one.
#[cold]
fn leaves_http(head: &Head, block: &[u8]) -> bool {
    let is_harmless = |protocol: &[u8]| {
        let begins = |with: &[u8]| {
            let start = protocol.get(..with.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(with))
        };
        begins(b"http/") || begins(b"tls/") || begins(b"h2") || begins(b"websocket")
    };
    let mut offers = head.elements(FieldId::Upgrade, block).peekable();
    offers.peek().is_some() && !offers.any(is_harmless)
}

/// Returns whether `value` equals `word` in any case. `word` consists of lower-case letters, digits
/// and hyphens. Only control bytes would also fold into these, and no value contains any.
#[inline]
fn is_word<const N: usize>(value: &[u8], word: &[u8; N]) -> bool {
    value.len() == N
        && value.first_chunk::<N>().is_some_and(|value| {
            value
                .iter()
                .zip(word)
                .fold(true, |same, (a, b)| same & (a | 0x20 == *b))
        })
}

/// Hop-by-hop fields.
pub(crate) const HOP_FIELDS: FieldSet = FieldSet::of(&[
    FieldId::Connection,
    FieldId::KeepAlive,
    FieldId::ProxyConnection,
    FieldId::ProxyAuthenticate,
    FieldId::ProxyAuthorization,
    FieldId::Te,
    FieldId::Upgrade,
    FieldId::Http2Settings,
]);

/// Fields that determine routing, framing, identity or the type of the body. They belong to the
/// head, and Connection cannot remove them.
pub(crate) const HEAD_FIELDS: FieldSet = FieldSet::of(&[
    FieldId::Host,
    FieldId::ContentLength,
    FieldId::TransferEncoding,
    FieldId::Trailer,
    FieldId::Expect,
    FieldId::Via,
    FieldId::Forwarded,
    FieldId::XForwardedFor,
    FieldId::XForwardedProto,
    FieldId::XForwardedHost,
    FieldId::XRealIp,
    FieldId::Authorization,
    FieldId::WwwAuthenticate,
    FieldId::Cookie,
    FieldId::SetCookie,
    FieldId::ContentType,
    FieldId::ContentEncoding,
    FieldId::ContentRange,
    FieldId::CacheControl,
    FieldId::Date,
    FieldId::Range,
    FieldId::Vary,
]);

/// Fields that Connection cannot remove. The encoder rewrites Transfer-Encoding and Content-Length.
const KEPT: FieldSet = HEAD_FIELDS.with(FieldSet::of(&[FieldId::XRequestId, FieldId::Origin]));

impl HopOptions {
    fn record(&mut self, option: &[u8]) {
        self.close |= is_word(option, b"close");
        self.keep_alive |= is_word(option, b"keep-alive");
    }
}

fn connection_options<'b>(head: &Head, block: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
    head.elements(FieldId::Connection, block)
        .filter(|option| !option.is_empty())
}

/// Records each option and removes the fields that the options name. Returns the known names among
/// the options.
fn named_options(head: &mut Head, block: &[u8], hop: &mut HopOptions) -> Result<FieldSet, Error> {
    let (mut known, mut others) = (FieldSet::EMPTY, [&b""[..]; CONNECTION_OPTIONS_MAX as usize]);
    let mut free = others.iter_mut();
    for option in connection_options(head, block) {
        let slot = free.next().ok_or(Error::TooManyConnectionOptions)?;
        hop.record(option);
        match FieldId::from_name(option) {
            FieldId::Other => *slot = option,
            id => known.add(id),
        }
    }
    for field in &mut head.fields {
        field.is_removed |= match field.id {
            FieldId::Other => {
                let name = field.name.get(block);
                others.iter().any(|other| other.eq_ignore_ascii_case(name))
                    && find_claim(name).is_none()
            }
            id => known.has(id) && !KEPT.has(id) && !HOP_FIELDS.has(id),
        };
    }
    Ok(known)
}
