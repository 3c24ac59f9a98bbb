//! Sub-requests: what a step asks of an upstream, and what it gets.
//!
//! A step only describes its sub-request. The exchange sends it (`exchange::call`), with the upstream's connections,
//! limits, timeouts and retries.

use std::fmt::{self, Write as _};
use std::time::Duration;

use weir_proto_h1::{FieldId, Head, Method, Span, TargetForm, Version, is_token};

use crate::fault::Reason;
use crate::ids::UpstreamId;

/// A request of Weir's own to an upstream. It has no body.
#[derive(Clone, Debug)]
pub struct Call {
    /// The upstream that gets the request.
    pub upstream: UpstreamId,
    /// The head of the request.
    pub request: CallRequest,
    /// How long the call may take, with all its attempts.
    pub timeout: Duration,
    /// Which bodies of answers Weir collects.
    pub body: AnswerBody,
    /// The largest body that Weir collects, in bytes.
    pub body_bytes_max: usize,
}

/// Which bodies of answers Weir collects for the caller. It reads and drops the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerBody {
    /// None: the status and the fields suffice.
    Dropped,
    /// None, and no fields either. Weir reads bodies to their end, however long they are.
    Discarded,
    /// Those of answers other than 2xx.
    OfRefusals,
    /// All.
    Collected,
}

/// The answer to a [`Call`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallAnswer {
    /// The status, 200 to 599.
    pub status: u16,
    /// The fields without those of framing and connection, in the order received.
    pub fields: Vec<(Box<[u8]>, Vec<u8>)>,
    /// The body, if the call collects it.
    pub body: Vec<u8>,
    /// Why the body is not complete; `None` if it is, or if the call does not collect it.
    pub cut_by: Option<Reason>,
}

impl CallAnswer {
    /// The values of all fields of this name.
    pub fn values<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let of_name = self
            .fields
            .iter()
            .filter(|(other, _)| other.eq_ignore_ascii_case(name));
        of_name.map(|(_, value)| &value[..])
    }
}

/// The head of a request of Weir's own.
///
/// All parts lie in one block, with separators between them that no part contains. So two requests are equal exactly if
/// their blocks are, and a block can be the key of a cached answer.
#[derive(Clone, Debug, Default)]
pub struct CallRequest {
    head: Head,
    block: Vec<u8>,
}

impl CallRequest {
    /// Begins a request, and reuses the memory of the last one. The method must be a token, else the request is a GET.
    pub fn begin(&mut self, method: &[u8], authority: &[u8], target: &[u8]) {
        self.head.clear();
        self.block.clear();
        let method = Some(method).filter(|method| is_token(method));
        let method = method.unwrap_or(b"GET");
        self.head.method = Method::from_token(method);
        self.head.version = Version::Http11;
        self.head.form = TargetForm::Origin;
        self.head.method_span = self.put(method);
        self.head.authority = self.put_value(authority);
        self.put_target(target);
    }

    /// Adds a field. Leaves out fields that Weir writes itself, because they concern the connection, the body or the
    /// host. Bytes that a value may not contain become spaces, as in [`Edits::append`](weir_proto_h1::Edits::append).
    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.field_with(name, |request| request.extend(value));
    }

    /// Adds a field whose value consists of pieces, under the rules of [`CallRequest::field`].
    pub fn field_of(&mut self, name: &[u8], pieces: &[&[u8]]) {
        self.field_with(name, |request| {
            pieces.iter().for_each(|piece| request.extend(piece));
        });
    }

    /// Adds a field with the text of `value`, under the rules of [`CallRequest::field`].
    pub fn field_text(&mut self, name: &[u8], value: impl fmt::Display) {
        self.field_with(name, |request| {
            // Writing to memory cannot fail.
            let _ = write!(ValueText(request), "{value}");
        });
    }

    fn field_with(&mut self, name: &[u8], write: impl FnOnce(&mut Self)) {
        let id = FieldId::from_name(name);
        if is_own(id) || !is_token(name) {
            return;
        }
        let name = self.put(name);
        let start = self.block.len();
        write(self);
        let value = self.end_part(start);
        self.head.push(id, name, value);
    }

    /// The head; its spans point into the block.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The bytes of the request. Requests are equal exactly if their blocks are.
    pub fn block(&self) -> &[u8] {
        &self.block
    }

    /// The head and its block.
    pub fn into_parts(mut self) -> (Head, Vec<u8>) {
        self.head.len = u32::try_from(self.block.len()).unwrap_or(u32::MAX);
        (self.head, self.block)
    }

    /// The value of the first field of a name, for tests and `explain`.
    pub fn value(&self, name: &[u8]) -> Option<&[u8]> {
        let field = self.head.find_name(name, &self.block);
        field.map(|field| field.value.get(&self.block))
    }

    /// Writes the target in origin-form and splits it at the question mark.
    fn put_target(&mut self, target: &[u8]) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let start = self.block.len();
        for &byte in target {
            if matches!(byte, 0x21..=0x7e) && byte != b'#' {
                self.block.push(byte);
                continue;
            }
            let digit = |value: u8| HEX.get(usize::from(value & 15)).copied().unwrap_or(b'0');
            self.block
                .extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
        }
        let whole = self.end_part(start);
        let mark = whole.get(&self.block).iter().position(|&byte| byte == b'?');
        let head = &mut self.head;
        (head.target, head.path) = (whole, whole);
        if let Some(mark) = mark {
            let mark = start + mark;
            head.path = Span::new(start, mark);
            head.query = Span::new(mark + 1, whole.end as usize);
            head.has_query = true;
        }
    }

    fn put(&mut self, part: &[u8]) -> Span {
        let start = self.block.len();
        self.block.extend_from_slice(part);
        self.end_part(start)
    }

    fn put_value(&mut self, part: &[u8]) -> Span {
        let start = self.block.len();
        self.extend(part);
        self.end_part(start)
    }

    fn extend(&mut self, value: &[u8]) {
        let is_allowed = |byte: u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        let fit = |&byte: &u8| if is_allowed(byte) { byte } else { b' ' };
        self.block.extend(value.iter().map(fit));
    }

    /// Ends a part with the separator, which no part contains.
    fn end_part(&mut self, start: usize) -> Span {
        let end = self.block.len();
        self.block.push(b'\n');
        Span::new(start, end)
    }
}

