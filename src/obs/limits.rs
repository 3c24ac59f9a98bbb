//! Limits of logging and metrics.

use std::time::Duration;

/// The size of a core's ring of log records. At 400 bytes a record it holds 5,000 exchanges, or 50 ms of a core that
/// does 100,000 a second. Unused parts take no memory.
pub const LOG_RING_BYTES: usize = 2 * 1024 * 1024;

/// How long the log thread pauses when it finds nothing to do.
pub const LOG_REST: Duration = Duration::from_millis(10);

/// The longest pause of the log thread while no records come.
pub const LOG_REST_MAX: Duration = Duration::from_millis(80);

/// The log thread hands lines over once it has formatted this many bytes.
pub const LOG_BATCH_BYTES: usize = 64 * 1024;

/// How long the end of the process, or of a log, waits for the remaining lines.
pub const LOG_FLUSH_MAX: Duration = Duration::from_secs(2);

/// How many bytes of lines wait for a destination that is behind. This is four seconds at 1,000 lines a second.
pub const LOG_QUEUE_BYTES_MAX: usize = 1024 * 1024;

/// How often a thread that waits for a destination checks whether it should go on waiting.
pub const LOG_POLL: Duration = Duration::from_millis(100);

/// How many bytes a pipe accepts at once if it has any room: Linux' `PIPE_BUF` (POSIX).
pub const PIPE_BYTES_AT_ONCE: usize = 4096;

/// How many spare line buffers are kept; one is filled while another is written.
pub const LOG_SPARE_BUFFERS: usize = 4;

/// How many bytes of the process log wait while no process reads standard error: the diagnostics of several reloads.
pub const PROCESS_LOG_QUEUE_BYTES_MAX: usize = 256 * 1024;

/// How long the end of the process waits for standard error.
pub const PROCESS_LOG_FLUSH_MAX: Duration = Duration::from_secs(1);

/// How many bytes of a method a log record keeps; registered methods have at most 18.
pub const LOG_METHOD_BYTES_MAX: usize = 32;

/// How many bytes of a host a log record keeps; a DNS name has at most 253.
pub const LOG_HOST_BYTES_MAX: usize = 256;

/// How many bytes of a path, and of a query, a log record keeps: the default limit of a request target.
pub const LOG_PATH_BYTES_MAX: usize = 8 * 1024;

/// How many bytes of a User-Agent a log record keeps; browsers send 120, some crawlers 300.
pub const LOG_AGENT_BYTES_MAX: usize = 1024;

/// How many bytes of a Referer a log record keeps; the Referrer Policy of Fetch cuts at 4,096.
pub const LOG_REFERER_BYTES_MAX: usize = 4 * 1024;

/// How many bytes of each configured field a log record keeps.
pub const LOG_FIELD_BYTES_MAX: usize = 512;

/// The mark at the end of a cut value.
pub const CUT_MARK: &[u8] = b"[cut]";

/// How many bytes of a client certificate's subject a log record keeps.
pub const LOG_SUBJECT_BYTES_MAX: usize = 256;

/// How many plans' names the log thread keeps, for exchanges that began before a reload.
pub const LOG_PLANS_MAX: usize = 32;

/// How many endpoints one check names as failing or recovered. One more line counts the others.
pub const TROUBLE_LINES_MAX: usize = 4;

/// Failures count as trouble if they are at least one in this many attempts since the last check. A stray reset among
/// thousands of answers is counted but not logged.
pub const TROUBLE_SHARE_MIN: u64 = 20;

/// An endpoint has recovered if it answers and no attempt has failed for this long.
pub const TROUBLE_OVER: Duration = Duration::from_secs(3);

/// How many lines the process log accepts at once.
pub const PROCESS_LOG_BURST: u32 = 100;

/// How many lines a second the process log accepts in the long run.
pub const PROCESS_LOG_PER_SECOND: u32 = 10;

/// How many bytes of configured fields a log record keeps in total.
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
