//! The process log: what happened to Weir itself, on standard error, one line an event.
//!
//! `2026-11-22T09:30:00.125Z info  reload: 3 listeners, 12 routes (plan 4)`. A thread of its own writes the lines, so
//! that a standard error which nobody reads holds up nobody. Lines past the bucket of [`PROCESS_LOG_PER_SECOND`], and
//! those that find the thread's queue full, are counted, and the log says how many when lines flow again. For control
//! and the log thread; cores say things through [`super::CoreObs::say`].

use std::fmt::{self, Write as _};
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::limits::{
    PROCESS_LOG_BURST, PROCESS_LOG_FLUSH_MAX, PROCESS_LOG_PER_SECOND, PROCESS_LOG_QUEUE_BYTES_MAX,
};
use super::log_queue::{LogDestination, LogQueue};
use super::text;

/// How much a line deserves attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum LogLevel {
    /// As it should be.
    Info,
    /// Worth a look.
    Warn,
    /// Something does not work.
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

/// Says that something went as it should.
pub fn info(text: impl fmt::Display) {
    say(LogLevel::Info, text);
}

/// Says something worth a look.
pub fn warn(text: impl fmt::Display) {
    say(LogLevel::Warn, text);
}

/// Says that something does not work.
pub fn error(text: impl fmt::Display) {
    say(LogLevel::Error, text);
}

/// Says something. Line ends stay, indented; other control characters are escaped. Never waits for standard error.
pub fn say(level: LogLevel, text: impl fmt::Display) {
    // Before the lock, because what is shown may panic.
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

/// Puts text as it is on standard error, among the lines of the log, and waits for it: what a process says last.
pub fn say_last(text: String) {
    // Without room the text is lost, as lines are.
    let _ = put(text);
    flush();
}

/// Waits until all lines are written, but not for longer than [`PROCESS_LOG_FLUSH_MAX`].
pub fn flush() {
    QUEUE.wait_written(PROCESS_LOG_FLUSH_MAX);
}

/// Lines that were left out: too many at once, or standard error did not take them.
pub(super) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Has panics of all threads go through the log: the default would wait for standard error.
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

/// Hands text to the writer; whether there was room.
fn put(text: String) -> bool {
    let has_writer =
        *WRITER.get_or_init(|| super::spawn("weir-stderr", || write_queued(&QUEUE)).is_ok());
    has_writer && QUEUE.push(text).is_ok()
}

/// The writer's life.
fn write_queued(queue: &LogQueue) {
    let mut stderr = LogDestination::stderr();
    while let Some(text) = queue.next() {
        if stderr.write(text.as_bytes(), queue).is_err() {
            // There is nowhere to say that standard error is closed.
            DROPPED.fetch_add(text.lines().count() as u64, Ordering::Relaxed);
        }
        if queue.done(text) {
            say_missed();
        }
    }
}

/// Says how many lines found the queue full, now that it is empty.
fn say_missed() {
    let mut limiter = limiter();
    if std::mem::take(&mut limiter.was_full) {
        let mut line = String::new();
        format_missed(&mut line, std::mem::take(&mut limiter.missed));
        let _ = put(line);
    }
}

fn format_missed(out: &mut String, missed: u64) {
    let said = format!("log: {missed} lines were left out");
    format_line(out, now_ms(), LogLevel::Warn, &said);
}

/// A bucket of lines, so that a fault that repeats cannot fill a disk.
struct MessageLimiter {
    lines: u32,
    since: Option<Instant>,
    missed: u64,
    /// Whether some of them found the writer's queue full.
    was_full: bool,
}

impl MessageLimiter {
    /// Whether a line may pass, with the number of those that could not since the last one.
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
