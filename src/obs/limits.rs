//! Bounds of what observing may cost.

use std::time::Duration;

/// Room for log records between a core and the log thread. At 250 bytes a record, 8,000 exchanges: 80 ms of a core
/// that does 100,000 a second. Memory is touched only as far as it is used.
pub const LOG_RING_BYTES: usize = 2 * 1024 * 1024;

/// How long the log thread rests after it found nothing to do, or before it looks again.
pub const LOG_REST: Duration = Duration::from_millis(10);

/// The longest rest while nothing comes.
pub const LOG_REST_MAX: Duration = Duration::from_millis(80);

/// Bytes that the log thread formats before it writes them out.
pub const LOG_BATCH_BYTES: usize = 64 * 1024;

/// How long the end of the process waits for the log thread to write what is left.
pub const LOG_FLUSH_MAX: Duration = Duration::from_secs(2);

/// Bytes of a method that a log record keeps; registered ones have at most 18.
pub const LOG_METHOD_BYTES_MAX: usize = 32;

/// Bytes of a host that a log record keeps: a DNS name has at most 253.
pub const LOG_HOST_BYTES_MAX: usize = 256;

/// Bytes of a path that a log record keeps: the default limit of a request target.
pub const LOG_PATH_BYTES_MAX: usize = 8 * 1024;

/// Bytes of the subject of a client's certificate that a log record keeps.
pub const LOG_SUBJECT_BYTES_MAX: usize = 256;

/// Plans whose names the log thread remembers, for exchanges that began before a reload.
pub const LOG_PLANS_MAX: usize = 32;

/// Lines of the process log that may come at once.
pub const PROCESS_LOG_BURST: u32 = 100;

/// Lines of the process log per second in the long run.
pub const PROCESS_LOG_PER_SECOND: u32 = 10;

const _: () = assert!(
    LOG_RING_BYTES > 16 * (LOG_PATH_BYTES_MAX + LOG_HOST_BYTES_MAX + LOG_METHOD_BYTES_MAX + 256)
);
const _: () = assert!(LOG_PATH_BYTES_MAX <= u16::MAX as usize);
