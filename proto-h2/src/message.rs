//! Field sections to heads, by the rules of RFC 9113, section 8.
//!
//! A section is checked field by field while it is decoded, and as a whole at its end. Any
//! violation makes the message malformed, which is a stream error. Nothing is repaired.

use alloc::vec::Vec;

use weir_proto_h1::framing::has_no_body;
use weir_proto_h1::guard::is_odd_name;
use weir_proto_h1::target::host_port;
use weir_proto_h1::{
    BodyKind, FieldId, Head, Method, Request, Span, TargetForm, Version, request_body,
    response_body,
};

use crate::config::Config;
use crate::error::Error;
use crate::hpack::{DecodedField, PseudoField};
use crate::priority::Priority;

/// The kind of a field section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SectionKind {
    Request,
    Response,
    Trailers,
}

/// A field section during decoding: everything that does not go into the head unchanged.
#[derive(Clone, Debug)]
pub(crate) struct FieldSection {
    section: SectionKind,
    fields_max: usize,
    pseudo: [Option<Span>; 6],
    host: Option<Span>,
    cookies: u32,
    has_fields: bool,
    accepts_trailers: bool,
    /// The priority that a request states.
    pub(crate) priority: Option<Priority>,
}

impl FieldSection {
    pub(crate) fn new(section: SectionKind, config: &Config) -> Self {
        Self {
            section,
            fields_max: config.fields_max as usize,
            pseudo: [None; 6],
            host: None,
            cookies: 0,
            has_fields: false,
            accepts_trailers: false,
            priority: None,
        }
    }

    /// Adds a field to the head, or keeps it apart. Its spans are over `text`.
    pub(crate) fn take(
        &mut self,
        head: &mut Head,
        text: &[u8],
        field: &DecodedField,
    ) -> Result<(), Error> {
        if !field.is_valid {
            return Err(invalid(text, field));
        }
        if let Some(pseudo) = field.pseudo {
            return self.take_pseudo(pseudo, field.value);
        }
        self.has_fields = true;
        match field.id {
            //= rfc9113#8.2.2
            // Connection-specific fields are not allowed. TE may only say `trailers`.
            FieldId::Connection
            | FieldId::KeepAlive
            | FieldId::ProxyConnection
            | FieldId::TransferEncoding
            | FieldId::Upgrade => return Err(Error::ConnectionField),
            FieldId::Te => {
                if !field.value.get(text).eq_ignore_ascii_case(b"trailers") {
                    return Err(Error::BadTe);
                }
                self.accepts_trailers = true;
                return Ok(());
            }
            // These concern one hop, as in HTTP/1.1.
            FieldId::Http2Settings | FieldId::ProxyAuthenticate | FieldId::ProxyAuthorization => {
                return Ok(());
            }
            //= rfc9113#8.3.1
            // Host repeats the authority, so the head does not keep it.
            FieldId::Host if self.section == SectionKind::Request => {
                let before = self.host.replace(field.value);
                return before.map_or(Ok(()), |_| Err(Error::BadHost));
            }
            FieldId::Cookie => self.cookies += 1,
            FieldId::Other if field.name.get(text) == b"priority" => {
                self.priority = Some(Priority::parse(field.value.get(text)));
            }
            _ => {}
        }
        //= rfc9113#8.2.3
        // Cookie crumbs count as one field. The limit on the list bounds them.
        let crumbs = self.cookies.saturating_sub(1) as usize;
        let is_crumb = field.id == FieldId::Cookie && crumbs > 0;
        if !is_crumb && head.fields.len() >= self.fields_max + crumbs {
            return Err(Error::TooManyFields);
        }
        head.push(field.id, field.name, field.value);
        if field.id == FieldId::Other && is_odd_name(field.name.get(text)) {
            head.mark_odd();
        }
        if field.is_sensitive
            && let Some(last) = head.fields.last_mut()
        {
            last.is_sensitive = true;
        }
        Ok(())
    }

    //= rfc9113#8.3
    // A pseudo-field appears once, before all other fields, only in its kind of message, and never
    // in trailers.
    fn take_pseudo(&mut self, pseudo: PseudoField, value: Span) -> Result<(), Error> {
        match self.section {
            SectionKind::Trailers => return Err(Error::PseudoInTrailers),
            SectionKind::Request if pseudo == PseudoField::Status => {
                return Err(Error::UnknownPseudo);
            }
            SectionKind::Response if pseudo != PseudoField::Status => {
                return Err(Error::UnknownPseudo);
            }
            _ if self.has_fields => return Err(Error::LatePseudo),
            _ => {}
        }
        match self.pseudo.get_mut(pseudo as usize) {
            Some(slot @ None) => *slot = Some(value),
            _ => return Err(Error::RepeatedPseudo),
        }
        Ok(())
    }

