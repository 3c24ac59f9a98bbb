//! The process log: what happened to Weir itself, on standard error, one line an event.
//!
//! `2026-11-22T09:30:00.125Z info  reload: 3 listeners, 12 routes (plan 4)`. Lines past the bucket of
//! [`PROCESS_LOG_PER_SECOND`] are counted, and the count is told when lines flow again. For control and the log
//! thread; cores say things through [`super::CoreObs::say`].

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::limits::{PROCESS_LOG_BURST, PROCESS_LOG_PER_SECOND};
use super::text;

/// How much a line deserves attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// As it should be.
    Info,
    /// Worth a look.
    Warn,
    /// Something does not work.
    Error,
}

impl Level {
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
    say(Level::Info, text);
}

/// Says something worth a look.
pub fn warn(text: impl fmt::Display) {
    say(Level::Warn, text);
}

/// Says that something does not work.
pub fn error(text: impl fmt::Display) {
    say(Level::Error, text);
}

/// Says something. Line ends stay, indented; other control characters are escaped.
pub fn say(level: Level, text: impl fmt::Display) {
    let mut gate = GATE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(missed) = gate.pass(Instant::now()) else {
        return;
    };
    let mut line = String::new();
    if missed > 0 {
        format_line(
            &mut line,
            now_ms(),
            Level::Warn,
            &format!("log: {missed} lines were left out"),
        );
    }
    format_line(&mut line, now_ms(), level, &text.to_string());
    // There is nowhere to say that standard error is closed.
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}

static GATE: Mutex<Gate> = Mutex::new(Gate {
    lines: PROCESS_LOG_BURST,
    since: None,
    missed: 0,
});

/// A bucket of lines, so that a fault that repeats cannot fill a disk.
struct Gate {
    lines: u32,
    since: Option<Instant>,
    missed: u64,
}

impl Gate {
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

fn format_line(out: &mut String, time_ms: u64, level: Level, said: &str) {
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
    fn a_flood_is_cut_and_counted() {
        let mut gate = Gate {
            lines: PROCESS_LOG_BURST,
            since: None,
            missed: 0,
        };
        let start = Instant::now();
        let passed = (0..1_000).filter(|_| gate.pass(start).is_some()).count();
        assert_eq!(passed, PROCESS_LOG_BURST as usize);
        let later = start + Duration::from_secs(1);
        assert_eq!(gate.pass(later), Some(1_000 - u64::from(PROCESS_LOG_BURST)));
        assert_eq!(gate.pass(later), Some(0));
    }

    #[test]
    fn a_line_has_one_form() {
        let mut out = String::new();
        format_line(
            &mut out,
            1_795_339_800_125,
            Level::Warn,
            "one\ntwo\u{1b}[31m",
        );
        assert_eq!(
            out,
            "2026-11-22T09:30:00.125Z warn  one\n    two\\x1b[31m\n"
        );
    }
}
