//! The process log: events of Weir itself on standard error, one line an event.
//!
//! `2026-11-22T09:30:00.125Z info  reload: 3 listeners, 12 routes (plan 4)`. A thread of its own writes the lines, so a
//! standard error that nobody reads blocks no other thread. Lines beyond [`PROCESS_LOG_PER_SECOND`], and lines that
//! find the thread's queue full, are dropped and counted; the log reports how many once lines flow again. Control and
//! the log thread write here directly; cores use [`super::CoreObs::say`].

use std::fmt::{self, Write as _};
use std::panic::PanicHookInfo;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::limits::{
    PROCESS_LOG_BURST, PROCESS_LOG_FLUSH_MAX, PROCESS_LOG_PER_SECOND, PROCESS_LOG_QUEUE_BYTES_MAX,
};
use super::log_queue::{LogDestination, LogQueue};
use super::text;
use crate::shared::{AtomicU64, Ordering};

/// The level of a line in the process log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LogLevel {
    /// Normal operation.
    Info,
    /// A possible problem.
    Warn,
    /// A failure.
    Error,
}

impl LogLevel {
    pub(super) const fn from_u8(n: u8) -> Self {
        match n {
            0 => Self::Info,
            1 => Self::Warn,
            _ => Self::Error,
        }
    }

    const fn padded(self) -> &'static str {
        match self {
            Self::Info => "info ",
            Self::Warn => "warn ",
            Self::Error => "error",
        }
    }
}

/// Logs normal operation.
pub fn info(text: impl fmt::Display) {
    say(LogLevel::Info, text);
}

/// Logs a possible problem.
pub fn warn(text: impl fmt::Display) {
    say(LogLevel::Warn, text);
}

/// Logs a failure.
pub fn error(text: impl fmt::Display) {
    say(LogLevel::Error, text);
}

/// Logs a text. Further lines of the text are indented; other control characters are escaped. Never waits for standard
/// error.
pub fn say(level: LogLevel, text: impl fmt::Display) {
    // Formatted before locking, because formatting may panic.
    let said = text.to_string();
    let mut limiter = limiter();
    let Some(missed) = limiter.pass(Instant::now()) else {
        DROPPED.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let mut line = String::new();
    if missed > 0 {
        format_missed(&mut line, missed);
    }
    format_line(&mut line, now_ms(), level, &said);
    if !put(line) {
        limiter.missed += missed + 1;
        limiter.was_full = true;
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes the last message of a process to standard error, unchanged and behind the lines of the log, and waits until
/// it is written.
pub fn say_last(text: String) {
    // If the queue is full, the text is lost, as any line would be.
    let _ = put(text);
    flush();
}

/// Waits until all lines are written, at most for [`PROCESS_LOG_FLUSH_MAX`].
pub fn flush() {
    QUEUE.wait_written(PROCESS_LOG_FLUSH_MAX);
}

/// Lines that were dropped: too many at once, or standard error did not accept them.
pub(super) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Sends panics of all threads to the log, because the default hook would wait for standard error.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let payload = panic.payload();
        let message = payload.downcast_ref::<&str>().copied();
        let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let thread = std::thread::current();
        let mut said = format!("thread `{}` panicked", thread.name().unwrap_or("unnamed"));
        if let Some(place) = panic.location() {
            let _ = write!(said, " at {place}");
        }
        let _ = write!(said, ": {}", message.unwrap_or("no message"));
        let trace = std::backtrace::Backtrace::capture();
        if trace.status() == std::backtrace::BacktraceStatus::Captured {
            let _ = write!(said, "\n{trace}");
        }
        error(said);
    }));
}

static QUEUE: LogQueue = LogQueue::new(PROCESS_LOG_QUEUE_BYTES_MAX);
static WRITER: OnceLock<bool> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);
static LIMITER: Mutex<MessageLimiter> = Mutex::new(MessageLimiter {
    lines: PROCESS_LOG_BURST,
    since: None,
    missed: 0,
    was_full: false,
});

fn limiter() -> MutexGuard<'static, MessageLimiter> {
    LIMITER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Queues text for the writing thread. Returns whether there was room.
fn put(text: String) -> bool {
    let has_writer =
        *WRITER.get_or_init(|| super::spawn("weir-stderr", || write_queued(&QUEUE)).is_ok());
    has_writer && QUEUE.push(text).is_ok()
}

/// The body of the writing thread.
fn write_queued(queue: &LogQueue) {
    let mut stderr = LogDestination::stderr();
    while let Some(text) = queue.next() {
        if stderr.write(text.as_bytes(), queue).is_err() {
            // There is no place to report that standard error is closed.
            DROPPED.fetch_add(text.lines().count() as u64, Ordering::Relaxed);
        }
        if queue.done(text) {
            report_missed();
        }
    }
}

/// Reports how many lines found the queue full, now that it is empty.
fn report_missed() {
    let mut limiter = limiter();
    if std::mem::take(&mut limiter.was_full) {
        let mut line = String::new();
        format_missed(&mut line, std::mem::take(&mut limiter.missed));
        let _ = put(line);
    }
}

fn format_missed(out: &mut String, missed: u64) {
    let said = format!("log: {missed} lines were dropped");
    format_line(out, now_ms(), LogLevel::Warn, &said);
}

/// Limits the rate of lines, so that a recurring fault cannot fill a disk.
struct MessageLimiter {
    lines: u32,
    since: Option<Instant>,
    missed: u64,
    /// Whether some of the dropped lines found the writer's queue full.
    was_full: bool,
}

impl MessageLimiter {
    /// Whether a line may pass. Returns how many lines were dropped since the last one that passed.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        let since = *self.since.get_or_insert(now);
        let step = Duration::from_secs(1) / PROCESS_LOG_PER_SECOND;
        let due = (now.saturating_duration_since(since).as_nanos() / step.as_nanos())
            .min(PROCESS_LOG_BURST.into());
        if due > 0 {
            self.lines = PROCESS_LOG_BURST.min(self.lines + due as u32);
            self.since = Some(now);
        }
        if self.lines == 0 {
            self.missed += 1;
            return None;
        }
        self.lines -= 1;
        Some(std::mem::take(&mut self.missed))
    }
}

fn format_line(out: &mut String, time_ms: u64, level: LogLevel, said: &str) {
    text::time(out, time_ms);
    let _ = write!(out, " {} ", level.padded());
    for (n, line) in said.trim_end().lines().enumerate() {
        if n > 0 {
            out.push_str("\n    ");
        }
        text::plain(out, line.as_bytes());
    }
    out.push('\n');
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_messages_is_limited_and_counted() {
        let mut limiter = MessageLimiter {
            lines: PROCESS_LOG_BURST,
            since: None,
            missed: 0,
            was_full: false,
        };
        let start = Instant::now();
        let passed = (0..1_000).filter(|_| limiter.pass(start).is_some()).count();
        assert_eq!(passed, PROCESS_LOG_BURST as usize);
        let later = start + Duration::from_secs(1);
        assert_eq!(
            limiter.pass(later),
            Some(1_000 - u64::from(PROCESS_LOG_BURST))
        );
        assert_eq!(limiter.pass(later), Some(0));
    }

    #[test]
    fn a_process_log_line_has_time_level_and_text() {
        let mut out = String::new();
        format_line(
            &mut out,
            1_795_339_800_125,
            LogLevel::Warn,
            "one\ntwo\u{1b}[31m",
        );
        assert_eq!(
            out,
            "2026-11-22T09:30:00.125Z warn  one\n    two\\x1b[31m\n"
        );
    }
}
