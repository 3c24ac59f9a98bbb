//! What the proxy adds to a head, replaces in it and leaves out of it.

use alloc::vec::Vec;

use crate::encode::{CONNECTION_FIELDS, Sink};
use crate::field::{FieldId, FieldSet};
use crate::framing::BODY_FIELDS;
use crate::head::Span;
use crate::scan;

/// Changes that the encoder applies to a [`Head`](crate::Head). Reused from message to message.
///
/// Added fields are stored as finished HTTP/1.1 lines in one buffer, so the encoder adds all of
/// them with one copy. [`Edits::iter`] gives other encoders the names and values.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    lines: Vec<u8>,
    added: Vec<AddedField>,
    text: Vec<u8>,
    path: Option<Span>,
    authority: Option<Span>,
    /// The known names to leave out. Has [`FieldId::Other`] if `removed_names` is not empty.
    removed: FieldSet,
    /// The other names to leave out, each with a colon after it.
    removed_names: Vec<u8>,
    /// How many times [`Edits::remove`] was called.
    removals: u32,
    /// Whether a removal dropped one of the `added` fields.
    has_dropped: bool,
}

/// A field in `lines`. A dropped one stays there, because [`Edits::rewind`] may bring it back.
#[derive(Clone, Copy, Debug)]
struct AddedField {
    name: Span,
    value: Span,
    /// The removal that dropped the field, counted from 1; 0 if none did.
    dropped_by: u32,
}

/// Fields that the encoders write themselves, so no edit removes them.
//= rfc9110#7.6.1
// The framing of a message and the fields for the next hop belong to the connection.
const FIXED: FieldSet = CONNECTION_FIELDS
    .with(BODY_FIELDS)
    .with(FieldSet::of(&[FieldId::Host, FieldId::Http2Settings]));

