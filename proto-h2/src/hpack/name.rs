//! What is known of a name.

use weir_proto_h1::{FieldId, is_token};

/// A field of the start line (RFC 9113, section 8.3; RFC 8441, section 4).
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
    /// Finds the pseudo-field of a name, colon included.
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

    /// The name, colon included.
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

/// What is known of a name: at most one of the two.
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

    /// Finds what is known of a name off the wire. Names in upper case are none that HTTP/2 has
    /// (RFC 9113, section 8.2.1), but known for the purpose of refusing them.
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            [b':', ..] => Self {
                id: FieldId::Other,
                pseudo: PseudoField::from_name(name),
            },
            _ => Self::field(FieldId::from_name(name)),
        }
    }

    /// One number for each: 0 for a name in no list, below [`NAME_CODES`] for any other.
    pub(super) const fn code(self) -> u8 {
        match self.pseudo {
            Some(pseudo) => 64 + pseudo as u8,
            None => self.id as u8,
        }
    }
}

/// Below this are all codes of labels.
pub(super) const NAME_CODES: u8 = 64 + 6;

/// Says whether a name holds what a name in HTTP/2 may hold: a token without upper case (RFC 9113,
/// section 8.2.1; RFC 9110, section 5.1), or a pseudo-field.
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

/// What nearly all names are made of.
#[inline]
const fn is_plain_name_byte(byte: u8) -> bool {
    (byte.wrapping_sub(b'a') < 26) | (byte.wrapping_sub(b'0') < 10) | (byte == b'-')
}

/// Says whether a value holds what a value may hold: visible bytes, those above ASCII, and inside
/// it spaces and tabs (RFC 9113, section 8.2.1; RFC 9110, section 5.5).
pub(super) fn is_value(value: &[u8]) -> bool {
    !matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']) && all(value, is_value_byte)
}

#[inline]
const fn is_value_byte(byte: u8) -> bool {
    ((byte >= 0x20) & (byte != 0x7f)) | (byte == b'\t')
}

/// Says whether something holds for all bytes: 16 or 8 at a time, the last of them overlapping
/// those before. Written so that each look becomes vector code.
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
