//! The value of the field Date, formatted once a second.

use std::cell::Cell;
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};

use httpdate::HttpDate;

/// A date as RFC 9110 section 5.6.7 writes it.
pub type DateText = [u8; 29];

/// The date that was formatted last. All answers of one second share it.
pub(super) struct DateCache {
    /// Seconds since the Unix epoch.
    second: Cell<u64>,
    text: Cell<DateText>,
}

impl Default for DateCache {
    fn default() -> Self {
        Self {
            second: Cell::new(0),
            text: Cell::new(format(0)),
        }
    }
}

impl DateCache {
    /// The date at `wall_ms`, in milliseconds since the Unix epoch.
    pub(super) fn at(&self, wall_ms: u64) -> DateText {
        let second = wall_ms / 1_000;
        if self.second.replace(second) != second {
            self.text.set(format(second));
        }
        self.text.get()
    }
}

fn format(second: u64) -> DateText {
    let mut text = [b' '; 29];
    let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(second));
    // A date with a year of four digits fills the text exactly.
    let _ = write!(&mut text[..], "{date}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_clock_by_the_second_both_ways() {
        let cache = DateCache::default();
        for (ms, date) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777_999, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_778_000, "Sun, 06 Nov 1994 08:49:38 GMT"),
            (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (253_402_300_799_000, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(cache.at(ms), *date.as_bytes(), "{ms}");
        }
    }
}