impl Edits {
    /// Makes an empty set of edits. It allocates when the first edit is added.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Removes all edits and keeps the capacity.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.added.clear();
        self.text.clear();
        (self.path, self.authority) = (None, None);
        if self.removals > 0 {
            self.undo_removals(EditsMark::default());
        }
    }

    /// Makes room for added fields of these many bytes, names included. Without it, memory grows in
    /// steps.
    pub fn reserve(&mut self, fields: usize, bytes: usize) {
        self.added.reserve(fields);
        self.lines.reserve(bytes);
    }

    /// Marks the current state for [`Edits::rewind`]. Fields that many messages share are written
    /// once.
    #[must_use]
    pub fn mark(&self) -> EditsMark {
        EditsMark {
            lines: self.lines.len(),
            added: self.added.len(),
            text: self.text.len(),
            path: self.path,
            authority: self.authority,
            removed: self.removed,
            removed_names: self.removed_names.len(),
            removals: self.removals,
        }
    }

    /// Goes back to the state at `mark`. There must have been no rewind to an earlier mark since.
    pub fn rewind(&mut self, mark: EditsMark) {
        self.lines.truncate(mark.lines);
        self.added.truncate(mark.added);
        self.text.truncate(mark.text);
        (self.path, self.authority) = (mark.path, mark.authority);
        if self.removals > mark.removals {
            self.undo_removals(mark);
        }
    }

    #[cold]
    fn undo_removals(&mut self, mark: EditsMark) {
        self.removed = mark.removed;
        self.removed_names.truncate(mark.removed_names);
        self.removals = mark.removals;
        self.has_dropped = false;
        for field in &mut self.added {
            if field.dropped_by > mark.removals {
                field.dropped_by = 0;
            }
            self.has_dropped |= field.dropped_by > 0;
        }
    }

    /// Leaves out every field of a name, in any case: those of the message, and those that were
    /// added before. Fields that are added afterwards are written.
    ///
    /// The head is not changed, so callers still see what was received. Framing, hop-by-hop fields
    /// and Host are not removed, because the encoders write them.
    pub fn remove(&mut self, name: impl AsRef<[u8]>) {
        let name = name.as_ref();
        let id = FieldId::from_name(name);
        if FIXED.has(id) || !scan::is_token(name) {
            return;
        }
        if id == FieldId::Other && !self.removes_name(name) {
            self.removed_names.extend_from_slice(name);
            self.removed_names.push(b':');
        }
        self.removed.add(id);
        self.removals += 1;
        for field in &mut self.added {
            let is_named = field.name.get(&self.lines).eq_ignore_ascii_case(name);
            if is_named && field.dropped_by == 0 {
                field.dropped_by = self.removals;
                self.has_dropped = true;
            }
        }
    }

    /// The known names to leave out. If it has [`FieldId::Other`], ask [`Edits::removes_name`]
    /// about each field with an unknown name.
    #[inline]
    #[must_use]
    pub fn removed(&self) -> FieldSet {
        self.removed
    }

    /// Whether fields of this name, which is not a known one, are left out.
    #[must_use]
    pub fn removes_name(&self, name: &[u8]) -> bool {
        self.removed_names
            .split(|&byte| byte == b':')
            .any(|removed| removed.eq_ignore_ascii_case(name))
    }

    /// Whether fields with this name are left out of the message.
    #[inline]
    #[must_use]
    pub fn removes(&self, id: FieldId, name: &[u8]) -> bool {
        self.removed.has(id) && (id != FieldId::Other || self.removes_name(name))
    }

    /// Adds a field.
    ///
    /// Bytes that a value may not contain become spaces, blanks at its ends are dropped, and so are
    /// bytes that a name may not contain. So an edit cannot end its line (RFC 9110, section 5.5).
    pub fn append(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.append_pieces(name, &[value.as_ref()]);
    }

    /// Adds a field whose value is the concatenation of `pieces`. The rules of [`Edits::append`]
    /// apply.
    pub fn append_pieces(&mut self, name: impl AsRef<[u8]>, pieces: &[&[u8]]) {
        let name = name.as_ref();
        debug_assert!(scan::is_token(name), "a field name is a token");
        let name_at = self.lines.len();
        if scan::is_token(name) {
            self.lines.extend_from_slice(name);
        } else {
            self.lines
                .extend(name.iter().filter(|&&byte| scan::is_token_byte(byte)));
            if self.lines.len() == name_at {
                return;
            }
        }
        let name_end = self.lines.len();
        self.lines.extend_from_slice(b": ");
        let value_at = self.lines.len();
        let mut value = ValueWriter(&mut self.lines);
        pieces.iter().for_each(|piece| value.put(piece));
        self.end_line(Span::new(name_at, name_end), value_at);
    }

    /// Adds a field whose value `write` produces. The rules of [`Edits::append`] apply; the name
    /// must be a token.
    pub fn append_with(&mut self, name: &str, write: impl FnOnce(&mut ValueWriter<'_>)) {
        debug_assert!(scan::is_token(name.as_bytes()), "a field name is a token");
        let name_at = self.lines.len();
        self.lines.extend_from_slice(name.as_bytes());
        let name_end = self.lines.len();
        self.lines.extend_from_slice(b": ");
        let value_at = self.lines.len();
        write(&mut ValueWriter(&mut self.lines));
        self.end_line(Span::new(name_at, name_end), value_at);
    }

    /// Adds a field as [`Edits::append_with`] does, unless its value is empty.
    pub fn append_unless_empty(&mut self, name: &str, write: impl FnOnce(&mut ValueWriter<'_>)) {
        let start = self.lines.len();
        self.append_with(name, write);
        if self.added.last().is_some_and(|last| last.value.is_empty()) {
            self.added.pop();
            self.lines.truncate(start);
        }
    }

    /// Ends the line of a field whose value begins at `value_at`.
    //= rfc9113#8.2.1
    // A value that begins or ends with a blank makes the message malformed.
    fn end_line(&mut self, name: Span, mut value_at: usize) {
        let value = self.lines.get(value_at..).unwrap_or_default();
        value_at += value.len() - value.trim_ascii_start().len();
        let blanks = value.len() - value.trim_ascii_end().len();
        let value_end = (self.lines.len() - blanks).max(value_at);
        self.lines.truncate(value_end);
        self.lines.extend_from_slice(b"\r\n");
        self.push_added(name, Span::new(value_at, value_end));
    }

    /// Adds a field with a value of fixed length, which is cheaper. The rules of [`Edits::append`]
    /// apply; the name must be a token.
    #[inline]
    pub fn append_fixed<const N: usize>(&mut self, name: &str, value: &[u8; N]) {
        debug_assert!(scan::is_token(name.as_bytes()), "a field name is a token");
        let has_blank_end = value.first() == Some(&b' ') || value.last() == Some(&b' ');
        if has_blank_end || !scan::is_visible(value) {
            return self.append(name, value);
        }
        let name_at = self.lines.len();
        let (name_end, value_at) = (name_at + name.len(), name_at + name.len() + 2);
        self.lines.reserve(name.len() + N + 4);
        self.lines.extend_from_slice(name.as_bytes());
        self.lines.extend_from_slice(b": ");
        self.lines.extend_from_slice(value);
        self.lines.extend_from_slice(b"\r\n");
        let value = Span::new(value_at, value_at + N);
        self.push_added(Span::new(name_at, name_end), value);
    }

    #[inline]
    fn push_added(&mut self, name: Span, value: Span) {
        self.added.push(AddedField {
            name,
            value,
            dropped_by: 0,
        });
    }

    /// The names and values of the added fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let kept = self.added.iter().filter(|field| field.dropped_by == 0);
        kept.map(|field| (field.name.get(&self.lines), field.value.get(&self.lines)))
    }

    /// Replaces the path to forward. The query stays.
    ///
    /// Bytes that a target may not contain are percent-encoded.
    pub fn set_path(&mut self, path: &[u8]) {
        self.path = Some(self.put_target(path));
    }

    /// Replaces the host to forward.
    pub fn set_authority(&mut self, authority: &[u8]) {
        let start = self.text.len();
        push_value(&mut self.text, authority);
        self.authority = Some(Span::new(start, self.text.len()));
    }

    /// The replacement path, if any.
    #[must_use]
    pub fn path(&self) -> Option<&[u8]> {
        self.path.map(|span| span.get(&self.text))
    }

    /// The replacement host, if any.
    #[must_use]
    pub fn authority(&self) -> Option<&[u8]> {
        self.authority.map(|span| span.get(&self.text))
    }

    /// Writes the added fields as HTTP/1.1 lines.
    #[inline]
    pub(crate) fn put_lines<S: Sink>(&self, sink: &mut S) {
        if self.has_dropped {
            return self.put_kept_lines(sink);
        }
        sink.put(&self.lines);
    }

    #[cold]
    fn put_kept_lines<S: Sink>(&self, sink: &mut S) {
        for field in self.added.iter().filter(|field| field.dropped_by == 0) {
            // A line ends with CR LF after its value.
            let (start, end) = (field.name.start, field.value.end + 2);
            sink.put(Span { start, end }.get(&self.lines));
        }
    }

    fn put_target(&mut self, bytes: &[u8]) -> Span {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let start = self.text.len();
        for &byte in bytes {
            if matches!(byte, 0x21..=0x7e) && byte != b'#' {
                self.text.push(byte);
            } else {
                let digit = |value: u8| HEX.get(usize::from(value & 15)).copied().unwrap_or(b'0');
                self.text
                    .extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
            }
        }
        Span::new(start, self.text.len())
    }
}

