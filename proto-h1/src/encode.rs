//! [`Head`] and [`Edits`] to bytes.
//!
//! The encoder copies runs of unchanged lines from the wire, including the start line if it needs
//! no change. A head that only gains fields takes two copies.

use alloc::vec::Vec;

use crate::edits::{Decimal, Edits};
use crate::field::{FieldId, FieldSet};
use crate::framing::{BODY_FIELDS, BodyKind};
use crate::head::{Field, Head, Method, Span, TargetForm};

/// Where encoded bytes go.
pub trait Sink {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// How to write the framing and the hop-by-hop fields of a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    /// How the body that follows is framed.
    ///
    /// In a response, [`BodyKind::None`] keeps a valid Content-Length that states the length that
    /// the body would have: in responses to HEAD, and in 304.
    pub body: BodyKind,
    /// What to write into Connection.
    pub connection: ConnectionOption,
    /// Whether to announce in TE that trailers are accepted. Requests only.
    pub accepts_trailers: bool,
}

/// What Connection says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConnectionOption {
    /// Nothing, so the rule of the HTTP version applies.
    #[default]
    Implied,
    /// `keep-alive`, for HTTP/1.0 peers.
    KeepAlive,
    /// `close`.
    Close,
    /// `upgrade`, with the protocol as the head spells it.
    Upgrade(Span),
}

/// Encodes a request as HTTP/1.1, in origin-form (CONNECT: authority-form).
///
/// `block` holds the bytes that `head` was parsed from. The encoder always writes a Host: that of
/// [`Edits::set_authority`], else the authority of an absolute target, else the received Host. It
/// never copies the hop-by-hop fields of `head` and writes what `framing` says instead.
pub fn encode_request<S: Sink>(
    sink: &mut S,
    block: &[u8],
    head: &Head,
    edits: &Edits,
    framing: &Framing,
) {
    let mut skip = skipped(head, framing.body);
    let mut run = head.start;
    let host = host(head, block, edits);
    if !(head.has_plain_start_line && edits.path().is_none()) {
        request_line(sink, block, head, edits);
        run = fields_start(head);
    }
    if let Some(host) = host {
        skip.add(FieldId::Host);
        // The run may contain the start line, which must come before Host.
        let fields_start = fields_start(head);
        if head.has_wire_lines {
            put_run(sink, block, run, fields_start);
            run = run.max(fields_start);
        }
        sink.put(b"Host: ");
        sink.put(host);
        sink.put(b"\r\n");
    }
    fields(sink, block, head, edits, run, skip);
    edits.put_lines(sink);
    if skip.has(FieldId::ContentLength) {
        body_fields(sink, framing.body);
    }
    connection(sink, block, framing);
    sink.put(b"\r\n");
}

/// Encodes a response as HTTP/1.1. For a response of the proxy's own, pass [`Head::with_status`]
/// and an empty block.
pub fn encode_response<S: Sink>(
    sink: &mut S,
    block: &[u8],
    head: &Head,
    edits: &Edits,
    framing: &Framing,
) {
    let mut skip = skipped(head, framing.body);
    //= rfc9110#8.6
    // 1xx and 204 have no Content-Length; responses to HEAD and 304 may keep it.
    if framing.body == BodyKind::None {
        let says_length = matches!(head.wire_framing, Some(BodyKind::Length(_)));
        if says_length && !matches!(head.status, 100..=199 | 204) {
            skip.drop(FieldId::ContentLength);
        }
    }
    let mut run = head.start;
    if !(head.has_plain_start_line && head.status == head.wire_status) {
        status_line(sink, block, head);
        run = fields_start(head);
    }
    fields(sink, block, head, edits, run, skip);
    edits.put_lines(sink);
    if skip.has(FieldId::ContentLength) {
        body_fields(sink, framing.body);
    }
    connection(sink, block, framing);
    sink.put(b"\r\n");
}

/// Fields that are never copied, whatever the caller removed: `connection` writes them.
pub(crate) const CONNECTION_FIELDS: FieldSet = FieldSet::of(&[
    FieldId::Connection,
    FieldId::KeepAlive,
    FieldId::ProxyConnection,
    FieldId::Te,
    FieldId::Upgrade,
]);

/// The fields to leave out. The framing fields stay if the wire already says what `body` says.
#[inline]
fn skipped(head: &Head, body: BodyKind) -> FieldSet {
    if head.has_wire_lines && head.wire_framing == Some(body) {
        CONNECTION_FIELDS
    } else {
        CONNECTION_FIELDS.with(BODY_FIELDS)
    }
}

/// The host to write, if the Host line on the wire does not fit.
#[inline]
fn host<'a>(head: &Head, block: &'a [u8], edits: &'a Edits) -> Option<&'a [u8]> {
    if let Some(authority) = edits.authority() {
        return Some(authority);
    }
    //= rfc9112#3.2.2
    // An absolute target overrides Host.
    if head.form == TargetForm::Absolute || head.find(FieldId::Host).is_none() {
        return Some(head.authority.get(block));
    }
    None
}

#[inline]
fn fields_start(head: &Head) -> u32 {
    let first = head.fields.first();
    first.map_or_else(|| fields_end(head), |field| field.name.start)
}

