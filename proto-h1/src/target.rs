//! Request targets: their forms, the host they name, and the normal form of paths for matching.

use alloc::vec::Vec;
use core::net::Ipv6Addr;

use crate::error::Error;
use crate::field::FieldId;
use crate::head::{Head, Method, Span, TargetForm, Version};
use crate::limits::METHOD_BYTES_MAX;
use crate::scan;

/// A host and its port, as an authority spells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort<'b> {
    /// The name or address; an IPv6 address keeps its brackets.
    pub host: &'b [u8],
    /// The port, when there is one: 1 to 65,535.
    pub port: Option<u16>,
}

/// Splits and checks `host[:port]`: a registered name, an IPv4 address or an IPv6 address in brackets.
///
/// # Errors
/// [`Error::BadHost`] for an empty host, user information, a list, a percent sign, an impossible
/// port.
//= rfc9110#4.2.1
// An empty host is refused.
//= rfc9110#4.2.4
// So is user information.
pub fn host_port(authority: &[u8]) -> Result<HostPort<'_>, Error> {
    let host_len = match authority.first() {
        Some(b'[') => ipv6_literal_len(authority)?,
        _ => host_len(authority),
    };
    let (host, rest) = authority.split_at_checked(host_len).ok_or(Error::BadHost)?;
    if host.is_empty() {
        return Err(Error::BadHost);
    }
    let port = match rest {
        //= rfc3986#3.2.3
        // An empty port is the scheme's own.
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(port(digits)?),
        _ => return Err(Error::BadHost),
    };
    Ok(HostPort { host, port })
}

#[inline]
fn host_len(authority: &[u8]) -> usize {
    let stop = authority.iter().position(|&byte| !scan::is_host_byte(byte));
    stop.unwrap_or(authority.len())
}

fn ipv6_literal_len(authority: &[u8]) -> Result<usize, Error> {
    let close = authority
        .iter()
        .position(|&byte| byte == b']')
        .ok_or(Error::BadHost)?;
    let address = authority.get(1..close).ok_or(Error::BadHost)?;
    let text = core::str::from_utf8(address).map_err(|_| Error::BadHost)?;
    text.parse::<Ipv6Addr>().map_err(|_| Error::BadHost)?;
    Ok(close + 1)
}

fn port(digits: &[u8]) -> Result<u16, Error> {
    if digits.len() > 5 {
        return Err(Error::BadHost);
    }
    let mut port = 0u32;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(Error::BadHost);
        }
        port = port * 10 + u32::from(digit - b'0');
    }
    match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Error::BadHost),
    }
}

/// Checks Host and fills in the authority of a complete request head.
//= rfc9112#3.2
// 400 for a 1.1 request without Host, and for any request with two or an invalid one.
#[inline]
pub(crate) fn check_host(head: &mut Head, block: &[u8]) -> Result<(), Error> {
    if head.repeated.has(FieldId::Host) {
        return Err(Error::RepeatedHost);
    }
    let host = head.find(FieldId::Host).map(|field| field.value);
    match host {
        Some(value) => {
            host_port(value.get(block))?;
            if head.authority.is_empty() {
                head.authority = value;
            }
            Ok(())
        }
        None if head.version == Version::Http11 => Err(Error::MissingHost),
        None => Ok(()),
    }
}

/// Takes apart a target that is not in origin-form. `head.path` and `head.query` hold the split at
/// the first question mark.
//= rfc9112#3.2
// Four forms; which one is allowed depends on the method.
#[cold]
pub(crate) fn split(head: &mut Head, view: &[u8]) -> Result<(), Error> {
    let target = head.target.get(view);
    if head.method == Method::Connect {
        //= rfc9112#3.2.3
        // CONNECT takes host and port and nothing else.
        if !host_port(target).is_ok_and(|host| host.port.is_some()) {
            return Err(Error::BadTarget);
        }
        head.form = TargetForm::Authority;
        head.authority = head.target;
        head.path = Span::EMPTY;
        return Ok(());
    }
    if target == b"*" {
        //= rfc9112#3.2.4
        // The asterisk is for OPTIONS.
        if head.method != Method::Options {
            return Err(Error::BadTarget);
        }
        head.form = TargetForm::Asterisk;
        return Ok(());
    }
    //= rfc9112#3.2.2
    // A server accepts absolute-form; its authority overrides Host.
    let scheme_len = match target {
        [
            b'h' | b'H',
            b't' | b'T',
            b't' | b'T',
            b'p' | b'P',
            b':',
            b'/',
            b'/',
            ..,
        ] => 4,
        [
            b'h' | b'H',
            b't' | b'T',
            b't' | b'T',
            b'p' | b'P',
            b's' | b'S',
            b':',
            b'/',
            b'/',
            ..,
        ] => 5,
        _ => return Err(Error::BadTarget),
    };
    let start = head.target.start as usize;
    let authority_at = start + scheme_len + 3;
    let before_query = head.path.end as usize;
    let after_scheme = view.get(authority_at..before_query).unwrap_or_default();
    let authority_len = after_scheme
        .iter()
        .take_while(|&&byte| byte != b'/')
        .count();
    host_port(after_scheme.get(..authority_len).unwrap_or_default())?;
    head.form = TargetForm::Absolute;
    head.scheme = Span::new(start, start + scheme_len);
    head.authority = Span::new(authority_at, authority_at + authority_len);
    head.path = Span::new(authority_at + authority_len, before_query);
    Ok(())
}

