//! Bytes to [`Head`]: strict, line by line, resumable.
//!
//! Call the parser again with a longer prefix of the same head until the head is complete. It does
//! not parse a line twice, and searches only new bytes for the end of an unfinished line, so a peer
//! that sends byte by byte costs linear work. The parser judges a line when the line is complete,
//! and reports the first error in byte order, so the verdict does not depend on how the network
//! splits the bytes. Only bytes that cannot become a request line are refused before the line ends.

use memchr::memchr;

use crate::error::Error;
use crate::field::FieldId;
use crate::head::{Head, Method, Span, Version};
use crate::limits::{EMPTY_LINES_MAX, Limits, METHOD_BYTES_MAX};
use crate::scan::NameKind;
use crate::{scan, target};

/// What an HTTP/2 client sends first (RFC 9113, section 3.4).
pub const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The parser's progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The head needs more bytes.
    Partial,
    /// The head is complete and takes this many bytes of the block.
    Complete(usize),
}

/// Parses the head of a request. `block` starts with the head and may continue after it.
///
/// Clear `head` before the first call for a message, and do not change it between calls. A complete
/// head has a valid target and, in HTTP/1.1, exactly one valid Host.
///
/// # Errors
/// Input that RFC 9112 calls invalid or that exceeds `limits`; see [`Error::status`] for the
/// response.
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

/// Parses the head of a response, by the rules of [`parse_request`].
///
/// # Errors
/// As [`parse_request`]. The client gets 502 for any of them.
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

/// Returns whether `block` starts with the HTTP/2 connection preface (RFC 9113, section 3.4), or
/// `None` if it is too short to tell.
#[must_use]
pub fn looks_like_h2_preface(block: &[u8]) -> Option<bool> {
    starts_with(block, HTTP2_PREFACE)
}

/// Returns whether `block` starts with a TLS handshake record, or `None` if it is too short to
/// tell.
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

/// The part of the block in which the head must end.
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

/// Returns whether the line at `at` ends within the view. If not, records how far it was searched.
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
// A server skips at least one empty line before a request line.
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

/// Parses a request line and returns where the next line starts. An error may also mean that the
/// line is incomplete; the caller checks that.
//= rfc9112#3
// method SP request-target SP HTTP-version, with single spaces.
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
    // A later minor version is treated as 1.1, but its start line cannot be copied.
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

/// Parses `HTTP/1.x` and the end of the line.
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
// HTTP-name "/" DIGIT "." DIGIT, in upper case. A higher minor version is treated as 1.1.
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

/// Expects CRLF and returns where the next line starts.
#[inline]
fn line_end(view: &[u8], at: usize) -> Result<usize, Error> {
    if starts_at(view, at, b"\r\n") {
        Ok(at + 2)
    } else {
        no_line_end(view, at)
    }
}

/// Returns whether `text` stands at `at`. Its length is a constant, so this takes a comparison or
/// two.
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

/// Judges an incomplete request line. Only what no further byte can make valid is an error: binary
/// input is refused at once, and a long target before it fills the block. The first `searched`
/// bytes have passed this check before.
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
    // The target's end is searched once when the limit is crossed, and once when the view is full.
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

/// Refuses an incomplete head that fills its view.
#[cold]
fn head_cut(view: &[u8], limits: &Limits) -> Result<Parsed, Error> {
    if view.len() >= limits.head_bytes_max as usize {
        return Err(Error::HeadTooLarge);
    }
    Ok(Parsed::Partial)
}

/// Parses a status line and returns where the next line starts.
//= rfc9112#4
// HTTP-version SP 3DIGIT SP [reason]. The space may be missing if the reason is.
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

/// Judges an incomplete status line, as [`request_line_cut`] does a request line.
#[cold]
fn status_line_cut(view: &[u8], limits: &Limits) -> Result<Parsed, Error> {
    if starts_with(view, b"HTTP/") == Some(false) {
        return Err(Error::BadVersion);
    }
    head_cut(view, limits)
}

/// Parses field lines from the cursor on, up to the empty line.
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

/// Parses a field line or the empty line. An error may also mean that the line is incomplete.
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
    // Known names are tokens.
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

/// Parses the empty line, or finds out why a line is not a field.
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
        // A folded line is refused, as is whitespace before the first field (section 2.2).
        [b' ' | b'\t', ..] if len == 0 => Error::ObsFold,
        //= rfc9112#5.1
        // No whitespace stands between name and colon.
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
