//! Bytes to [`Head`]: strict, line by line, resumable.
//!
//! Call again with a longer prefix of the same head until it is complete. Lines that were taken are
//! not looked at again, and of the unfinished line only the new bytes are searched for its end, so
//! a peer that sends byte by byte costs no more than linear work. A line is judged when it is
//! whole, and problems count in the order of their bytes: the verdict is the same however the
//! network cut them. Only what can no longer become a request line is refused before its line ends.

use memchr::memchr;

use crate::error::Error;
use crate::field::FieldId;
use crate::head::{Head, Method, Span, Version};
use crate::limits::{EMPTY_LINES_MAX, Limits, METHOD_BYTES_MAX};
use crate::scan::NameKind;
use crate::{scan, target};

/// What an HTTP/2 client sends first (RFC 9113, section 3.4).
pub const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How far a head has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Partial,
    /// The head is whole and takes so many bytes of the block.
    Complete(usize),
}

/// Parses the head of a request. `block` starts with the head and may hold more than it.
///
/// `head` must be cleared before the first call for a message and left alone between calls.
/// A complete head has a valid target and, in HTTP/1.1, exactly one valid Host.
///
/// # Errors
/// What RFC 9112 calls invalid, and what exceeds `limits`; see [`Error::status`] for the answer.
pub fn parse_request(block: &[u8], limits: &Limits, head: &mut Head) -> Result<Parsed, Error> {
    let view = view(block, limits);
    if !head.has_start_line {
        let Some(at) = skip_empty_lines(view, head)? else {
            return Ok(Parsed::Partial);
        };
        let searched = head.scanned as usize;
        if searched > at && !is_line_whole(view, at, head) {
            return request_line_cut(view, at, searched, limits);
        }
        match request_line(view, at, limits, head) {
            Ok(next) => start_line_taken(head, next),
            Err(error) if is_line_whole(view, at, head) => return Err(error),
            Err(_) => return request_line_cut(view, at, searched, limits),
        }
    }
    let parsed = fields(view, limits, head)?;
    if let Parsed::Complete(_) = parsed {
        target::check_host(head, block)?;
    }
    Ok(parsed)
}

/// Parses the head of a response. The same rules as for [`parse_request`].
///
/// # Errors
/// As [`parse_request`]; the client gets 502 for any of them.
pub fn parse_response(block: &[u8], limits: &Limits, head: &mut Head) -> Result<Parsed, Error> {
    let view = view(block, limits);
    if !head.has_start_line {
        if head.scanned > 0 && !is_line_whole(view, 0, head) {
            return status_line_cut(view, limits);
        }
        match status_line(view, head) {
            Ok(next) => start_line_taken(head, next),
            Err(error) if is_line_whole(view, 0, head) => return Err(error),
            Err(_) => return status_line_cut(view, limits),
        }
    }
    fields(view, limits, head)
}

/// Says whether bytes begin the connection preface of HTTP/2 (RFC 9113, section 3.4): `None` while
/// there are too few to tell.
#[must_use]
pub fn looks_like_h2_preface(block: &[u8]) -> Option<bool> {
    starts_with(block, HTTP2_PREFACE)
}

/// Says whether bytes begin a TLS handshake record: `None` while there are too few to tell.
#[must_use]
pub fn looks_like_tls(block: &[u8]) -> Option<bool> {
    starts_with(block, &[0x16, 0x03])
}

fn starts_with(block: &[u8], pattern: &[u8]) -> Option<bool> {
    let common = block.len().min(pattern.len());
    if block.get(..common) != pattern.get(..common) {
        return Some(false);
    }
    (common == pattern.len()).then_some(true)
}

/// The part of the block in which the head has to end.
#[inline]
fn view<'b>(block: &'b [u8], limits: &Limits) -> &'b [u8] {
    block.get(..limits.head_bytes_max as usize).unwrap_or(block)
}

#[inline]
fn start_line_taken(head: &mut Head, next: usize) {
    head.cursor = next as u32;
    head.scanned = head.cursor;
    head.has_start_line = true;
    head.has_wire_lines = true;
}

