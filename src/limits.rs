//! Every limit of the proxy that is not a setting, and every default that the configuration starts from: the unit
//! is in the name, the source in the comment. Limits of parsing stand in `weir_proto_h1::limits`.

/// Sizes of pooled blocks, smallest first. The first holds a usual head; the last is what bulk bodies move in, so
/// that a megabyte takes sixteen receives. 16 KiB is HAProxy's buffer and the largest HTTP/2 frame by default.
pub const BLOCK_BYTES: [usize; 3] = [4 * 1024, 16 * 1024 + 64, 64 * 1024];

/// Room in front of each block's bytes: a chunk-size line (18) or an HTTP/2 frame header (9) fits with ease.
pub const HEADROOM_BYTES: usize = 64;

/// Free blocks that a pool keeps per size, in bytes; more are given back to the allocator.
pub const POOL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Receives per core that may hold a block while nothing has come yet. Beyond it a socket half waits for readiness
/// and takes a block when there is something to put in it, so that idle connections cost no buffer.
pub const ARMED_RECEIVES_MAX: usize = 256;

/// Entries of a core's submission queue. A full one forces an early system call; monoio cannot recover from one
/// that stays full.
pub const RING_ENTRIES: u32 = 4096;

/// Accept operations that each core keeps posted per listener, so that a storm is not one accept per loop.
pub const ACCEPTS_POSTED: usize = 8;

/// Chunks that one vectored send takes.
pub const SEND_CHUNKS_MAX: usize = 16;

const _: () = assert!(BLOCK_BYTES[0] < BLOCK_BYTES[1] && BLOCK_BYTES[1] < BLOCK_BYTES[2]);
const _: () = assert!(BLOCK_BYTES[1] >= 16_384 + 9, "an HTTP/2 frame of default size fits in one block");
