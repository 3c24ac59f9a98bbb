//! The neutral form of a message head: spans over the block that holds it.
//!
//! HTTP/1.1 and HTTP/2 parse into it and encode from it. It owns no bytes and keeps its capacity
//! between messages. What is public is for reading: changes go through
//! [`Head::remove`] and [`Edits`](crate::Edits), so that the encoder can copy what is untouched
//! straight from the wire.

use alloc::vec::Vec;

use crate::field::{FieldId, FieldSet};
use crate::framing::{BodyKind, list};

/// The head of one request or response.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The method, when it is a common one.
    pub method: Method,
    /// The method as received.
    pub method_span: Span,
    /// The version of the peer.
    pub version: Version,
    /// The target as received.
    pub target: Span,
    /// Which of the four forms the target has.
    pub form: TargetForm,
    /// The scheme of an absolute target; empty otherwise.
    pub scheme: Span,
    /// Host and port: of an absolute target, of CONNECT, else the value of Host; empty if none.
    pub authority: Span,
    /// The path; empty in authority-form, and in absolute-form without one (it then means `/`).
    pub path: Span,
    /// The query without its question mark.
    pub query: Span,
    /// Says whether there is a question mark, be the query empty or not.
    pub has_query: bool,
    /// The status of a response; 0 in a request.
    pub status: u16,
    /// The reason of a response, often empty.
    pub reason: Span,
    /// The field lines in the order received, removed ones included.
    pub fields: Vec<Field>,
    /// Bytes of the head in the block, from its first to the end of its empty line, with the empty
    /// lines that were passed over before it.
    pub len: u32,
    /// Which known names occur in `fields`.
    pub(crate) present: FieldSet,
    /// Which of them occurred more than once.
    pub(crate) repeated: FieldSet,
    /// Where the start line begins: after the empty lines passed over.
    pub(crate) start: u32,
    /// Where parsing goes on when more bytes have come: the first line not yet taken.
    pub(crate) cursor: u32,
    /// Up to where the line at `cursor` was already searched for its end.
    pub(crate) scanned: u32,
    /// Says whether the start line was taken.
    pub(crate) has_start_line: bool,
    /// Says whether the lines in the block are well-formed HTTP/1.1, so that runs of them can be copied.
    pub(crate) has_wire_lines: bool,
    /// Says whether the start line on the wire is the one that would be written.
    pub(crate) has_plain_start_line: bool,
    /// The status on the wire, to notice a change.
    pub(crate) wire_status: u16,
    /// Says whether a field has an odd name: see [`guard`](crate::guard).
    pub(crate) has_odd_names: bool,
    /// The framing that the fields on the wire say in the very form that would be written.
    pub(crate) wire_framing: Option<BodyKind>,
}

impl Head {
    /// Makes an empty head that allocates when fields come.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a response head with a status and no fields. It needs no block.
    #[must_use]
    pub fn with_status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// Empties the head for the next message and keeps its capacity.
    pub fn clear(&mut self) {
        let mut fields = core::mem::take(&mut self.fields);
        fields.clear();
        *self = Self {
            fields,
            ..Self::default()
        };
    }

    /// Adds a field whose name and value lie in the block. For parsers of other versions.
    #[inline]
    pub fn push(&mut self, id: FieldId, name: Span, value: Span) {
        self.repeated.add_if(id, self.present);
        self.present.add(id);
        self.fields.push(Field {
            id,
            name,
            value,
            ..Field::default()
        });
    }

    /// Says that the name of the field added last is odd: see [`guard`](crate::guard).
    #[cold]
    pub fn mark_odd(&mut self) {
        self.has_odd_names = true;
        if let Some(last) = self.fields.last_mut() {
            last.is_odd = true;
        }
    }

    /// Removes every field of a known name; it will not be encoded. Returns how many there were.
    pub fn remove(&mut self, id: FieldId) -> usize {
        if !self.present.has(id) {
            return 0;
        }
        if id != FieldId::Other {
            self.present.drop(id);
        }
        let mut count = 0;
        for field in self
            .fields
            .iter_mut()
            .filter(|field| field.id == id && !field.is_removed)
        {
            field.is_removed = true;
            count += 1;
        }
        count
    }

    /// Removes every field of a set of names.
    pub(crate) fn remove_set(&mut self, set: FieldSet) {
        for field in &mut self.fields {
            field.is_removed |= set.has(field.id);
        }
        self.present = self.present.without(set);
    }

    /// Says whether a field of this name may be there. False is certain and costs one test.
    #[inline]
    #[must_use]
    pub fn may_have(&self, id: FieldId) -> bool {
        self.present.has(id)
    }

    /// The first field of a known name that was not removed.
    #[inline]
    #[must_use]
    pub fn find(&self, id: FieldId) -> Option<&Field> {
        if self.present.has(id) {
            self.all(id).next()
        } else {
            None
        }
    }

    /// Every field of a known name that was not removed.
    #[inline]
    pub fn all(&self, id: FieldId) -> impl Iterator<Item = &Field> {
        self.fields
            .iter()
            .filter(move |field| field.id == id && !field.is_removed)
    }

