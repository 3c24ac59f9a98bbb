//! Known names, and the rules for names and values.

use weir_proto_h1::{FieldId, is_token};

/// A pseudo-field (RFC 9113, section 8.3; RFC 8441, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PseudoField {
    /// `:method`
    Method,
    /// `:scheme`
    Scheme,
    /// `:authority`
    Authority,
    /// `:path`
    Path,
    /// `:status`
    Status,
    /// `:protocol`, of an extended CONNECT.
    Protocol,
}

impl PseudoField {
    /// Finds the pseudo-field of a name with its colon.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b":method" => Some(Self::Method),
            b":scheme" => Some(Self::Scheme),
            b":authority" => Some(Self::Authority),
            b":path" => Some(Self::Path),
            b":status" => Some(Self::Status),
            b":protocol" => Some(Self::Protocol),
            _ => None,
        }
    }

    /// The name with its colon.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Method => ":method",
            Self::Scheme => ":scheme",
            Self::Authority => ":authority",
            Self::Path => ":path",
            Self::Status => ":status",
            Self::Protocol => ":protocol",
        }
    }
}

/// The identity of a known name: at most one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameId {
    pub(super) id: FieldId,
    pub(super) pseudo: Option<PseudoField>,
}

impl NameId {
    pub(super) const UNKNOWN: Self = Self::field(FieldId::Other);

    pub(super) const fn field(id: FieldId) -> Self {
        Self { id, pseudo: None }
    }

    pub(super) const fn pseudo(pseudo: PseudoField) -> Self {
        Self {
            id: FieldId::Other,
            pseudo: Some(pseudo),
        }
    }

    /// Identifies a name from the wire. HTTP/2 has no names in upper case (RFC 9113, section
    /// 8.2.1), but they are identified so that they can be refused.
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            [b':', ..] => Self {
                id: FieldId::Other,
                pseudo: PseudoField::from_name(name),
            },
            _ => Self::field(FieldId::from_name(name)),
        }
    }

    /// A number for each known name: 0 for an unknown one, otherwise below [`NAME_CODES`].
    pub(super) const fn code(self) -> u8 {
        match self.pseudo {
            Some(pseudo) => 64 + pseudo as u8,
            None => self.id as u8,
        }
    }
}

/// All codes are below this.
pub(super) const NAME_CODES: u8 = 64 + 6;

/// Returns whether a name is valid in HTTP/2: a token without upper case (RFC 9113, section 8.2.1;
/// RFC 9110, section 5.1), or a pseudo-field.
pub(super) fn is_name(name: &[u8]) -> bool {
    match name {
        [] => false,
        [b':', ..] => PseudoField::from_name(name).is_some(),
        _ => {
            let is_lower = || !name.iter().any(u8::is_ascii_uppercase);
            all(name, is_plain_name_byte) || (is_lower() && is_token(name))
        }
    }
}

/// Nearly all names consist of these.
#[inline]
const fn is_plain_name_byte(byte: u8) -> bool {
    (byte.wrapping_sub(b'a') < 26) | (byte.wrapping_sub(b'0') < 10) | (byte == b'-')
}

/// Returns whether a value is valid: visible bytes and those above ASCII, with spaces and tabs only
/// between them (RFC 9113, section 8.2.1; RFC 9110, section 5.5).
pub(super) fn is_value(value: &[u8]) -> bool {
    !matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']) && all(value, is_value_byte)
}

#[inline]
const fn is_value_byte(byte: u8) -> bool {
    ((byte >= 0x20) & (byte != 0x7f)) | (byte == b'\t')
}

/// Returns whether `holds` is true for all bytes. Loads 16 or 8 at a time; the last load overlaps
/// the one before. Written to be vectorized.
#[inline]
fn all(bytes: &[u8], holds: impl Fn(u8) -> bool + Copy) -> bool {
    let (chunks, rest) = bytes.as_chunks::<16>();
    let fits = match (bytes.last_chunk::<16>(), rest) {
        (_, []) => true,
        (Some(last), _) => all_of(last, holds),
        (None, _) => match (rest.first_chunk::<8>(), rest.last_chunk::<8>()) {
            (Some(first), Some(last)) => all_of(first, holds) & all_of(last, holds),
            _ => rest.iter().all(|&byte| holds(byte)),
        },
    };
    fits && chunks.iter().all(|chunk| all_of(chunk, holds))
}

#[inline]
fn all_of<const N: usize>(bytes: &[u8; N], holds: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |all, &byte| all & holds(byte))
}
