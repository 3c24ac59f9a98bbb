use super::*;

const DAY_MS: u64 = 86_400_000;

#[test]
fn durations() {
    for (text, ms) in [
        ("5s", 5_000),
        ("250ms", 250),
        ("1m30s", 90_000),
        ("2h", 7_200_000),
        ("1d12h", DAY_MS + DAY_MS / 2),
        ("1h2m3s4ms", 3_723_004),
        ("0s", 0),
        ("90s", 90_000),
        ("365d", 365 * DAY_MS),
    ] {
        assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
    }
}

#[test]
fn bad_durations() {
    for (text, message, help) in [
        ("", "the duration is empty", None),
        (
            "10",
            "`10` has a number without a unit",
            Some("write \"10s\" for seconds, \"10ms\" for milliseconds"),
        ),
        (
            "10sec",
            "`sec` is not a unit of time",
            Some("write \"10s\""),
        ),
        (
            "3 s",
            "`3 s` is not a duration",
            Some("write it without spaces: \"1m30s\""),
        ),
        ("5S", "`S` is not a unit of time", Some("write \"5s\"")),
        (
            "5x",
            "`x` is not a unit of time",
            Some("write d, h, m, s or ms"),
        ),
        ("1s1m", "unit `m` is out of order", None),
        ("1s1s", "unit `s` is out of order", None),
        ("-1s", "`-1s` is not a duration", None),
        (
            "1.5s",
            "`1.5s` is not a duration",
            Some("write whole numbers, with a smaller unit for fractions: \"1m30s\""),
        ),
        (
            "s",
            "`s` is not a duration",
            Some("write it like \"1m30s\""),
        ),
        ("366d", "the duration is longer than 365 days", None),
        ("99999999999999999999s", "the number is too large", None),
        (
            "18446744073709551615d",
            "the duration is longer than 365 days",
            None,
        ),
        ("5µs", "`µs` is not a unit of time", None),
    ] {
        let problem = duration(text).expect_err(text);
        assert_eq!(problem.message, message, "{text}");
        if let Some(help) = help {
            assert_eq!(problem.help.as_deref(), Some(help), "{text}");
        }
        assert_in_range(text, &problem);
    }
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("0B", 0),
        ("512B", 512),
        ("16KiB", 16_384),
        ("10MiB", 10_485_760),
        ("1MB", 1_000_000),
        ("1GiB", 1 << 30),
        ("2TiB", 2 << 40),
        ("3KB", 3_000),
    ] {
        assert_eq!(size(text), Ok(bytes), "{text}");
    }
}

#[test]
fn bad_sizes() {
    for (text, message, help) in [
        ("", "the size is empty", None),
        ("10", "`10` has no unit", Some("write \"10B\"")),
        ("16k", "`k` is not a unit of size", Some("write \"16KiB\"")),
        (
            "16kib",
            "`kib` is not a unit of size",
            Some("write \"16KiB\""),
        ),
        ("1M", "`M` is not a unit of size", Some("write \"1MiB\"")),
        ("1.5MiB", "`1.5MiB` is not a size", None),
        ("MiB", "`MiB` is not a size", None),
        ("-1B", "`-1B` is not a size", None),
        ("1MiB5", "`1MiB5` is not a size", None),
        ("8388608TiB", "the size is larger than 2^63 - 1 bytes", None),
        ("99999999999999999999B", "the number is too large", None),
    ] {
        let problem = size(text).expect_err(text);
        assert_eq!(problem.message, message, "{text}");
        if let Some(help) = help {
            assert_eq!(problem.help.as_deref(), Some(help), "{text}");
        }
        assert_in_range(text, &problem);
    }
}

#[test]
fn rates_and_shares() {
    assert_eq!(byte_rate("240B/s"), Ok(240));
    assert_eq!(byte_rate("1KiB/s"), Ok(1_024));
    for text in ["240", "240B", "240/s", "240B/m", "/s", ""] {
        assert!(byte_rate(text).is_err(), "{text}");
    }
    assert_eq!(percent("0%"), Ok(0));
    assert_eq!(percent("100%"), Ok(100));
    for text in ["", "%", "20", "101%", "+5%", "-5%", "1.5%", "99999999999%"] {
        assert!(percent(text).is_err(), "{text}");
    }
}

#[test]
fn what_is_shown_parses_back() {
    for ms in [
        0,
        1,
        999,
        1_000,
        1_500,
        75_000,
        60_000,
        3_600_000,
        DAY_MS,
        DAY_MS + 1,
    ] {
        let time = Duration::from_millis(ms);
        assert_eq!(
            duration(&show_duration(time)),
            Ok(time),
            "{}",
            show_duration(time)
        );
    }
    for bytes in [
        0,
        1,
        1_000,
        1_024,
        1_025,
        16_384,
        1 << 20,
        (1 << 30) + 1,
        1 << 40,
    ] {
        assert_eq!(size(&show_size(bytes)), Ok(bytes), "{}", show_size(bytes));
    }
    assert_eq!(show_duration(Duration::from_secs(75)), "75s");
    assert_eq!(show_size(65_536), "64KiB");
}

/// A problem that points somewhere points into the text, at whole characters.
fn assert_in_range(text: &str, problem: &Problem) {
    if let Some(at) = &problem.at {
        assert!(text.get(at.clone()).is_some(), "{text}: {problem:?}");
    }
}
