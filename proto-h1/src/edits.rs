//! What the proxy adds to a head or replaces in it.

use alloc::vec::Vec;

use crate::head::Span;
use crate::scan;

/// Changes laid over a [`Head`](crate::Head) when it is encoded. Reused between messages.
///
/// Added fields are kept as finished HTTP/1.1 lines in one arena, so adding all of them to a head
/// is one copy; [`Edits::iter`] gives names and values to other encoders.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    lines: Vec<u8>,
    added: Vec<(Span, Span)>,
    text: Vec<u8>,
    path: Option<Span>,
    authority: Option<Span>,
}

impl Edits {
    /// Makes an empty set of edits that allocates when something is added.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything and keeps the capacity.
    pub fn clear(&mut self) {
        self.lines.clear();
        self.added.clear();
        self.text.clear();
        (self.path, self.authority) = (None, None);
    }

    /// Remembers what is there now, for [`Edits::rewind`]: fields that are the same for many messages are made once.
    #[must_use]
    pub fn mark(&self) -> EditsMark {
        EditsMark {
            lines: self.lines.len(),
            added: self.added.len(),
        }
    }

    /// Goes back to what was there at a mark of these edits. Replaced paths and hosts are forgotten.
    pub fn rewind(&mut self, mark: EditsMark) {
        self.lines.truncate(mark.lines);
        self.added.truncate(mark.added);
        self.text.clear();
        (self.path, self.authority) = (None, None);
    }

    /// Adds a field.
    ///
    /// Bytes that no value may hold become spaces and such a name loses them, so that nothing an
    /// edit is made of can end a line (RFC 9110, section 5.5).
    pub fn append(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.append_pieces(name, &[value.as_ref()]);
    }

    /// Adds a field whose value is the pieces one after the other. The same rules as for
    /// [`Edits::append`].
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

    /// Adds a field whose value is written piece by piece. The same rules as for [`Edits::append`]; the name has to be a
    /// token.
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

    /// Adds a field whose value has a fixed length, which is cheaper. The same rules as for [`Edits::append`]; the name has
    /// to be a token.
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

    /// The added fields, names and values, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.added
            .iter()
            .map(|(name, value)| (name.get(&self.lines), value.get(&self.lines)))
    }

    /// Replaces the path that is forwarded. The query stays.
    ///
    /// Bytes that no target may hold are percent-encoded.
    pub fn set_path(&mut self, path: &[u8]) {
        self.path = Some(self.put_target(path));
    }

    /// Replaces the host that is forwarded.
    pub fn set_authority(&mut self, authority: &[u8]) {
        let start = self.text.len();
        push_value(&mut self.text, authority);
        self.authority = Some(Span::new(start, self.text.len()));
    }

    /// The path to forward, if it is replaced.
    #[must_use]
    pub fn path(&self) -> Option<&[u8]> {
        self.path.map(|span| span.get(&self.text))
    }

    /// The host to forward, if it is replaced.
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

/// A value that is being written.
#[derive(Debug)]
pub struct ValueWriter<'e>(&'e mut Vec<u8>);

impl ValueWriter<'_> {
    /// Adds a piece. Bytes that no value may hold become spaces.
    pub fn put(&mut self, piece: &[u8]) {
        push_value(self.0, piece);
    }

    /// Adds a text as a quoted string, which ends where the text does.
    //= rfc9110#5.6.4
    // Quotes and backslashes have a backslash before them.
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

/// A point in the making of [`Edits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EditsMark {
    lines: usize,
    added: usize,
}

/// A number in decimal, without allocation: for values made of pieces.
#[derive(Clone, Copy, Debug)]
pub struct Decimal {
    digits: [u8; 20],
    start: u8,
}

impl Decimal {
    /// Writes the digits of a number.
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