/// Writes the value of a field.
#[derive(Debug)]
pub struct ValueWriter<'e>(&'e mut Vec<u8>);

impl ValueWriter<'_> {
    /// Appends a piece. Bytes that a value may not contain become spaces.
    pub fn put(&mut self, piece: &[u8]) {
        push_value(self.0, piece);
    }

    /// Appends `text` as a quoted string that `text` cannot end early.
    //= rfc9110#5.6.4
    // A backslash escapes quotes and backslashes.
    pub fn put_quoted(&mut self, text: &[u8]) {
        self.0.push(b'"');
        for part in text.split_inclusive(|byte| matches!(byte, b'"' | b'\\')) {
            match part.split_last() {
                Some((mark @ (b'"' | b'\\'), rest)) => {
                    push_value(self.0, rest);
                    self.0.extend_from_slice(&[b'\\', *mark]);
                }
                _ => push_value(self.0, part),
            }
        }
        self.0.push(b'"');
    }
}

impl core::fmt::Write for ValueWriter<'_> {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

fn push_value(out: &mut Vec<u8>, value: &[u8]) {
    if scan::value_end(value, 0) == value.len() {
        out.extend_from_slice(value);
    } else {
        out.extend(
            value
                .iter()
                .map(|&b| if scan::is_value_byte(b) { b } else { b' ' }),
        );
    }
}

/// A state of [`Edits`] to go back to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EditsMark {
    lines: usize,
    added: usize,
    text: usize,
    path: Option<Span>,
    authority: Option<Span>,
    removed: FieldSet,
    removed_names: usize,
    removals: u32,
}

/// A decimal number, for values made of pieces. Does not allocate.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: [u8; 20],
    start: u8,
}

impl Decimal {
    /// Formats a number.
    #[must_use]
    pub fn new(mut number: u64) -> Self {
        let mut digits = [b'0'; 20];
        let mut start = 20u8;
        for slot in digits.iter_mut().rev() {
            *slot = b'0' + (number % 10) as u8;
            start -= 1;
            number /= 10;
            if number == 0 {
                break;
            }
        }
        Self { digits, start }
    }

    /// The digits.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.digits
            .get(usize::from(self.start)..)
            .unwrap_or_default()
    }
}
