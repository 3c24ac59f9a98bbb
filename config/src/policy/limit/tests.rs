use std::time::Duration;

use super::*;

fn read(text: &str) -> LimitSetting {
    LimitText::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem:?}"))
}

#[test]
fn short_forms() {
    let limit = read("100/s per ip, burst 20");
    assert_eq!((limit.rate.count, limit.burst), (100, 20));
    assert_eq!(limit.rate.window, Duration::from_secs(1));
    assert_eq!(limit.per, [LimitKey::Ip]);

    let limit = read("5/m");
    assert_eq!((limit.rate.count, limit.burst), (5, 5));
    assert_eq!(limit.rate.window, Duration::from_secs(60));
    assert_eq!(limit.per, [LimitKey::Ip]);

    let limit = read("20/10s per header:X-Api-Key + ip");
    assert_eq!(limit.rate.window, Duration::from_secs(10));
    let header = LimitKey::Header("x-api-key".to_owned());
    assert_eq!(limit.per, [header, LimitKey::Ip]);

    assert_eq!(
        read("1000/d per claim:sub").rate.window,
        Duration::from_secs(86_400)
    );
    assert_eq!(read("1/h per global,burst 3").burst, 3);
}

#[test]
fn rates_read_what_they_write() {
    for text in ["100/s", "20/10s", "5/m", "1000/h", "7/2d", "3/90s"] {
        assert_eq!(RateText::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(RateText::parse("1/60s").unwrap().to_string(), "1/m");
}

#[test]
fn keys_read_what_they_write() {
    for text in [
        "ip",
        "host",
        "route",
        "global",
        "header:x-a",
        "cookie:Sid",
        "query:key",
        "param:id",
        "claim:https://a/b",
        "ip+host+cookie:a",
    ] {
        assert_eq!(show_keys(&LimitKeysText::parse(text).unwrap()), text);
    }
}

#[test]
fn mistakes_are_marked_where_they_are() {
    for (text, at, help) in [
        ("100", None, "write \"100/s\" for so many a second"),
        ("100/sec", Some("sec"), "write \"/s\""),
        (
            "100/ms",
            Some("ms"),
            "write s, m, h or d, or a number of these: \"10s\"",
        ),
        ("x/s", Some("x"), "write it like \"100/s\""),
        ("0/s", Some("0"), "for no limit write \"off\""),
        (
            "100/s by ip",
            Some("by ip"),
            "write it like \"100/s per ip\"",
        ),
        ("100/s per ipp", Some("ipp"), "did you mean \"ip\"?"),
        (
            "100/s per ip+heder:X",
            Some("heder:X"),
            "did you mean \"header:X\"?",
        ),
        (
            "100/s per header",
            Some("header"),
            "it has a name behind a colon, such as \"header:X-Api-Key\"",
        ),
        ("100/s per remote_addr", Some("remote_addr"), "write \"ip\""),
        (
            "100/s per ip+global",
            None,
            "leave it out, or leave the other keys out",
        ),
        (
            "1/d per ip, burst 400",
            None,
            "lower the burst, or raise the rate",
        ),
    ] {
        let problem = LimitText::parse(text).expect_err(text);
        assert_eq!(problem.at.map(|range| &text[range]), at, "{text}");
        assert_eq!(problem.help.as_deref(), Some(help), "{text}");
    }
    for text in [
        "",
        "/s",
        "1/",
        "1/0s",
        "1/s per",
        "1/s per ",
        "1/s per ip+",
        "1/s per ip+ip",
        "1/s, burst",
        "1/s, burst 0",
        "1/s, cost 2",
        "1/s per header:a b",
        "20000000/s",
        "1/400d",
        "-1/s",
    ] {
        assert!(LimitText::parse(text).is_err(), "{text}");
    }
}