/// Says whether the line that starts at `at` has its end in view; if not, remembers up to where
/// that is known.
#[cold]
fn is_line_whole(view: &[u8], at: usize, head: &mut Head) -> bool {
    let from = at.max(head.scanned as usize);
    if memchr(b'\n', view.get(from..).unwrap_or_default()).is_some() {
        return true;
    }
    head.scanned = view.len() as u32;
    false
}

//= rfc9112#2.2
// A server passes over at least one empty line before a request line.
fn skip_empty_lines(view: &[u8], head: &mut Head) -> Result<Option<usize>, Error> {
    let mut at = head.start as usize;
    loop {
        match (view.get(at), view.get(at + 1)) {
            (Some(b'\r'), Some(b'\n')) => {
                at += 2;
                if at as u32 > 2 * EMPTY_LINES_MAX {
                    return Err(Error::TooManyEmptyLines);
                }
                head.start = at as u32;
            }
            (Some(b'\r'), Some(_)) => return Err(Error::BareCr),
            (Some(b'\n'), _) => return Err(Error::BareLf),
            (None, _) | (Some(b'\r'), None) => return Ok(None),
            (Some(_), _) => return Ok(Some(at)),
        }
    }
}

/// Takes a request line and returns where the next line starts. An error may also mean that the
/// line is not whole yet: the caller knows.
//= rfc9112#3
// method SP request-target SP HTTP-version, single spaces, nothing else.
#[inline]
fn request_line(view: &[u8], at: usize, limits: &Limits, head: &mut Head) -> Result<usize, Error> {
    let (method, method_len) = method(view, at)?;
    let target_at = at + method_len + 1;
    let path_end = scan::path_end(view, target_at);
    let end = match view.get(path_end) {
        Some(b'?') => scan::target_end(view, path_end + 1),
        _ => path_end,
    };
    if end - target_at > limits.target_bytes_max as usize {
        return Err(Error::TargetTooLong);
    }
    match view.get(end) {
        Some(b' ') if end > target_at => {}
        Some(b' ' | b'\r' | b'\n') => return Err(Error::BadRequestLine),
        _ => return Err(Error::BadTarget),
    }
    // Any later minor version is spoken to as 1.1, but its line is not the one to write.
    let is_plain = starts_at(view, end, b" HTTP/1.1\r\n");
    let (version, next) = if is_plain {
        (Version::Http11, end + 11)
    } else {
        version_and_end(view, end + 1)?
    };
    head.method = method;
    head.method_span = Span::new(at, at + method_len);
    head.version = version;
    head.target = Span::new(target_at, end);
    head.path = Span::new(target_at, path_end);
    if path_end != end {
        head.has_query = true;
        head.query = Span::new(path_end + 1, end);
    }
    if view.get(target_at) == Some(&b'/') && method != Method::Connect {
        head.has_plain_start_line = is_plain;
    } else {
        target::split(head, view)?;
    }
    Ok(next)
}

#[inline]
fn method(view: &[u8], at: usize) -> Result<(Method, usize), Error> {
    let rest = view.get(at..).unwrap_or_default();
    match rest.first_chunk::<5>() {
        Some([b'G', b'E', b'T', b' ', _]) => return Ok((Method::Get, 3)),
        Some([b'P', b'O', b'S', b'T', b' ']) => return Ok((Method::Post, 4)),
        _ => {}
    }
    let len = rest
        .iter()
        .take(METHOD_BYTES_MAX + 1)
        .take_while(|&&b| scan::is_token_byte(b))
        .count();
    if len > METHOD_BYTES_MAX {
        return Err(Error::MethodTooLong);
    }
    match rest.get(len) {
        Some(b' ') if len > 0 => Ok((Method::from_token(rest.get(..len).unwrap_or_default()), len)),
        Some(b'\r' | b'\n') => Err(Error::BadRequestLine),
        _ => Err(Error::BadMethod),
    }
}

/// Takes `HTTP/1.x` and the end of the line.
#[cold]
fn version_and_end(view: &[u8], at: usize) -> Result<(Version, usize), Error> {
    let version = version(view, at)?;
    let next = line_end(view, at + 8).map_err(|error| match error {
        Error::BareCr | Error::BareLf => error,
        _ => Error::BadRequestLine,
    })?;
    Ok((version, next))
}