impl Head {
    /// Fills in the method of a request. For parsers of other versions.
    ///
    /// # Errors
    /// [`Error::BadMethod`] for what is no token, [`Error::MethodTooLong`].
    pub fn set_method(&mut self, method: Span, block: &[u8]) -> Result<(), Error> {
        let token = method.get(block);
        self.method = Method::from_token(token);
        self.method_span = method;
        if token.len() > METHOD_BYTES_MAX {
            return Err(Error::MethodTooLong);
        }
        // A known method is a token; any other has to show it.
        if self.method == Method::Other && !scan::is_token(token) {
            return Err(Error::BadMethod);
        }
        Ok(())
    }

    /// Fills in a target in origin-form, or the asterisk, behind the method. For parsers of other
    /// versions.
    ///
    /// # Errors
    /// [`Error::BadTarget`] for any other form, a byte that no target may hold, and an asterisk
    /// without OPTIONS.
    pub fn set_target(&mut self, target: Span, block: &[u8]) -> Result<(), Error> {
        let text = target.get(block);
        let path_len = scan::path_end(text, 0);
        let (start, mut end) = (target.start as usize, path_len);
        if text.get(path_len) == Some(&b'?') {
            end = scan::target_end(text, path_len + 1);
            self.has_query = true;
            self.query = Span::new(start + path_len + 1, start + end);
        }
        self.form = match text {
            _ if end != text.len() => return Err(Error::BadTarget),
            [b'/', ..] => TargetForm::Origin,
            b"*" if self.method == Method::Options => TargetForm::Asterisk,
            _ => return Err(Error::BadTarget),
        };
        self.target = target;
        self.path = Span::new(start, start + path_len);
        Ok(())
    }
}

/// What normalising a path found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normal {
    /// The path is its own normal form; nothing was written.
    Same,
    /// The normal form was written to the buffer.
    Rewritten,
}

/// What a route allows in a path although it is refused by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathRules {
    /// `%2F`, `%5C` and backslashes: endpoints may take them for separators. They are kept as
    /// they are.
    pub allow_encoded_slash: bool,
    /// `%00`, kept as it is.
    pub allow_nul: bool,
}

/// Brings a path into the form that routes are matched against: percent-encoding in upper case and
/// only where it is needed, then no duplicate slashes, then no dot segments.
///
/// `out` is overwritten, and only when the path is not normal already; its capacity is reused.
///
/// # Errors
/// [`Error::BadPercentEncoding`], and [`Error::EncodedSlash`] or [`Error::EncodedNul`] unless
/// `rules` allow them.
//= rfc3986#6.2.2
// Case, percent-encoding and dot segments are normalised.
pub fn normalize_path(path: &[u8], rules: PathRules, out: &mut Vec<u8>) -> Result<Normal, Error> {
    if is_plainly_normal(path) {
        return Ok(Normal::Same);
    }
    out.clear();
    out.reserve(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match byte {
            b'%' => {
                let &[high, low, ref after @ ..] = tail else {
                    return Err(Error::BadPercentEncoding);
                };
                decode(high, low, rules, out)?;
                after
            }
            b'\\' if !rules.allow_encoded_slash => return Err(Error::EncodedSlash),
            _ => {
                push_in_segments(byte, out);
                tail
            }
        };
    }
    end_segment(out);
    if out.as_slice() == path {
        Ok(Normal::Same)
    } else {
        Ok(Normal::Rewritten)
    }
}

/// Says quickly that nothing in a path asks for a closer look; mostly right.
#[inline]
fn is_plainly_normal(path: &[u8]) -> bool {
    let Some(last) = path.last_chunk::<8>() else {
        return is_short_path_normal(path);
    };
    let mut at = 0;
    while let Some(word) = scan::word(path, at) {
        if scan::is_path_odd(word) {
            return false;
        }
        // Words overlap by a byte, so that every pair of neighbours is seen in one of them.
        at += 7;
    }
    !scan::is_path_odd(u64::from_le_bytes(*last))
}

fn is_short_path_normal(path: &[u8]) -> bool {
    let mut before = 0;
    for &byte in path {
        if matches!(byte, b'%' | b'\\') || (before == b'/' && matches!(byte, b'/' | b'.')) {
            return false;
        }
        before = byte;
    }
    true
}

fn decode(high: u8, low: u8, rules: PathRules, out: &mut Vec<u8>) -> Result<(), Error> {
    let (Some(h), Some(l)) = (hex(high), hex(low)) else {
        return Err(Error::BadPercentEncoding);
    };
    let byte = h << 4 | l;
    match byte {
        b'/' | b'\\' if !rules.allow_encoded_slash => return Err(Error::EncodedSlash),
        0 if !rules.allow_nul => return Err(Error::EncodedNul),
        _ if scan::is_unreserved(byte) => push_in_segments(byte, out),
        _ => out.extend_from_slice(&[b'%', high.to_ascii_uppercase(), low.to_ascii_uppercase()]),
    }
    Ok(())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// Appends a byte; a slash first settles the segment before it.
fn push_in_segments(byte: u8, out: &mut Vec<u8>) {
    if byte != b'/' {
        out.push(byte);
        return;
    }
    end_segment(out);
    if out.last() != Some(&b'/') {
        out.push(b'/');
    }
}

/// Resolves the last segment when it is `.` or `..`. The slash before it stays.
//= rfc3986#5.2.4
// "." goes, ".." takes the segment before it along and never leaves the root.
fn end_segment(out: &mut Vec<u8>) {
    let start = out
        .iter()
        .rposition(|&byte| byte == b'/')
        .map_or(0, |slash| slash + 1);
    match out.get(start..) {
        Some(b".") => out.truncate(start),
        Some(b"..") => {
            let parent = out.get(..start.saturating_sub(1)).unwrap_or_default();
            let keep = parent
                .iter()
                .rposition(|&byte| byte == b'/')
                .map_or(0, |slash| slash + 1);
            out.truncate(keep.max(usize::from(start > 0)));
        }
        _ => {}
    }
}
