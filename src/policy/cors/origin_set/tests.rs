use weir_config::{Policies, parse};

use super::*;

/// The set that `cors = ORIGINS` makes.
fn set(origins: &str) -> OriginSet {
    let text = format!(
        "cors = {origins}\n[listen.\"0.0.0.0:80\"]\n[[route]]\nmatch = \"/\"\nrespond = 200\n"
    );
    let (config, _) = parse("test", &text)
        .map_err(|errors| weir_config::to_text(&errors))
        .unwrap();
    let Policies { cors, .. } = &config.policies;
    OriginSet::compile(&cors.as_ref().unwrap().origins).unwrap()
}

#[track_caller]
fn check(origins: &str, allowed: &[&str], denied: &[&str]) {
    let set = set(origins);
    let cache = set.make_cache();
    let contains = |origin: &str| set.contains(origin.as_bytes(), Some(&cache));
    for origin in allowed {
        assert!(contains(origin), "{origins} allows {origin}");
    }
    for origin in denied {
        assert!(!contains(origin), "{origins} denies {origin}");
    }
}

#[test]
fn an_origin_is_scheme_host_and_port() {
    check(
        r#""https://app.example.com""#,
        &[
            "https://app.example.com",
            "https://app.example.com:443",
            "HTTPS://APP.example.com",
        ],
        &[
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com:80",
            "https://app.example.com.",
            "https://app.example.com/",
            "https://app.example.com.evil.test",
            "https://evil.test/https://app.example.com",
            "https://evil-app.example.com",
            "https://a.app.example.com",
            "https://app.example.com@evil.test",
            "https://evil.test@app.example.com",
            "https://app.example.com https://evil.test",
            "https://app.example.com, https://evil.test",
            "//app.example.com",
            "app.example.com",
            "null",
            "*",
            "",
        ],
    );
    check(
        r#"["http://app.example.com:80", "http://[2001:DB8::1]:3000", "capacitor://localhost"]"#,
        &[
            "http://app.example.com",
            "http://[2001:db8::1]:3000",
            "capacitor://localhost",
        ],
        &[
            "http://app.example.com:443",
            "http://[2001:db8::1]",
            "http://localhost",
            "capacitor://localhost:80",
        ],
    );
}

#[test]
fn a_wildcard_stands_for_one_label_or_more() {
    check(
        r#"["https://*.example.com", "http://*.test:8080"]"#,
        &[
            "https://a.example.com",
            "https://a.b.example.com",
            "https://A.EXAMPLE.COM:443",
            "http://a.test:8080",
        ],
        &[
            "https://example.com",
            "https://.example.com",
            "https://a..example.com",
            "https://aexample.com",
            "https://a.example.com:8443",
            "http://a.example.com",
            "https://a.example.com.evil.test",
            "https://evil.test#.example.com",
            "https://evil.test/.example.com",
            "https://evil.test\\.example.com",
            "https://evil.test:1.example.com",
            "http://a.test",
            "http://a.test:80800",
        ],
    );
}

#[test]
fn a_regex_describes_whole_origins() {
    check(
        r#"[{ regex = "https://pr-[0-9]+\\.example\\.com" }, { regex = "a|https://ab|https://abc" }]"#,
        &[
            "https://pr-1.example.com",
            "https://PR-22.example.com",
            "https://ab",
            "https://abc",
        ],
        &[
            "https://pr-.example.com",
            "https://pr-1.example.com.evil.test",
            "https://evil.test/https://pr-1.example.com",
            "https://pr-1.example.com:8443",
            "https://abcd",
            "null",
        ],
    );
    // No expression stands for `null`, nor for texts that are no origins.
    check(
        r#"{ regex = "x" }"#.replace("{ regex = \"x\" }", r#"[{ regex = ".*" }]"#).as_str(),
        &["https://a"],
        &["null", "", "https://", "a"],
    );
}

#[test]
fn null_is_in_the_set_if_it_is_listed() {
    check(
        r#"["null", "https://a.example"]"#,
        &["null", "https://a.example"],
        &["NULL", "null "],
    );
    check(r#""*""#, &["null", "https://a.example", "nonsense"], &[]);
}

#[test]
fn many_origins_and_long_ones() {
    let origins: Vec<String> = (0..1000)
        .map(|i| format!("\"https://tenant-{i}.example\""))
        .collect();
    let long = format!("https://{}.example", "a".repeat(300));
    check(
        &format!("[{}]", origins.join(", ")),
        &["https://tenant-0.example", "https://tenant-999.example"],
        &[
            "https://tenant-1000.example",
            "https://tenant-.example",
            &long,
        ],
    );
    check(r#"[{ regex = ".*" }]"#, &[], &[&long]);
}

/// Nothing but the listed origin is allowed, whatever is changed in it.
#[test]
fn no_mutation_of_an_origin_is_allowed() {
    let set = set(r#"["https://app.example.com", "https://*.sub.example.com:8443"]"#);
    let allowed: [&[u8]; 2] = [
        b"https://app.example.com",
        b"https://a.sub.example.com:8443",
    ];
    for origin in allowed {
        assert!(set.contains(origin, None));
        for at in 0..=origin.len() {
            for byte in 0..=255 {
                let mut inserted = origin.to_vec();
                inserted.insert(at, byte);
                // More letters in the label that the star stands for.
                let is_label = origin.len() == 30
                    && (8..=9).contains(&at)
                    && (byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
                assert_eq!(
                    set.contains(&inserted, None),
                    is_label,
                    "{}",
                    inserted.escape_ascii()
                );
                if at < origin.len() {
                    let mut replaced = origin.to_vec();
                    replaced[at] = byte;
                    let is_same = replaced.eq_ignore_ascii_case(origin);
                    let is_label = origin.len() == 30
                        && at == 8
                        && (byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
                    assert_eq!(
                        set.contains(&replaced, None),
                        is_same || is_label,
                        "{}",
                        replaced.escape_ascii()
                    );
                }
            }
        }
    }
}