    fn get(&self, pseudo: PseudoField) -> Option<Span> {
        self.pseudo.get(pseudo as usize).copied().flatten()
    }

    fn need(&self, pseudo: PseudoField) -> Result<Span, Error> {
        self.get(pseudo).ok_or(Error::MissingPseudo)
    }

    /// Completes the head of a request.
    pub(crate) fn request(
        &self,
        head: &mut Head,
        text: &mut Vec<u8>,
        is_end: bool,
        config: &Config,
    ) -> Result<Request, Error> {
        head.version = Version::Http2;
        self.method(head, text)?;
        let protocol = self.get(PseudoField::Protocol);
        if head.method == Method::Connect && protocol.is_none() {
            self.connect(head, text)?;
        } else {
            //= rfc8441#4
            // Only CONNECT has a protocol, and only if that is enabled.
            if protocol.is_some() && !(config.extended_connect && head.method == Method::Connect) {
                return Err(Error::BadConnect);
            }
            self.target(head, text, config)?;
        }
        let body = self.body(head, text, is_end)?;
        if self.cookies > 1 {
            join_cookies(head, text);
        }
        head.len = (text.len() as u32).max(1);
        Ok(Request {
            method: head.method,
            version: Version::Http2,
            body,
            expects_continue: expectation(head, text)? && !is_end,
            upgrade: protocol,
            leaves_http: false,
            accepts_trailers: self.accepts_trailers,
            keeps_alive: true,
        })
    }

    /// Fills a head with the valid parts of a refused request.
    pub(crate) fn fill_partial_head(&self, head: &mut Head, text: &[u8], config: &Config) {
        head.version = Version::Http2;
        // The error that matters is known already.
        let _ = self.method(head, text);
        if self.target(head, text, config).is_err() {
            head.target = self.get(PseudoField::Path).unwrap_or_default();
        }
        head.len = (text.len() as u32).max(1);
    }

    fn method(&self, head: &mut Head, text: &[u8]) -> Result<(), Error> {
        head.set_method(self.need(PseudoField::Method)?, text)
            .map_err(|error| match error {
                weir_proto_h1::Error::MethodTooLong => Error::MethodTooLong,
                _ => Error::BadMethod,
            })
    }

    //= rfc9113#8.5
    // CONNECT has a method and an authority with a port, but no scheme and no path.
    fn connect(&self, head: &mut Head, text: &[u8]) -> Result<(), Error> {
        if self
            .get(PseudoField::Scheme)
            .or_else(|| self.get(PseudoField::Path))
            .is_some()
        {
            return Err(Error::BadConnect);
        }
        let authority = self.need(PseudoField::Authority)?;
        match host_port(authority.get(text)) {
            Ok(host) if host.port.is_some() => {}
            _ => return Err(Error::BadAuthority),
        }
        self.check_host(authority, text)?;
        head.form = TargetForm::Authority;
        (head.authority, head.target) = (authority, authority);
        Ok(())
    }

