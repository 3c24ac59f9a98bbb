//! Request targets: their forms, and the hosts that they name.

use core::net::Ipv6Addr;

use crate::error::Error;
use crate::field::FieldId;
use crate::head::{Head, Method, Span, TargetForm, Version};
use crate::limits::METHOD_BYTES_MAX;
use crate::scan;

/// A host and its port, as spelt in an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort<'b> {
    /// The name or address. An IPv6 address keeps its brackets.
    pub host: &'b [u8],
    /// The port, from 1 to 65,535, if there is one.
    pub port: Option<u16>,
}

/// Validates and splits `host[:port]`. The host is a registered name, an IPv4 address or a
/// bracketed IPv6 address.
///
/// # Errors
/// [`Error::BadHost`] for an empty host or label, user information, a list, a percent sign or an
/// impossible port.
//= rfc9110#4.2.1
// An empty host is refused.
//= rfc9110#4.2.4
// User information is refused.
pub fn host_port(authority: &[u8]) -> Result<HostPort<'_>, Error> {
    let host_len = match authority.first() {
        Some(b'[') => ipv6_literal_len(authority)?,
        _ => name_len(authority)?,
    };
    let (host, rest) = authority.split_at_checked(host_len).ok_or(Error::BadHost)?;
    if host.is_empty() {
        return Err(Error::BadHost);
    }
    let port = match rest {
        //= rfc3986#3.2.3
        // An empty port means the default port of the scheme.
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(port(digits)?),
        _ => return Err(Error::BadHost),
    };
    Ok(HostPort { host, port })
}

/// Finds the end of a name. Its labels are not empty, but a dot may end it.
//= rfc1034#3.1
// A label has at least one character. `a..b` and `.b` are not names, and programs disagree on what
// they mean.
#[inline]
fn name_len(authority: &[u8]) -> Result<usize, Error> {
    if is_plain_name(authority) {
        return Ok(authority.len());
    }
    let mut before = b'.';
    for (len, &byte) in authority.iter().enumerate() {
        if !scan::is_host_byte(byte) {
            return Ok(len);
        }
        if byte == b'.' && before == b'.' {
            return Err(Error::BadHost);
        }
        before = byte;
    }
    Ok(authority.len())
}

/// Returns true if `authority` is a name of letters, digits, hyphens and single dots. May return
/// false for such a name: the check favours speed.
#[inline]
fn is_plain_name(authority: &[u8]) -> bool {
    let Some(last) = authority.last_chunk::<8>() else {
        return false;
    };
    if authority.first() == Some(&b'.') {
        return false;
    }
    let mut at = 0;
    while let Some(word) = authority.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        if !scan::is_name_part(word) {
            return false;
        }
        // Words overlap by a byte, so two adjacent dots lie in one of them.
        at += 7;
    }
    scan::is_name_part(last)
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

/// Returns whether `text` is a valid Host: a host with an optional port.
#[must_use]
pub fn is_authority(text: &[u8]) -> bool {
    host_port(text).is_ok()
}

/// Validates Host and sets the authority of a complete request head.
//= rfc9112#3.2
// An HTTP/1.1 request without Host gets a 400, as does any request with two or an invalid one.
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

/// Parses a target that is not in origin-form. `head.path` and `head.query` hold the parts before
/// and after the first question mark.
//= rfc9112#3.2
// A target has one of four forms, and the method determines which are allowed.
#[cold]
pub(crate) fn split(head: &mut Head, view: &[u8]) -> Result<(), Error> {
    let target = head.target.get(view);
    if head.method == Method::Connect {
        //= rfc9112#3.2.3
        // CONNECT takes a host and a port.
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
    // A server accepts absolute-form, and its authority overrides Host.
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
    /// Sets the method of a request. For parsers of other HTTP versions.
    ///
    /// # Errors
    /// [`Error::BadMethod`] if it is not a token; [`Error::MethodTooLong`].
    pub fn set_method(&mut self, method: Span, block: &[u8]) -> Result<(), Error> {
        let token = method.get(block);
        self.method = Method::from_token(token);
        self.method_span = method;
        if token.len() > METHOD_BYTES_MAX {
            return Err(Error::MethodTooLong);
        }
        // Known methods are tokens.
        if self.method == Method::Other && !scan::is_token(token) {
            return Err(Error::BadMethod);
        }
        Ok(())
    }

    /// Sets the target, in origin-form or the asterisk, after the method was set. For parsers of
    /// other HTTP versions.
    ///
    /// # Errors
    /// [`Error::BadTarget`] for another form, for a byte that targets may not contain, and for an
    /// asterisk without OPTIONS.
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