//= rfc9112#2.3
// HTTP-name "/" DIGIT "." DIGIT, in upper case; a higher minor version is spoken to as 1.1.
#[inline]
fn version(view: &[u8], at: usize) -> Result<Version, Error> {
    const HTTP11: u64 = u64::from_le_bytes(*b"HTTP/1.1");
    if scan::word(view, at) == Some(HTTP11) {
        return Ok(Version::Http11);
    }
    other_version(view.get(at..).unwrap_or_default())
}

#[cold]
fn other_version(rest: &[u8]) -> Result<Version, Error> {
    match rest.first_chunk::<8>() {
        Some(b"HTTP/1.0") => Ok(Version::Http10),
        Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9']) => Ok(Version::Http11),
        Some(
            [
                b'H',
                b'T',
                b'T',
                b'P',
                b'/',
                b'0' | b'2'..=b'9',
                b'.',
                b'0'..=b'9',
            ],
        ) => Err(Error::UnsupportedVersion),
        _ => Err(Error::BadVersion),
    }
}

/// Takes CRLF and returns where the next line starts.
#[inline]
fn line_end(view: &[u8], at: usize) -> Result<usize, Error> {
    if starts_at(view, at, b"\r\n") {
        Ok(at + 2)
    } else {
        no_line_end(view, at)
    }
}

/// Says whether `text` stands at `at`. By its length known when compiled: a comparison or two.
#[inline]
fn starts_at<const N: usize>(view: &[u8], at: usize, text: &[u8; N]) -> bool {
    view.get(at..).and_then(|rest| rest.first_chunk::<N>()) == Some(text)
}

#[cold]
fn no_line_end(view: &[u8], at: usize) -> Result<usize, Error> {
    Err(match view.get(at) {
        Some(b'\r') => Error::BareCr,
        Some(b'\n') => Error::BareLf,
        Some(0) => Error::NulByte,
        _ => Error::BadFieldValue,
    })
}

/// Judges a request line that is not whole: only what no further byte can mend is an error, so
/// that binary input is refused at once and a long target before it fills the block. The first
/// `searched` bytes passed this test before.
#[cold]
fn request_line_cut(
    view: &[u8],
    at: usize,
    searched: usize,
    limits: &Limits,
) -> Result<Parsed, Error> {
    let rest = view.get(at..).unwrap_or_default();
    if rest.len() <= METHOD_BYTES_MAX && rest.iter().all(|&byte| scan::is_token_byte(byte)) {
        return head_cut(view, limits);
    }
    let (_, method_len) = method(view, at)?;
    let target_at = at + method_len + 1;
    let target_end_max = target_at + limits.target_bytes_max as usize;
    // Looked for once: when the limit is crossed, and when the view is full.
    let is_full = view.len() >= limits.head_bytes_max as usize;
    let crosses = view.len() > target_end_max && searched <= target_end_max;
    if is_full || crosses {
        let target_end = scan::target_end(view, target_at);
        if target_end > target_end_max || (is_full && target_end == view.len()) {
            return Err(Error::TargetTooLong);
        }
    }
    head_cut(view, limits)
}

/// A head that is cut is refused once it fills its view.
#[cold]
fn head_cut(view: &[u8], limits: &Limits) -> Result<Parsed, Error> {
    if view.len() >= limits.head_bytes_max as usize {
        return Err(Error::HeadTooLarge);
    }
    Ok(Parsed::Partial)
}