    //= rfc9113#8.3.1
    // Scheme and path are required. The path is in origin-form, or the asterisk for OPTIONS.
    fn target(&self, head: &mut Head, text: &[u8], config: &Config) -> Result<(), Error> {
        head.scheme = self.need(PseudoField::Scheme)?;
        let scheme = head.scheme.get(text);
        if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
            return Err(Error::BadScheme);
        }
        let path = self.need(PseudoField::Path)?;
        if path.len() > config.target_bytes_max as usize {
            return Err(Error::TargetTooLong);
        }
        head.set_target(path, text).map_err(|_| Error::BadPath)?;
        let authority = self.get(PseudoField::Authority).or(self.host);
        head.authority = authority.ok_or(Error::MissingAuthority)?;
        host_port(head.authority.get(text)).map_err(|_| Error::BadAuthority)?;
        self.check_host(head.authority, text)
    }

    //= rfc9113#8.3.1
    // If Host and authority differed, programs could read two different requests.
    fn check_host(&self, authority: Span, text: &[u8]) -> Result<(), Error> {
        let (host, authority) = (self.host.unwrap_or(authority), authority.get(text));
        if host.get(text).eq_ignore_ascii_case(authority) {
            Ok(())
        } else {
            Err(Error::BadHost)
        }
    }

    //= rfc9113#8.1.1
    // Content-Length must equal the length of the data, even if there is none.
    fn body(&self, head: &mut Head, text: &[u8], is_end: bool) -> Result<BodyKind, Error> {
        let body = request_body(head, text).map_err(|_| Error::BadContentLength)?;
        match body {
            BodyKind::Length(1..) if is_end => Err(Error::BodyTooShort),
            _ if is_end => Ok(BodyKind::None),
            BodyKind::Length(_) => Ok(body),
            _ => Ok(BodyKind::Chunked),
        }
    }

    /// Completes the head of a response to `method`.
    pub(crate) fn response(
        &self,
        head: &mut Head,
        text: &[u8],
        method: Method,
        is_end: bool,
    ) -> Result<BodyKind, Error> {
        head.version = Version::Http2;
        head.status = status(self.need(PseudoField::Status)?.get(text))?;
        let body = response_body(head, text, method).map_err(|_| Error::BadContentLength)?;
        head.len = (text.len() as u32).max(1);
        let is_tunnel = method == Method::Connect && matches!(head.status, 200..=299);
        match body {
            //= rfc9113#8.1
            // An interim response cannot end the stream.
            _ if matches!(head.status, 100..=199) && is_end => Err(Error::EndedInterim),
            _ if is_tunnel && !is_end => Ok(BodyKind::Chunked),
            _ if has_no_body(head.status, method) => Ok(BodyKind::None),
            BodyKind::Length(1..) if is_end => Err(Error::BodyTooShort),
            _ if is_end => Ok(BodyKind::None),
            BodyKind::Length(_) => Ok(body),
            _ => Ok(BodyKind::Chunked),
        }
    }

    /// Completes a trailer section.
    pub(crate) fn trailers(&self, head: &mut Head, text: &[u8]) {
        head.version = Version::Http2;
        head.len = (text.len() as u32).max(1);
    }
}

impl Error {
    /// Returns whether the caller can respond to a request with this error.
    pub(crate) const fn is_answerable(self) -> bool {
        matches!(
            self,
            Self::HeadTooLarge
                | Self::TooManyFields
                | Self::TargetTooLong
                | Self::MethodTooLong
                | Self::BadExpectation
        )
    }
}

/// Finds out what is wrong with a field.
//= rfc9113#8.2.1
// Names are lower-case tokens. Values have no control bytes and no surrounding whitespace.
#[cold]
fn invalid(text: &[u8], field: &DecodedField) -> Error {
    let (name, value) = (field.name.get(text), field.value.get(text));
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let is_control = |&byte: &u8| matches!(byte, 0..=0x08 | 0x0a..=0x1f | 0x7f);
    if name.first() == Some(&b':') && field.pseudo.is_none() {
        Error::UnknownPseudo
    } else if is_blank(value.first()) || is_blank(value.last()) || value.iter().any(is_control) {
        Error::BadFieldValue
    } else {
        Error::BadFieldName
    }
}

/// Parses a status of three digits. HTTP/2 has no 101.
//= rfc9113#8.6
// 101 is no status of HTTP/2.
fn status(text: &[u8]) -> Result<u16, Error> {
    let [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] = text else {
        return Err(Error::BadStatus);
    };
    let digit = |byte: &u8| u16::from(byte - b'0');
    match 100 * digit(a) + 10 * digit(b) + digit(c) {
        101 => Err(Error::BadStatus),
        status => Ok(status),
    }
}

//= rfc9110#10.1.1
// 100-continue is the only expectation; any other gets a 417.
fn expectation(head: &Head, text: &[u8]) -> Result<bool, Error> {
    if !head.may_have(FieldId::Expect) {
        return Ok(false);
    }
    let mut values = head.all(FieldId::Expect).map(|field| field.value.get(text));
    if values.all(|value| value.eq_ignore_ascii_case(b"100-continue")) {
        Ok(true)
    } else {
        Err(Error::BadExpectation)
    }
}

/// Joins the Cookie fields into one.
//= rfc9113#8.2.3
// Crumbs are joined before anything sees the head that expects a single Cookie.
fn join_cookies(head: &mut Head, text: &mut Vec<u8>) {
    let (start, mut name, mut sensitive) = (text.len(), Span::EMPTY, false);
    for field in head.all(FieldId::Cookie) {
        if text.len() > start {
            text.extend_from_slice(b"; ");
        }
        let value = field.value.start as usize..field.value.end as usize;
        if value.end <= start {
            text.extend_from_within(value);
        }
        name = field.name;
        sensitive |= field.is_sensitive;
    }
    head.remove(FieldId::Cookie);
    head.push(FieldId::Cookie, name, Span::new(start, text.len()));
    if let Some(last) = head.fields.last_mut() {
        last.is_sensitive = sensitive;
    }
}
