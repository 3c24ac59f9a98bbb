//! [`Head`] and [`Edits`] to field blocks.

use alloc::vec::Vec;

use weir_proto_h1::framing::has_no_body;
use weir_proto_h1::{
    BodyKind, Decimal, Edits, Field, FieldId, FieldSet, Head, Method, TargetForm, Trailers,
};

use crate::hpack::{Encoder, FieldName, Indexing, PseudoField};

/// How to frame an outgoing message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing<'a> {
    /// How long the body is. [`BodyKind::Length`] is announced and enforced; other kinds announce
    /// nothing. A response that cannot have a body keeps a valid Content-Length that states the
    /// length that the body would have: responses to HEAD, and 304.
    pub body: BodyKind,
    /// Whether the message ends with its head. [`BodyKind::None`] implies it.
    pub is_end: bool,
    /// Whether to announce in TE that trailers are accepted. Requests only.
    pub accepts_trailers: bool,
    /// The protocol of an extended CONNECT (RFC 8441), such as `websocket`. Turns a request into
    /// one.
    pub protocol: Option<&'a [u8]>,
}

/// Fields that are never written: those for the next hop alone, and those that HTTP/2 says in
/// another way.
const CONNECTION_FIELDS: FieldSet = FieldSet::of(&[
    FieldId::Connection,
    FieldId::KeepAlive,
    FieldId::ProxyConnection,
    FieldId::TransferEncoding,
    FieldId::Upgrade,
    FieldId::Te,
    FieldId::Host,
    FieldId::Http2Settings,
]);

/// Writes a field block.
pub(crate) struct BlockWriter<'a> {
    pub(crate) encoder: &'a mut Encoder,
    pub(crate) out: &'a mut Vec<u8>,
    /// A buffer for joining path and query.
    pub(crate) target: &'a mut Vec<u8>,
}

impl BlockWriter<'_> {
    #[inline]
    fn put(&mut self, name: FieldName<'_>, value: &[u8]) {
        self.encoder
            .encode(self.out, name, value, Indexing::of(name, value));
    }

    fn pseudo(&mut self, pseudo: PseudoField, value: &[u8]) {
        self.put(FieldName::PseudoField(pseudo), value);
    }

    /// Writes the field block of a request.
    //= rfc9113#8.3.1
    // Method, scheme, authority and path. CONNECT has only method and authority.
    pub(crate) fn request(
        &mut self,
        block: &[u8],
        head: &Head,
        edits: &Edits,
        framing: &Framing<'_>,
        is_https: bool,
    ) {
        let authority = edits
            .authority()
            .unwrap_or_else(|| head.authority.get(block));
        let is_connect = head.form == TargetForm::Authority;
        let method = match head.method {
            _ if framing.protocol.is_some() => Method::Connect.as_str().as_bytes(),
            Method::Other => head.method_span.get(block),
            known => known.as_str().as_bytes(),
        };
        self.pseudo(PseudoField::Method, method);
        if !is_connect {
            let scheme: &[u8] = if is_https { b"https" } else { b"http" };
            self.pseudo(PseudoField::Scheme, scheme);
        }
        //= rfc9113#8.3.1
        // If the request has no authority, as in HTTP/1.0, none is invented.
        if !authority.is_empty() {
            self.pseudo(PseudoField::Authority, authority);
        }
        if !is_connect {
            self.path(block, head, edits);
        }
        if let Some(protocol) = framing.protocol {
            self.pseudo(PseudoField::Protocol, protocol);
        }
        self.fields(block, head, edits, framing.body, true);
        if framing.accepts_trailers {
            self.put(FieldName::Known(FieldId::Te), b"trailers");
        }
    }

    fn path(&mut self, block: &[u8], head: &Head, edits: &Edits) {
        let path = match edits.path().unwrap_or_else(|| head.path.get(block)) {
            //= rfc9113#8.3.1
            // OPTIONS about the whole server has an asterisk as its path.
            [] if head.method == Method::Options && !head.has_query => b"*",
            [] => b"/",
            path => path,
        };
        let (name, indexing) = (FieldName::PseudoField(PseudoField::Path), Indexing::NoIndex);
        if !head.has_query {
            let indexing = Indexing::of(name, path);
            return self.encoder.encode(self.out, name, path, indexing);
        }
        let query = head.query.get(block);
        // If path and query are adjacent on the wire, as usual, the target is the value.
        let is_whole = edits.path().is_none();
        let whole = head.target.get(block);
        if is_whole
            && head.form == TargetForm::Origin
            && whole.len() == path.len() + 1 + query.len()
        {
            return self.encoder.encode(self.out, name, whole, indexing);
        }
        self.target.clear();
        self.target.extend_from_slice(path);
        self.target.push(b'?');
        self.target.extend_from_slice(query);
        self.encoder.encode(self.out, name, self.target, indexing);
    }

    /// Writes the field block of a response to `method`.
    pub(crate) fn response(
        &mut self,
        block: &[u8],
        head: &Head,
        edits: &Edits,
        framing: &Framing<'_>,
        method: Method,
    ) {
        self.pseudo(
            PseudoField::Status,
            Decimal::new(u64::from(head.status)).as_bytes(),
        );
        //= rfc9110#8.6
        // 1xx and 204 have no Content-Length; responses to HEAD and 304 may keep it.
        let keeps_length = has_no_body(head.status, method)
            && !matches!(head.status, 100..=199 | 204)
            && !matches!((method, head.status), (Method::Connect, 200..=299));
        let body = match framing.body {
            BodyKind::Length(_) if has_no_body(head.status, method) => BodyKind::None,
            body => body,
        };
        self.fields(block, head, edits, body, !keeps_length);
    }

    /// Writes the remaining fields, the added ones, and the length.
    //= rfc9113#8.2.2
    // Connection-specific fields are never written.
    fn fields(
        &mut self,
        block: &[u8],
        head: &Head,
        edits: &Edits,
        body: BodyKind,
        drops_length: bool,
    ) {
        let mut skip = CONNECTION_FIELDS.with(edits.removed());
        if drops_length {
            skip.add(FieldId::ContentLength);
        }
        for field in head.iter() {
            let is_skipped = skip.has(field.id)
                && (field.id != FieldId::Other || edits.removes_name(field.name.get(block)));
            if !is_skipped {
                self.field(field, block);
            }
        }
        for (name, value) in edits.iter() {
            self.put(FieldName::of(FieldId::from_name(name), name), value);
        }
        if drops_length && let BodyKind::Length(length) = body {
            let name = FieldName::Known(FieldId::ContentLength);
            self.put(name, Decimal::new(length).as_bytes());
        }
    }

    pub(crate) fn trailers(&mut self, trailers: &Trailers) {
        for field in trailers.fields() {
            self.field(field, trailers.block());
        }
    }

    //= rfc7541#6.2.3
    // A field that must not be indexed stays so on every hop.
    #[inline]
    fn field(&mut self, field: &Field, block: &[u8]) {
        let name = FieldName::of(field.id, field.name.get(block));
        let value = field.value.get(block);
        let indexing = if field.is_sensitive {
            Indexing::Never
        } else {
            Indexing::of(name, value)
        };
        self.encoder.encode(self.out, name, value, indexing);
    }
}
