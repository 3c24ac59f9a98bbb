//! [`Head`] and [`Edits`] to field blocks.

use alloc::vec::Vec;

use weir_proto_h1::framing::has_no_body;
use weir_proto_h1::{BodyKind, Decimal, Edits, Field, FieldId, Head, Method, TargetForm, Trailers};

use crate::hpack::{Encoder, FieldName, Indexing, PseudoField};

/// What a head that is sent says about this hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing<'a> {
    /// How long the body is. [`BodyKind::Length`] is announced and held to; any other kind
    /// announces nothing. An answer that can have no body keeps a valid Content-Length that tells
    /// what the body would be: answers to HEAD, and 304.
    pub body: BodyKind,
    /// The message ends with this head. [`BodyKind::None`] means the same.
    pub is_end: bool,
    /// Says that trailers are welcome (requests).
    pub accepts_trailers: bool,
    /// Makes an extended CONNECT of a request, for this protocol (RFC 8441): `websocket`.
    pub protocol: Option<&'a [u8]>,
}

/// A block that is being written.
pub(crate) struct BlockWriter<'a> {
    pub(crate) encoder: &'a mut Encoder,
    pub(crate) out: &'a mut Vec<u8>,
    /// Where a target is put together.
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

    /// Writes the block of a request.
    //= rfc9113#8.3.1
    // Method, scheme, authority and path; of CONNECT method and authority.
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
        // None is made up where there was none, as in HTTP/1.0.
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
            // OPTIONS of a whole server is an asterisk.
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
        // What lies together on the wire, as nearly always, is one value already.
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

    /// Writes the block of a response to `method`.
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
        // No Content-Length in 1xx and 204; in answers to HEAD and in 304 it may stay.
        let keeps_length = has_no_body(head.status, method)
            && !matches!(head.status, 100..=199 | 204)
            && !matches!((method, head.status), (Method::Connect, 200..=299));
        let body = match framing.body {
            BodyKind::Length(_) if has_no_body(head.status, method) => BodyKind::None,
            body => body,
        };
        self.fields(block, head, edits, body, !keeps_length);
    }

    /// Writes the fields that stay, those that are added, and the length.
    //= rfc9113#8.2.2
    // No field of one connection is written, whatever the head holds.
    fn fields(
        &mut self,
        block: &[u8],
        head: &Head,
        edits: &Edits,
        body: BodyKind,
        drops_length: bool,
    ) {
        for field in head.iter() {
            let is_skipped = match field.id {
                FieldId::Connection
                | FieldId::KeepAlive
                | FieldId::ProxyConnection
                | FieldId::TransferEncoding
                | FieldId::Upgrade
                | FieldId::Te
                | FieldId::Host
                | FieldId::Http2Settings => true,
                FieldId::ContentLength => drops_length,
                _ => false,
            };
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
    // What must not be indexed stays so on every hop.
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