    /// The elements of the comma-separated list that all fields of a known name make together,
    /// trimmed; empty ones too.
    #[inline]
    pub fn elements<'b>(&self, id: FieldId, block: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        self.all(id).flat_map(|field| list(field.value.get(block)))
    }

    /// The first field of a name, known or not, that was not removed.
    #[must_use]
    pub fn find_name(&self, name: &[u8], block: &[u8]) -> Option<&Field> {
        match FieldId::from_name(name) {
            FieldId::Other => self.fields.iter().find(|field| field.is_named(name, block)),
            id => self.find(id),
        }
    }

    /// The value of the first field of a known name.
    #[inline]
    #[must_use]
    pub fn value<'b>(&self, id: FieldId, block: &'b [u8]) -> Option<&'b [u8]> {
        self.find(id).map(|field| field.value.get(block))
    }

    /// Every field that was not removed.
    pub fn iter(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.is_removed)
    }

    /// The path that the request is for: where an absolute target has none, it is `/`, or `*` if the request asks for
    /// the options of a whole server.
    //= rfc9112#3.2.4
    // `OPTIONS http://host` has no path on purpose and means what `OPTIONS *` does.
    #[must_use]
    pub fn effective_path<'b>(&self, block: &'b [u8]) -> &'b [u8] {
        if self.path.is_empty() && self.form == TargetForm::Absolute {
            return match self.method {
                Method::Options if !self.has_query => b"*",
                _ => b"/",
            };
        }
        self.path.get(block)
    }

    /// The authority, which was found valid, without its port.
    #[inline]
    #[must_use]
    pub fn host<'b>(&self, block: &'b [u8]) -> &'b [u8] {
        let authority = self.authority.get(block);
        let digits = authority
            .iter()
            .rev()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        match authority.split_at_checked(authority.len() - digits) {
            Some(([host @ .., b':'], _)) => host,
            _ => authority,
        }
    }

    /// Says whether the whole head has been parsed.
    #[inline]
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.len != 0
    }
}

/// One field line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// The name, when it is known.
    pub id: FieldId,
    /// The name as received.
    pub name: Span,
    /// The value without the white space around it.
    pub value: Span,
    /// Says whether the field is dropped: it will not be encoded.
    pub is_removed: bool,
    /// Says that no intermediary may compress it with what it said before (RFC 7541, section 6.2.3).
    /// Peers say so over HTTP/2 only.
    pub is_sensitive: bool,
    /// Says that endpoints may take the name for another: see [`guard`](crate::guard).
    pub(crate) is_odd: bool,
    /// Says that its peer may not send the field: neither routes nor endpoints see it.
    pub is_refused: bool,
    /// Says that it is refused for its odd name alone, and may come back.
    pub(crate) is_restorable: bool,
}

impl Field {
    fn is_named(&self, name: &[u8], block: &[u8]) -> bool {
        !self.is_removed
            && self.id == FieldId::Other
            && self.name.get(block).eq_ignore_ascii_case(name)
    }
}

/// A run of bytes in the block that holds a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset after the last byte.
    pub end: u32,
}

impl Span {
    /// No bytes.
    pub const EMPTY: Self = Self { start: 0, end: 0 };

    /// Makes a span from two offsets. Blocks are far below 4 GiB.
    #[inline]
    #[must_use]
    pub const fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    /// The bytes, or none when the block does not reach so far.
    #[inline]
    #[must_use]
    pub fn get<'b>(&self, block: &'b [u8]) -> &'b [u8] {
        block
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// The number of bytes.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Says whether there are no bytes.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// A request method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the variants are the methods' own names")]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Connect,
    Trace,
    /// Any other token; see [`Head::method_span`].
    Other,
}

impl Method {
    /// Finds the method of a token. Methods are case-sensitive (RFC 9110, section 9.1).
    #[must_use]
    pub fn from_token(token: &[u8]) -> Self {
        match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"CONNECT" => Self::Connect,
            b"TRACE" => Self::Trace,
            _ => Self::Other,
        }
    }

    /// Says whether doing it twice does no more than once (RFC 9110, section 9.2.2).
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }

    /// Says whether it asks for nothing but an answer (RFC 9110, section 9.2.1).
    #[must_use]
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }

    /// The token of a known method; empty for [`Method::Other`].
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Patch => "PATCH",
            Self::Connect => "CONNECT",
            Self::Trace => "TRACE",
            Self::Other => "",
        }
    }
}

/// The version a peer speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1, and any later minor version (RFC 9110, section 2.5).
    #[default]
    Http11,
    /// HTTP/2. The head came from another parser than this crate's.
    Http2,
}

/// The form of a request target (RFC 9112, section 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TargetForm {
    /// `/path?query`.
    #[default]
    Origin,
    /// `http://host/path?query`, which overrides Host.
    Absolute,
    /// `host:port`, for CONNECT only.
    Authority,
    /// `*`, for OPTIONS only.
    Asterisk,
}