/// Takes a status line and returns where the next line starts.
//= rfc9112#4
// HTTP-version SP 3DIGIT SP [reason]; the space before an absent reason is not insisted on.
#[inline]
fn status_line(view: &[u8], head: &mut Head) -> Result<usize, Error> {
    let version = version(view, 0)?;
    let Some([b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9']) =
        view.get(8..).and_then(|rest| rest.first_chunk::<4>())
    else {
        return Err(Error::BadStatusLine);
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    let (reason_at, reason_end) = match view.get(12) {
        Some(b' ') => (13, scan::value_end(view, 13)),
        _ => (12, 12),
    };
    let next = line_end(view, reason_end).map_err(|error| match error {
        Error::BareCr | Error::BareLf => error,
        _ => Error::BadStatusLine,
    })?;
    head.version = version;
    head.status = 100 * digit(a) + 10 * digit(b) + digit(c);
    head.wire_status = head.status;
    head.reason = Span::new(reason_at, reason_end);
    head.has_plain_start_line = view.starts_with(b"HTTP/1.1 ") && reason_at == 13;
    Ok(next)
}

/// Judges a status line that is not whole, as [`request_line_cut`] does a request line.
#[cold]
fn status_line_cut(view: &[u8], limits: &Limits) -> Result<Parsed, Error> {
    if starts_with(view, b"HTTP/") == Some(false) {
        return Err(Error::BadVersion);
    }
    head_cut(view, limits)
}

/// Takes field lines from the cursor on, up to the empty line if it is there.
#[inline]
fn fields(view: &[u8], limits: &Limits, head: &mut Head) -> Result<Parsed, Error> {
    let mut at = head.cursor as usize;
    if head.scanned > head.cursor && !is_line_whole(view, at, head) {
        return head_cut(view, limits);
    }
    loop {
        let error = match field_line(view, at) {
            Ok(FieldLine::Field {
                id,
                is_odd,
                name,
                value,
                next,
            }) => {
                if head.fields.len() >= limits.fields_max as usize {
                    return Err(Error::TooManyFields);
                }
                head.push(id, name, value);
                if is_odd {
                    head.mark_odd();
                }
                at = next;
                continue;
            }
            Ok(FieldLine::Empty) => {
                head.cursor = at as u32;
                head.len = (at + 2) as u32;
                return Ok(Parsed::Complete(at + 2));
            }
            Err(error) => error,
        };
        head.cursor = at as u32;
        return if is_line_whole(view, at, head) {
            Err(error)
        } else {
            head_cut(view, limits)
        };
    }
}

pub(crate) enum FieldLine {
    Field {
        id: FieldId,
        is_odd: bool,
        name: Span,
        value: Span,
        next: usize,
    },
    Empty,
}

/// Takes one field line or the empty line. An error may also mean that the line is not whole yet.
//= rfc9112#5
// field-name ":" OWS field-value OWS, and not one byte of leniency.
#[inline(always)] // A call for each line would cost a fifth of the work on it.
pub(crate) fn field_line(bytes: &[u8], at: usize) -> Result<FieldLine, Error> {
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.first() == Some(&b'\r') {
        return no_field_line(rest);
    }
    let colon = scan::colon(rest);
    let id = FieldId::at_front(rest, colon);
    // A known name is a token; any other has to show it.
    let mut is_odd = false;
    if id == FieldId::Other {
        let kind = match rest.split_at_checked(colon) {
            Some((name, [b':', ..])) => scan::name_kind(name),
            _ => NameKind::NoToken,
        };
        if kind == NameKind::NoToken {
            return no_field_line(rest);
        }
        is_odd = kind == NameKind::Odd;
    }
    let mut start = colon + 1;
    while let Some(b' ' | b'\t') = rest.get(start) {
        start += 1;
    }
    let stop = scan::value_end(rest, start);
    let next = line_end(rest, stop)?;
    let mut end = stop;
    while let Some(b' ' | b'\t') = rest.get(end.wrapping_sub(1))
        && end > start
    {
        end -= 1;
    }
    Ok(FieldLine::Field {
        id,
        is_odd,
        name: Span::new(at, at + colon),
        value: Span::new(at + start, at + end),
        next: at + next,
    })
}

/// Takes the empty line, or says what keeps a line from being a field.
fn no_field_line(rest: &[u8]) -> Result<FieldLine, Error> {
    if let [b'\r', b'\n', ..] = rest {
        return Ok(FieldLine::Empty);
    }
    let len = rest
        .iter()
        .take_while(|&&byte| scan::is_token_byte(byte))
        .count();
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let error = match rest.get(len..).unwrap_or_default() {
        //= rfc9112#5.2
        // A folded line is refused; so is white space before the first field (section 2.2).
        [b' ' | b'\t', ..] if len == 0 => Error::ObsFold,
        //= rfc9112#5.1
        // No white space between name and colon.
        [b' ' | b'\t', tail @ ..] if tail.iter().find(|b| !is_blank(b)) == Some(&b':') => {
            Error::SpaceBeforeColon
        }
        [b'\r', b'\n', ..] => Error::MissingColon,
        [b'\r', ..] => Error::BareCr,
        [b'\n', ..] => Error::BareLf,
        [0, ..] => Error::NulByte,
        _ => Error::BadFieldName,
    };
    Err(error)
}
