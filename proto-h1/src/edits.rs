//! What the proxy adds to a head and replaces in it.

use alloc::vec::Vec;

use crate::head::Span;
use crate::scan;

/// Changes that the encoder applies to a [`Head`](crate::Head). Reused from message to message.
///
/// Added fields are stored as finished HTTP/1.1 lines in one buffer, so the encoder adds all of
/// them with one copy. [`Edits::iter`] gives other encoders the names and values.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    lines: Vec<u8>,
    added: Vec<(Span, Span)>,
    text: Vec<u8>,
    path: Option<Span>,
    authority: Option<Span>,
}

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
    }

    /// Marks the current state for [`Edits::rewind`]. Fields that many messages share are written
    /// once.
    #[must_use]
    pub fn mark(&self) -> EditsMark {
        EditsMark {
            lines: self.lines.len(),
            added: self.added.len(),
        }
    }

    /// Goes back to the state at `mark` and drops the replaced path and host.
    pub fn rewind(&mut self, mark: EditsMark) {
        self.lines.truncate(mark.lines);
        self.added.truncate(mark.added);
        self.text.clear();
        (self.path, self.authority) = (None, None);
    }

    /// Adds a field.
    ///
    /// Bytes that a value may not contain become spaces, and bytes that a name may not contain are
    /// dropped, so an edit cannot end its line (RFC 9110, section 5.5).
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
        let value_end = self.lines.len();
        self.lines.extend_from_slice(b"\r\n");
        self.added
            .push((Span::new(name_at, name_end), Span::new(value_at, value_end)));
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
        let value_end = self.lines.len();
        self.lines.extend_from_slice(b"\r\n");
        self.added
            .push((Span::new(name_at, name_end), Span::new(value_at, value_end)));
    }

    /// Adds a field with a value of fixed length, which is cheaper. The rules of [`Edits::append`]
    /// apply; the name must be a token.
    #[inline]
    pub fn append_fixed<const N: usize>(&mut self, name: &str, value: &[u8; N]) {
        debug_assert!(scan::is_token(name.as_bytes()), "a field name is a token");
        if !scan::is_visible(value) {
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
        self.added.push((Span::new(name_at, name_end), value));
    }

    /// The names and values of the added fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.added
            .iter()
            .map(|(name, value)| (name.get(&self.lines), value.get(&self.lines)))
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

    /// The added fields as HTTP/1.1 lines.
    #[inline]
    pub(crate) fn lines(&self) -> &[u8] {
        &self.lines
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
        for &byte in text {
            if matches!(byte, b'"' | b'\\') {
                self.0.push(b'\\');
            }
            push_value(self.0, &[byte]);
        }
        self.0.push(b'"');
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