#[inline]
fn fields_end(head: &Head) -> u32 {
    head.len.saturating_sub(2)
}

/// Copies the runs of remaining lines. The first starts at `run`, which may be the start line.
fn fields<S: Sink>(
    sink: &mut S,
    block: &[u8],
    head: &Head,
    edits: &Edits,
    run: u32,
    skip: FieldSet,
) {
    let skip = skip.with(edits.removed());
    if !head.has_wire_lines {
        return unwired_fields(sink, block, head, edits, skip);
    }
    let mut run = Some(run);
    for field in &head.fields {
        if field.is_removed || is_skipped(field, block, edits, skip) {
            if let Some(start) = run.take() {
                put_run(sink, block, start, field.name.start);
            }
        } else if run.is_none() {
            run = Some(field.name.start);
        }
    }
    if let Some(start) = run {
        put_run(sink, block, start, fields_end(head));
    }
}

/// Whether to leave the field out. `skip` has [`FieldId::Other`] only if edits remove such fields.
#[inline]
fn is_skipped(field: &Field, block: &[u8], edits: &Edits, skip: FieldSet) -> bool {
    skip.has(field.id) && (field.id != FieldId::Other || edits.removes_name(field.name.get(block)))
}

/// Copies the bytes from `start` to `end`, if there are any.
#[inline]
fn put_run<S: Sink>(sink: &mut S, block: &[u8], start: u32, end: u32) {
    if start < end {
        sink.put(Span { start, end }.get(block));
    }
}

/// Writes fields that a parser of another HTTP version found.
fn unwired_fields<S: Sink>(sink: &mut S, block: &[u8], head: &Head, edits: &Edits, skip: FieldSet) {
    let kept = |field: &&Field| !is_skipped(field, block, edits, skip);
    for field in head.iter().filter(kept) {
        sink.put(field.name.get(block));
        sink.put(b": ");
        sink.put(field.value.get(block));
        sink.put(b"\r\n");
    }
}

fn request_line<S: Sink>(sink: &mut S, block: &[u8], head: &Head, edits: &Edits) {
    match head.method {
        Method::Other => sink.put(head.method_span.get(block)),
        known => sink.put(known.as_str().as_bytes()),
    }
    sink.put(b" ");
    match head.form {
        TargetForm::Authority => sink.put(
            edits
                .authority()
                .unwrap_or_else(|| head.authority.get(block)),
        ),
        _ => origin_form(sink, block, head, edits),
    }
    sink.put(b" HTTP/1.1\r\n");
}

fn origin_form<S: Sink>(sink: &mut S, block: &[u8], head: &Head, edits: &Edits) {
    let path = edits.path().unwrap_or_else(|| head.path.get(block));
    match path {
        //= rfc9112#3.2.4
        // OPTIONS about the whole server arrives in absolute-form and leaves as the asterisk.
        [] if head.method == Method::Options && !head.has_query => sink.put(b"*"),
        [] => sink.put(b"/"),
        path => sink.put(path),
    }
    if head.has_query {
        sink.put(b"?");
        sink.put(head.query.get(block));
    }
}

fn status_line<S: Sink>(sink: &mut S, block: &[u8], head: &Head) {
    sink.put(b"HTTP/1.1 ");
    sink.put(Decimal::new(u64::from(head.status)).as_bytes());
    sink.put(b" ");
    if head.reason.is_empty() || head.status != head.wire_status {
        sink.put(reason(head.status).as_bytes());
    } else {
        sink.put(head.reason.get(block));
    }
    sink.put(b"\r\n");
}

#[inline]
fn body_fields<S: Sink>(sink: &mut S, body: BodyKind) {
    match body {
        BodyKind::Length(length) => {
            sink.put(b"Content-Length: ");
            sink.put(Decimal::new(length).as_bytes());
            sink.put(b"\r\n");
        }
        BodyKind::Chunked => sink.put(b"Transfer-Encoding: chunked\r\n"),
        BodyKind::None | BodyKind::UntilClose => {}
    }
}

//= rfc9110#7.6.1
// Connection names every field that only concerns the next hop.
#[inline]
fn connection<S: Sink>(sink: &mut S, block: &[u8], framing: &Framing) {
    let te = framing.accepts_trailers;
    match framing.connection {
        ConnectionOption::Implied if te => sink.put(b"Connection: TE\r\nTE: trailers\r\n"),
        ConnectionOption::Implied => {}
        ConnectionOption::KeepAlive if te => {
            sink.put(b"Connection: keep-alive, TE\r\nTE: trailers\r\n")
        }
        ConnectionOption::KeepAlive => sink.put(b"Connection: keep-alive\r\n"),
        ConnectionOption::Close if te => sink.put(b"Connection: close, TE\r\nTE: trailers\r\n"),
        ConnectionOption::Close => sink.put(b"Connection: close\r\n"),
        ConnectionOption::Upgrade(protocol) => {
            sink.put(b"Connection: upgrade\r\nUpgrade: ");
            sink.put(protocol.get(block));
            sink.put(b"\r\n");
        }
    }
}

/// The reason phrase of a status; empty if the status is not registered.
#[must_use]
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}
