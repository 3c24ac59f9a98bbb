//! What a peer may ask of memory and work: every limit with its unit and its source.

/// Limits of one connection. Beyond each is an [`Error`](crate::Error), never more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, start line and empty line included. Default 16 KiB, the size HAProxy gives
    /// its buffers. Beyond: 431 (a request line that alone is beyond: 414).
    pub head_bytes_max: u32,
    /// Bytes of a request target. Default 8 KiB; RFC 9112, section 3, asks for 8,000 at least.
    /// Beyond: 414.
    pub target_bytes_max: u32,
    /// Field lines of a head, and of trailers. Default 100, as hyper has it. Beyond: 431.
    pub fields_max: u32,
    /// Bytes of a chunk's size line without its CRLF, extensions included. Default 256. Beyond: 400.
    pub chunk_line_bytes_max: u32,
    /// Bytes of a trailer section, the empty line included. Default 16 KiB, as hyper has it.
    /// Beyond: 431.
    pub trailer_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: 16 * 1024,
            target_bytes_max: 8 * 1024,
            fields_max: 100,
            chunk_line_bytes_max: 256,
            trailer_bytes_max: 16 * 1024,
        }
    }
}

/// Empty lines passed over before a request line. RFC 9112, section 2.2, asks for one at least:
/// old clients end a body with a CRLF too many.
pub(crate) const EMPTY_LINES_MAX: u32 = 4;

/// Bytes of a method. The longest registered one, `UPDATEREDIRECTREF`, has 17.
pub(crate) const METHOD_BYTES_MAX: usize = 32;

/// Digits of a chunk size, leading zeros included: 16 hold any size that is taken.
pub(crate) const CHUNK_SIZE_DIGITS_MAX: u8 = 16;

/// Bytes of chunk extensions in one body. Node.js has the same figure since extensions were used
/// to make servers read without end.
pub(crate) const EXTENSION_BYTES_MAX: u32 = 16 * 1024;

/// Room for trailers that a connection keeps between messages: with the fields, under half of the
/// 1 KiB that an idle connection may hold.
pub(crate) const TRAILER_BYTES_KEPT: usize = 256;

/// Fields that go with [`TRAILER_BYTES_KEPT`].
pub(crate) const TRAILER_FIELDS_KEPT: usize = 8;

/// Options in the Connection fields of one head; each may cost one look at every field.
pub(crate) const CONNECTION_OPTIONS_MAX: u32 = 32;

/// Interim answers to one request. A server that works for long may send a 102 every 20 s (RFC 2518, section 10.1), for
/// more than five hours with these; hyper has no limit.
pub const INTERIM_MAX: u32 = 1_000;

/// Lengths of bodies and chunks stay below this, so that sums of two never wrap.
pub(crate) const LENGTH_MAX: u64 = i64::MAX as u64;

const _: () = assert!(METHOD_BYTES_MAX >= 17);
