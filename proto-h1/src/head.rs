//! Message heads, in a form that HTTP/1.1 and HTTP/2 share: spans over the block that holds the
//! bytes.
//!
//! The parsers of both versions fill a [`Head`] and their encoders read it. A head owns no bytes
//! and keeps its capacity between messages. Callers read the public fields and change a head only
//! through [`Head::remove`] and [`Edits`](crate::Edits), so the encoder can copy unchanged lines
//! from the wire.

use alloc::vec::Vec;

use crate::field::{FieldId, FieldSet};
use crate::framing::{BodyKind, list};

/// The head of one request or response.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// The method, [`Method::Other`] if it is not a common one.
    pub method: Method,
    /// The method as received.
    pub method_span: Span,
    /// The version that the sender speaks.
    pub version: Version,
    /// The target as received.
    pub target: Span,
    /// The form of the target.
    pub form: TargetForm,
    /// The scheme of an absolute target; empty otherwise.
    pub scheme: Span,
    /// Host and port: those of an absolute target or a CONNECT target, else the value of Host; may
    /// be empty.
    pub authority: Span,
    /// The path. Empty in authority-form, and in absolute-form without a path, where it means `/`.
    pub path: Span,
    /// The query without its question mark.
    pub query: Span,
    /// Whether the target has a question mark, even with an empty query.
    pub has_query: bool,
    /// The status of a response; 0 in a request.
    pub status: u16,
    /// The reason phrase of a response, often empty.
    pub reason: Span,
    /// The field lines in the order received, including removed ones.
    pub fields: Vec<Field>,
    /// Bytes of the head in the block, including skipped empty lines before it and the empty line
    /// that ends it. 0 until the head is complete.
    pub len: u32,
    /// The known names in `fields`.
    pub(crate) present: FieldSet,
    /// The known names that occurred more than once.
    pub(crate) repeated: FieldSet,
    /// Where the start line begins, after skipped empty lines.
    pub(crate) start: u32,
    /// The first line that was not parsed yet. Parsing resumes here.
    pub(crate) cursor: u32,
    /// The end of the bytes in which no line end was found, so that no byte is searched twice.
    pub(crate) scanned: u32,
    /// Whether the start line was parsed.
    pub(crate) has_start_line: bool,
    /// Whether the block holds well-formed HTTP/1.1 lines, so the encoder may copy runs of them.
    pub(crate) has_wire_lines: bool,
    /// Whether the encoder would write the start line as it is on the wire.
    pub(crate) has_plain_start_line: bool,
    /// The status on the wire. It differs from `status` if the caller changed that.
    pub(crate) wire_status: u16,
    /// Whether a field has an odd name: see [`guard`](crate::guard).
    pub(crate) has_odd_names: bool,
    /// The framing that the fields on the wire declare, if the encoder would write them as they
    /// are.
    pub(crate) wire_framing: Option<BodyKind>,
}

impl Head {
    /// Makes an empty head. It allocates when the first field is added.
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

    /// Adds a field whose name and value lie in the block. For parsers of other HTTP versions.
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

    /// Marks the name of the last field as odd: see [`guard`](crate::guard).
    #[cold]
    pub fn mark_odd(&mut self) {
        self.has_odd_names = true;
        if let Some(last) = self.fields.last_mut() {
            last.is_odd = true;
        }
    }

    /// Removes every field of a known name, so that it is not encoded. Returns how many there were.
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

    /// Removes every field whose name is in the set.
    pub(crate) fn remove_set(&mut self, set: FieldSet) {
        for field in &mut self.fields {
            field.is_removed |= set.has(field.id);
        }
        self.present = self.present.without(set);
    }

    /// Returns false if no field has this name. True only means that one may have it, removed or
    /// not.
    #[inline]
    #[must_use]
    pub fn may_have(&self, id: FieldId) -> bool {
        self.present.has(id)
    }

    /// The first remaining field of a known name.
    #[inline]
    #[must_use]
    pub fn find(&self, id: FieldId) -> Option<&Field> {
        if self.present.has(id) {
            self.all(id).next()
        } else {
            None
        }
    }

