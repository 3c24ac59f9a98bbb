use super::*;

#[test]
fn endpoints() {
    let ip = |text: &str| EndpointAddress::Ip(text.parse().expect(text));
    let name = |host: &str, port| EndpointAddress::Name {
        host: host.to_owned(),
        port,
    };
    for (text, address) in [
        ("10.0.0.11:8080", ip("10.0.0.11:8080")),
        ("http://10.0.0.11:8080", ip("10.0.0.11:8080")),
        ("http://10.0.0.11", ip("10.0.0.11:80")),
        ("http://[::1]", ip("[::1]:80")),
        ("[2001:db8::1]:80", ip("[2001:db8::1]:80")),
        ("localhost:8080", name("localhost", 8080)),
        ("App.Internal:8080", name("app.internal", 8080)),
        ("http://app", name("app", 80)),
        ("_http._tcp.local:80", name("_http._tcp.local", 80)),
        (
            "unix:/run/app.sock",
            EndpointAddress::Unix("/run/app.sock".into()),
        ),
    ] {
        let endpoint: Endpoint = text.parse().expect(text);
        assert_eq!(endpoint.address, address, "{text}");
        assert_eq!(endpoint.weight, 1);
    }
    for text in [
        "",
        ":",
        ":80",
        "host",
        "host:",
        "host:+80",
        "host:65536",
        "host:80:80",
        "http://",
        "http://host/",
        "http://host?x",
        "http://user@host:80",
        "ftp://host:21",
        "1.2.3:80",
        "-host:80",
        "host.:80",
        "[::1]",
        "[host]:80",
        "::1",
        "unix:run",
        "unix:/run/",
        "unix:/run\0x",
    ] {
        let problem = EndpointText::parse(text).expect_err(text);
        if let Some(at) = problem.at {
            assert!(text.get(at.clone()).is_some(), "{text}: {at:?}");
        }
    }
}
