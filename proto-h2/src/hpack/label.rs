//! What is known of a name.

use weir_proto_h1::FieldId;

/// A field of the start line (RFC 9113, section 8.3; RFC 8441, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Pseudo {
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

impl Pseudo {
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
pub(super) struct Label {
    pub(super) id: FieldId,
    pub(super) pseudo: Option<Pseudo>,
}

impl Label {
    pub(super) const UNKNOWN: Self = Self::field(FieldId::Other);

    pub(super) const fn field(id: FieldId) -> Self {
        Self { id, pseudo: None }
    }

    pub(super) const fn pseudo(pseudo: Pseudo) -> Self {
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
                pseudo: Pseudo::from_name(name),
            },
            _ => Self::field(FieldId::from_name(name)),
        }
    }

    /// Says whether the name is in no list.
    pub(super) fn is_unknown(self) -> bool {
        self == Self::UNKNOWN
    }
}

/// Says whether a name holds what a name in HTTP/2 may hold: a token without upper case (RFC 9113,
/// section 8.2.1; RFC 9110, section 5.1), or a pseudo-field.
pub(super) fn is_name(name: &[u8]) -> bool {
    match name {
        [] => false,
        [b':', ..] => Pseudo::from_name(name).is_some(),
        _ => name.iter().all(|&byte| is_name_byte(byte)),
    }
}

const fn is_name_byte(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\''
        | b'*' | b'+' | b'^' | b'`' | b'|' | b'~')
}

/// Says whether a value holds what a value may hold: visible bytes, those above ASCII, and inside
/// it spaces and tabs (RFC 9113, section 8.2.1; RFC 9110, section 5.5).
pub(super) fn is_value(value: &[u8]) -> bool {
    if matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']) {
        return false;
    }
    // Two looks that overlap are enough for most; each is vector code.
    match (value.first_chunk::<16>(), value.last_chunk::<16>()) {
        (Some(first), Some(last)) => {
            let middle = value.get(16..value.len() - 16).unwrap_or_default();
            are_value_bytes(first)
                && are_value_bytes(last)
                && middle.chunks(16).all(|chunk| match chunk.first_chunk() {
                    Some(whole) => are_value_bytes::<16>(whole),
                    None => chunk.iter().all(|&byte| is_value_byte(byte)),
                })
        }
        _ => value.iter().all(|&byte| is_value_byte(byte)),
    }
}

#[inline]
fn are_value_bytes<const N: usize>(bytes: &[u8; N]) -> bool {
    bytes
        .iter()
        .fold(true, |all, &byte| all & is_value_byte(byte))
}

#[inline]
const fn is_value_byte(byte: u8) -> bool {
    ((byte >= 0x20) & (byte != 0x7f)) | (byte == b'\t')
}
