//! Limits on memory and work, each with its unit and source.

/// Limits of one connection. Input beyond a limit is an [`Error`](crate::Error).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a head, from the start line to the empty line. Default 16 KiB, HAProxy's buffer
    /// size. Beyond: 431, or 414 if the request line alone is too long.
    pub head_bytes_max: u32,
    /// Bytes of a request target. Default 8 KiB; RFC 9112, section 3, recommends at least 8,000.
    /// Beyond: 414.
    pub target_bytes_max: u32,
    /// Field lines of a head, and of trailers. Default 100, as in hyper. Beyond: 431.
    pub fields_max: u32,
    /// Bytes of a chunk's size line with extensions, without its CRLF. Default 256. Beyond: 400.
    pub chunk_line_bytes_max: u32,
    /// Bytes of a trailer section with its empty line. Default 16 KiB, as in hyper. Beyond: 431.
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

/// Empty lines skipped before a request line. RFC 9112, section 2.2, requires at least one, because
/// old clients send an extra CRLF after a body.
pub(crate) const EMPTY_LINES_MAX: u32 = 4;

/// Bytes of a method. The longest registered one, `UPDATEREDIRECTREF`, has 17.
pub(crate) const METHOD_BYTES_MAX: usize = 32;

/// Digits of a chunk size, including leading zeros. 16 are enough for any accepted size.
pub(crate) const CHUNK_SIZE_DIGITS_MAX: u8 = 16;

/// Bytes of chunk extensions in one body. Node.js chose the same figure after attackers used
/// extensions to keep servers reading.
pub(crate) const EXTENSION_BYTES_MAX: u32 = 16 * 1024;

/// Capacity for trailers that a connection keeps between messages. With the fields, it is less than
/// half of the 1 KiB that an idle connection may hold.
pub(crate) const TRAILER_BYTES_KEPT: usize = 256;

/// Fields that belong to [`TRAILER_BYTES_KEPT`].
pub(crate) const TRAILER_FIELDS_KEPT: usize = 8;

/// Options in the Connection fields of one head. Each may cost a comparison with every field.
pub(crate) const CONNECTION_OPTIONS_MAX: u32 = 32;

/// Interim responses to one request. They suffice for more than five hours if a slow server sends a
/// 102 every 20 s (RFC 2518, section 10.1). hyper has no limit.
pub const INTERIM_MAX: u32 = 1_000;

/// Lengths of bodies and chunks stay below this, so that the sum of two does not overflow.
pub(crate) const LENGTH_MAX: u64 = i64::MAX as u64;

const _: () = assert!(METHOD_BYTES_MAX >= 17);
