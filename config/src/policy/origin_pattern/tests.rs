use super::*;

fn shown(text: &str) -> Result<String, Problem> {
    OriginText::parse(text).map(|pattern| pattern.to_string())
}

#[test]
fn origins_become_canonical() {
    for (text, canonical) in [
        ("*", "*"),
        ("null", "null"),
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.COM:443", "https://app.example.com"),
        ("http://app.example.com:80", "http://app.example.com"),
        ("http://app.example.com:443", "http://app.example.com:443"),
        (
            "https://app.example.com:8443",
            "https://app.example.com:8443",
        ),
        ("https://*.Example.com", "https://*.example.com"),
        ("https://*.example.com:443", "https://*.example.com"),
        ("http://*.example.com:8080", "http://*.example.com:8080"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("http://[2001:DB8:0::1]:3000", "http://[2001:db8::1]:3000"),
        ("http://[::1]", "http://[::1]"),
        ("capacitor://localhost", "capacitor://localhost"),
        (
            "chrome-extension://abcdefghijklmnop",
            "chrome-extension://abcdefghijklmnop",
        ),
    ] {
        assert_eq!(shown(text).as_deref(), Ok(canonical));
        assert_eq!(shown(canonical).as_deref(), Ok(canonical));
    }
}

#[test]
fn mistakes_come_with_advice() {
    for (text, help) in [
        ("", "https://app.example.com"),
        ("app.example.com", "\"https://app.example.com\""),
        ("*.example.com", "\"https://*.example.com\""),
        ("localhost:3000", "\"https://localhost:3000\""),
        (
            "https://app.example.com/",
            "write \"https://app.example.com\"",
        ),
        (
            "https://app.example.com/path?query",
            "write \"https://app.example.com\"",
        ),
        ("https://user@app.example.com", "before the `@`"),
        ("https://bücher.example", "xn--"),
        ("https://app.example.com:0", "1 to 65535"),
        ("https://app.example.com:65536", "1 to 65535"),
        ("https://app.example.com:+80", "1 to 65535"),
        ("https://app.example.com:", "1 to 65535"),
        ("https://app.*.example.com", "{ regex = \"...\" }"),
        ("https://app*.example.com", "{ regex = \"...\" }"),
        ("https://*", "{ regex = \"...\" }"),
        ("https://*.", "a star stands for whole labels"),
        ("https://", "letters, digits"),
        ("https://a b", "letters, digits"),
        ("https://[::1", "letters, digits"),
        ("https://[nonsense]", "letters, digits"),
        ("1https://a", "begin it with a scheme"),
        ("://a", "begin it with a scheme"),
    ] {
        let problem = OriginText::parse(text).expect_err(text);
        let found = problem.help.unwrap_or_default();
        assert!(found.contains(help), "{text}: {found}");
    }
}
