//! Field blocks of HTTP/2: names and values, compressed with earlier ones (RFC 7541).
//!
//! | module | owns |
//! |---|---|
//! | `decode` | [`Decoder`]: field blocks to fields |
//! | `encode` | [`Encoder`]: fields to field blocks; what is worth a place in the peer's table |
//! | `name` | known names: [`PseudoField`] |
//! | `static_table` | the static table |
//! | `dynamic_table` | the dynamic table |
//! | `huffman`, `integer` | the two codes of strings and integers |
//! | `error` | [`Error`]: why a block cannot be decoded |
//!
//! Each direction of a connection has an [`Encoder`] on one side and a [`Decoder`] on the other.
//! They stay in step block by block. So a block is always decoded to its end, even if its fields
//! are not wanted, and any [`Error`] ends the connection with COMPRESSION_ERROR (RFC 9113, section
//! 4.3).
//!
//! ```
//! use weir_proto_h1::FieldId;
//! use weir_proto_h2::hpack::{Decoder, Encoder, Indexing, FieldName, BlockOutcome, TABLE_BYTES};
//!
//! let (mut encoder, mut block) = (Encoder::new(), Vec::new());
//! let name = FieldName::Known(FieldId::UserAgent);
//! encoder.encode(&mut block, name, b"pace/1", Indexing::of(name, b"pace/1"));
//!
//! let (mut decoder, mut text) = (Decoder::new(TABLE_BYTES), Vec::new());
//! let outcome = decoder.decode(&block, &mut text, 16 * 1024, |text, field| {
//!     assert_eq!(field.id, FieldId::UserAgent);
//!     assert_eq!(field.name.get(text), b"user-agent");
//!     assert_eq!(field.value.get(text), b"pace/1");
//!     Ok::<(), ()>(())
//! });
//! assert_eq!(outcome, Ok(BlockOutcome::Complete { list_bytes: 10 + 6 + 32 }));
//! ```

mod decode;
mod dynamic_table;
mod encode;
mod error;
mod huffman;
mod integer;
mod name;
mod static_table;

pub use decode::{BlockOutcome, DecodedField, Decoder};
pub use encode::{Encoder, FieldName, Indexing};
pub use error::Error;
pub use name::PseudoField;

/// Bytes of a dynamic table before any setting changes it (RFC 9113, section 6.5.2).
pub const TABLE_BYTES: u32 = 4096;

/// Bytes that a field counts beyond its name and value (RFC 7541, section 4.1; RFC 9113, section
/// 6.5.2).
const FIELD_OVERHEAD_BYTES: u32 = 32;