    /// Every remaining field of a known name.
    #[inline]
    pub fn all(&self, id: FieldId) -> impl Iterator<Item = &Field> {
        self.fields
            .iter()
            .filter(move |field| field.id == id && !field.is_removed)
    }

    /// The trimmed elements of the comma-separated list that all fields of a known name form
    /// together, including empty elements.
    #[inline]
    pub fn elements<'b>(&self, id: FieldId, block: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        self.all(id).flat_map(|field| list(field.value.get(block)))
    }

    /// The first remaining field of a name, known or not.
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

    /// Every remaining field.
    pub fn iter(&self) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(|field| !field.is_removed)
    }

    /// The values of every field line with this name, whose id is `id`, as the client sent them. Fields that the client
    /// may not send do not count.
    pub fn sent_values<'b>(
        &self,
        id: FieldId,
        name: &'b [u8],
        block: &'b [u8],
    ) -> impl Iterator<Item = &'b [u8]> + use<'_, 'b> {
        let is_it = move |field: &&Field| {
            field.id == id
                && !field.is_refused
                && (id != FieldId::Other || field.name.get(block).eq_ignore_ascii_case(name))
        };
        let fields = self.fields.iter().filter(is_it);
        fields.map(move |field| field.value.get(block))
    }

    /// The values of every cookie of this name, as the client wrote them. HTTP/2 clients may split
    /// the field, and some clients of HTTP/1.1 send several: all of them count.
    //= rfc6265#4.2.1
    // Pairs stand in one field with "; " between them. The case of names matters.
    pub fn cookies<'b>(
        &self,
        name: &'b [u8],
        block: &'b [u8],
    ) -> impl Iterator<Item = &'b [u8]> + use<'_, 'b> {
        let fields = self.fields.iter();
        let is_cookie = |field: &&Field| field.id == FieldId::Cookie && !field.is_refused;
        let pairs = fields
            .filter(is_cookie)
            .flat_map(move |field| field.value.get(block).split(|&byte| byte == b';'));
        pairs.filter_map(move |pair| {
            let at = pair.iter().position(|&byte| byte == b'=')?;
            let (key, value) = pair.split_at_checked(at)?;
            let value = value.get(1..).unwrap_or_default();
            (key.trim_ascii() == name).then(|| value.trim_ascii())
        })
    }

    /// The path of the request. If an absolute target has none, it is `/`, or `*` for OPTIONS
    /// without a query, which asks about the whole server.
    //= rfc9112#3.2.4
    // `OPTIONS http://host` has no path on purpose and means the same as `OPTIONS *`.
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

    /// The authority without its port. The parser has validated it.
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

    /// Returns whether the parser has reached the end of the head.
    #[inline]
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.len != 0
    }
}

/// One field line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Field {
    /// The known name, or [`FieldId::Other`].
    pub id: FieldId,
    /// The name as received.
    pub name: Span,
    /// The value without surrounding whitespace.
    pub value: Span,
    /// Whether the field was removed. The encoder skips it.
    pub is_removed: bool,
    /// Whether no intermediary may index the field for compression (RFC 7541, section 6.2.3). Only
    /// HTTP/2 peers can ask for that.
    pub is_sensitive: bool,
    /// Whether endpoints may mistake the name for another: see [`guard`](crate::guard).
    pub(crate) is_odd: bool,
    /// Whether the peer may not send this field. Neither routes nor endpoints see it.
    pub is_refused: bool,
    /// Whether only its odd name caused the removal, so that the field can be restored.
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

    /// Makes a span from two offsets. Blocks are far smaller than 4 GiB.
    #[inline]
    #[must_use]
    pub const fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Self {
            start: start as u32,
            end: end as u32,
        }
    }

    /// The bytes, or none if the block is too short.
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

    /// Returns whether there are no bytes.
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

    /// Returns whether repeating the request has no further effect (RFC 9110, section 9.2.2).
    #[must_use]
    pub const fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Self::Put | Self::Delete)
    }

    /// Returns whether the request only retrieves something (RFC 9110, section 9.2.1).
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

/// The version that a peer speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1, and any later minor version (RFC 9110, section 2.5).
    #[default]
    Http11,
    /// HTTP/2. Another crate's parser filled the head.
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
