//! Turns bytes from the network into text that cannot imitate another part of a line.

use std::fmt::Write as _;

/// Appends a quoted JSON string: always valid JSON and UTF-8, and on one line. Bytes that are not UTF-8 appear as
/// `\xHH` in the decoded text. Control characters, including C1, are escaped, so terminals ignore them.
pub(crate) fn json(out: &mut String, bytes: &[u8]) {
    out.push('"');
    escape(out, bytes, |out, piece| match piece {
        Piece::Char('"') => out.push_str("\\\""),
        Piece::Char('\\') => out.push_str("\\\\"),
        Piece::Char(c) => out.push(c),
        Piece::Control(c) => {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
        Piece::Byte(byte) => {
            let _ = write!(out, "\\\\x{byte:02x}");
        }
    });
    out.push('"');
}

/// Appends a quoted text for people. A backslash escapes `"` and `\`; control characters and invalid bytes appear as
/// `\xHH`.
pub(crate) fn quoted(out: &mut String, bytes: &[u8]) {
    out.push('"');
    escape(out, bytes, |out, piece| match piece {
        Piece::Char(c @ ('"' | '\\')) => {
            out.push('\\');
            out.push(c);
        }
        piece => piece.plain(out),
    });
    out.push('"');
}

/// Appends a value of a `logfmt` line: bare if none of its characters has a meaning there, and a JSON string otherwise.
pub(crate) fn logfmt(out: &mut String, bytes: &[u8]) {
    let is_bare = |byte: &u8| byte.is_ascii_graphic() && !b"\"=\\".contains(byte);
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.is_empty() && bytes.iter().all(is_bare) => out.push_str(text),
        _ => json(out, bytes),
    }
}

/// Appends text between the quotes of a combined log line, escaped as nginx does it. In a part of a request line this
/// escapes spaces too, because a space would end the part.
pub(crate) fn combined(out: &mut String, bytes: &[u8], is_part: bool) {
    for &byte in bytes {
        let is_plain = matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if is_plain && !(is_part && byte == b' ') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "\\x{byte:02X}");
        }
    }
}

/// Appends a time as Apache and nginx write it: `22/Nov/2026:09:30:00 +0000`.
pub(crate) fn combined_time(out: &mut String, ms: u64) {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (days, seconds) = (ms / 86_400_000, ms / 1_000 % 86_400);
    let (year, month, day) = date(days);
    let month = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
    let (h, m, s) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let _ = write!(out, "{day:02}/{month}/{year:04}:{h:02}:{m:02}:{s:02} +0000");
}

/// Appends text for people. Control characters and invalid bytes appear as `\xHH`.
pub(crate) fn plain(out: &mut String, bytes: &[u8]) {
    escape(out, bytes, |out, piece| piece.plain(out));
}

/// Appends a time in the form of RFC 3339, in UTC and with milliseconds.
pub(crate) fn time(out: &mut String, ms: u64) {
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = date(days);
    let (h, m, s) = (
        of_day / 3_600_000,
        of_day / 60_000 % 60,
        of_day / 1_000 % 60,
    );
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z",
        ms % 1_000
    );
}

/// Appends microseconds as milliseconds with three decimals.
pub(crate) fn millis(out: &mut String, us: u64) {
    let _ = write!(out, "{}.{:03}", us / 1_000, us % 1_000);
}

enum Piece {
    Char(char),
    Control(char),
    Byte(u8),
}

impl Piece {
    fn plain(self, out: &mut String) {
        match self {
            Self::Char(c) => out.push(c),
            Self::Control(c) => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            Self::Byte(byte) => {
                let _ = write!(out, "\\x{byte:02x}");
            }
        }
    }
}

/// Characters that end a line for some readers (the Unicode line and paragraph separators), that reorder the text
/// around them on a terminal, or that are invisible.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

fn escape(out: &mut String, bytes: &[u8], emit: impl Fn(&mut String, Piece)) {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            let piece = if c.is_control() || is_invisible(c) {
                Piece::Control(c)
            } else {
                Piece::Char(c)
            };
            emit(out, piece);
        }
        for &byte in chunk.invalid() {
            emit(out, Piece::Byte(byte));
        }
    }
}

/// Year, month and day of a number of days since 1970-01-01, in the proleptic Gregorian calendar. The calculation
/// starts years on 1 March, so that the leap day comes last.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_400_YEARS: u64 = 146_097;
    let days = days + 719_468;
    let (era, day) = (days / DAYS_400_YEARS, days % DAYS_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(f: impl Fn(&mut String)) -> String {
        let mut out = String::new();
        f(&mut out);
        out
    }

    #[test]
    fn nothing_breaks_out_of_a_string() {
        let evil =
            b"/a\"b\\c\r\n{\"status\":200}\x00\x1b[2J\xff\xc3\x28\xc2\x85\xe2\x80\xa8\xc3\xa9";
        let json = with(|out| json(out, evil));
        assert_eq!(
            json,
            "\"/a\\\"b\\\\c\\u000d\\u000a{\\\"status\\\":200}\\u0000\\u001b[2J\\\\xff\\\\xc3(\\u0085\\u2028\u{e9}\""
        );
        let quoted = with(|out| quoted(out, evil));
        assert!(!quoted.contains(['\r', '\n', '\x1b', '\0']));
        assert_eq!(quoted.replace("\\\"", "").matches('"').count(), 2);
    }

    #[test]
    fn times_follow_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_799_999, "2024-02-28T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_795_339_800_125, "2026-11-22T09:30:00.125Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(with(|out| time(out, ms)), text);
        }
        assert_eq!(with(|out| millis(out, 12_034)), "12.034");
    }
}
