//! Lines of output of a running child process.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::DEADLINE;

/// The lines written so far. Clones share them.
#[derive(Clone, Default)]
pub struct Lines {
    shared: Arc<(Mutex<Text>, Condvar)>,
}

#[derive(Default)]
struct Text {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    /// Collects lines on a thread until the source ends.
    pub fn of(source: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let writer = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(source).lines().map_while(Result::ok) {
                writer.lock().lines.push(line);
                writer.shared.1.notify_all();
            }
            writer.lock().ended = true;
            writer.shared.1.notify_all();
        });
        lines
    }

    /// Waits for the first line for which `pick` returns a value.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, mut pick: impl FnMut(&str) -> Option<T>) -> T {
        let changed = &self.shared.1;
        let (deadline, mut looked_at) = (Instant::now() + DEADLINE, 0);
        let mut text = self.lock();
        loop {
            for line in &text.lines[looked_at..] {
                if let Some(found) = pick(line) {
                    return found;
                }
            }
            looked_at = text.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !text.ended && !left.is_zero(),
                "no line with {what} in:\n{}",
                text.lines.join("\n")
            );
            text = changed.wait_timeout(text, left).unwrap().0;
        }
    }

    /// Waits for the end of the output and returns all lines.
    #[track_caller]
    pub fn to_end(&self) -> Vec<String> {
        let (text, _) = self
            .shared
            .1
            .wait_timeout_while(self.lock(), DEADLINE, |text| !text.ended)
            .unwrap();
        assert!(text.ended, "no end after:\n{}", text.lines.join("\n"));
        text.lines.clone()
    }

    /// The lines written so far.
    pub fn so_far(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// A failed wait poisons the lock. The lines are still valid, and the test prints them.
    fn lock(&self) -> MutexGuard<'_, Text> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
