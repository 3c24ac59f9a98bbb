//! Bounds of what observing may cost.

use std::time::Duration;

/// Room for log records between a core and the log thread. At 400 bytes a record, 5,000 exchanges: 50 ms of a core
/// that does 100,000 a second. Memory is touched only as far as it is used.
pub const LOG_RING_BYTES: usize = 2 * 1024 * 1024;

/// How long the log thread rests after it found nothing to do, or before it looks again.
pub const LOG_REST: Duration = Duration::from_millis(10);

/// The longest rest while nothing comes.
pub const LOG_REST_MAX: Duration = Duration::from_millis(80);

/// Bytes that the log thread formats before it writes them out.
pub const LOG_BATCH_BYTES: usize = 64 * 1024;

/// How long the end of the process, or of a log, waits for what is left to be written.
pub const LOG_FLUSH_MAX: Duration = Duration::from_secs(2);

/// Bytes of lines that wait for a destination that is behind. Four seconds of 1,000 lines a second.
pub const LOG_QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// How often a thread that waits for a destination to take lines looks whether it still should.
pub const LOG_POLL: Duration = Duration::from_millis(100);

/// Bytes that a pipe takes at once if it has any room: POSIX' `PIPE_BUF` of Linux.
pub const PIPE_BYTES_AT_ONCE: usize = 4096;

/// Buffers that are kept for the next lines: one is filled while another is written.
pub const LOG_SPARE_BUFFERS: usize = 4;

/// Bytes of the process log that wait while nobody reads standard error: some reloads' worth of diagnostics.
pub const PROCESS_LOG_QUEUE_BYTES_MAX: usize = 256 * 1024;

/// How long the end of the process waits for standard error.
pub const PROCESS_LOG_FLUSH_MAX: Duration = Duration::from_secs(1);

/// Bytes of a method that a log record keeps; registered ones have at most 18.
pub const LOG_METHOD_BYTES_MAX: usize = 32;

/// Bytes of a host that a log record keeps: a DNS name has at most 253.
pub const LOG_HOST_BYTES_MAX: usize = 256;

/// Bytes of a path that a log record keeps, and of a query: the default limit of a request target.
pub const LOG_PATH_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a User-Agent that a log record keeps: browsers send 120, some crawlers 300.
pub const LOG_AGENT_BYTES_MAX: usize = 1024;

/// Bytes of a Referer that a log record keeps (Fetch's Referrer Policy cuts at 4,096).
pub const LOG_REFERER_BYTES_MAX: usize = 4 * 1024;

/// Bytes of each field that the file wants logged.
pub const LOG_FIELD_BYTES_MAX: usize = 512;

/// What is written behind a value that was cut.
pub const CUT_MARK: &[u8] = b"[cut]";

/// Bytes of the subject of a client's certificate that a log record keeps.
pub const LOG_SUBJECT_BYTES_MAX: usize = 256;

/// Plans whose names the log thread remembers, for exchanges that began before a reload.
pub const LOG_PLANS_MAX: usize = 32;

/// Endpoints of which one look says that they have begun to fail, or answer again; the rest is counted in one line.
pub const TROUBLE_LINES_MAX: usize = 4;

/// Failures are trouble when they are at least one of so many attempts in the time between two looks: a stray reset
/// among thousands of answers is a count, not an event.
pub const TROUBLE_SHARE_MIN: u64 = 20;

/// How long no attempt may have failed before an endpoint that answers counts as well again.
pub const TROUBLE_OVER: Duration = Duration::from_secs(3);

/// Lines of the process log that may come at once.
pub const PROCESS_LOG_BURST: u32 = 100;

/// Lines of the process log per second in the long run.
pub const PROCESS_LOG_PER_SECOND: u32 = 10;

/// Bytes of all fields that a log record keeps.
const LOG_FIELDS_BYTES_MAX: usize =
    2 * weir_config::limits::LOG_HEADERS_MAX * (2 + LOG_FIELD_BYTES_MAX + CUT_MARK.len());

const _: () = assert!(
    LOG_RING_BYTES
        > 16 * (2 * LOG_PATH_BYTES_MAX
            + LOG_HOST_BYTES_MAX
            + LOG_METHOD_BYTES_MAX
            + LOG_AGENT_BYTES_MAX
            + LOG_REFERER_BYTES_MAX
            + LOG_FIELDS_BYTES_MAX
            + 1024)
);
const _: () = assert!(LOG_FIELDS_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(LOG_PATH_BYTES_MAX <= u16::MAX as usize);

/// Reports from cores that wait for control to read them. Control reads about once a second, and cores limit how often
/// they report, so a full queue means that control is stuck.
pub const REPORTS_MAX: usize = 256;