/// Writes text into the value of a field.
struct ValueText<'a>(&'a mut CallRequest);

impl fmt::Write for ValueText<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend(text.as_bytes());
        Ok(())
    }
}

/// Whether Weir writes the field itself in every request.
fn is_own(id: FieldId) -> bool {
    matches!(
        id,
        FieldId::Host
            | FieldId::ContentLength
            | FieldId::TransferEncoding
            | FieldId::Connection
            | FieldId::KeepAlive
            | FieldId::ProxyConnection
            | FieldId::ProxyAuthenticate
            | FieldId::ProxyAuthorization
            | FieldId::Te
            | FieldId::Trailer
            | FieldId::Upgrade
            | FieldId::Http2Settings
            | FieldId::Expect
    )
}

#[cfg(test)]
mod tests {
    use weir_proto_h1::{Edits, Framing, encode_request};

    use super::*;

    fn encoded(request: CallRequest) -> String {
        let (head, block) = request.into_parts();
        let mut wire = Vec::new();
        let framing = Framing::default();
        encode_request(&mut wire, &block, &head, &Edits::new(), &framing);
        String::from_utf8(wire).unwrap()
    }

    #[test]
    fn a_request_has_only_what_it_was_given() {
        let mut request = CallRequest::default();
        request.begin(b"POST", b"auth.test:8080", b"/verify?a=b c");
        request.field(b"X-One", b"1");
        request.field(b"Content-Length", b"5");
        request.field(b"connection", b"X-One");
        request.field(b"Host", b"other.test");
        request.field(b"bad name", b"1");
        request.field_of(b"X-Two", &[b"a", b"b"]);
        assert_eq!(request.value(b"x-two"), Some(&b"ab"[..]));
        assert_eq!(
            encoded(request),
            "POST /verify?a=b%20c HTTP/1.1\r\nHost: auth.test:8080\r\nX-One: 1\r\nX-Two: ab\r\n\r\n"
        );
    }

    #[test]
    fn no_part_can_add_a_line() {
        let mut request = CallRequest::default();
        request.begin(b"GET /\r\n", b"a\r\nX: 1", b"/\r\nX: 1#");
        request.field(b"X-One", b"1\r\nX-Two: 2\0");
        assert_eq!(
            encoded(request),
            "GET /%0D%0AX:%201%23 HTTP/1.1\r\nHost: a  X: 1\r\nX-One: 1  X-Two: 2 \r\n\r\n"
        );
    }

    #[test]
    fn different_requests_have_different_blocks() {
        let block = |parts: [&str; 5]| {
            let [method, authority, target, name, value] = parts.map(str::as_bytes);
            let mut request = CallRequest::default();
            request.begin(b"PUT", b"before", b"/before?");
            request.begin(method, authority, target);
            request.field(name, value);
            request.block().to_vec()
        };
        let one = ["GET", "a", "/b", "c", "d"];
        let others = [
            ["GETa", "", "/b", "c", "d"],
            ["GET", "a/", "b", "c", "d"],
            ["GET", "a", "/bc", "", "d"],
            ["GET", "a", "/b", "cd", ""],
            ["GET", "a", "/b", "c", "d\n"],
        ];
        assert_eq!(block(one), block(one));
        for other in others {
            assert_ne!(block(one), block(other), "{other:?}");
        }
    }
}
