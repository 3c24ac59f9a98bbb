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

#[test]
fn an_address_has_one_spelling_and_is_of_one_machine() {
    let one = |text: &str| {
        text.parse::<Endpoint>()
            .map(|endpoint| endpoint.to_string())
    };
    assert_eq!(one("[::ffff:10.0.0.1]:80").unwrap(), "10.0.0.1:80");
    assert_eq!(one("http://[::ffff:10.0.0.1]").unwrap(), "10.0.0.1:80");
    assert_eq!(one("http://[2001:db8::1:2]").unwrap(), "[2001:db8::1:2]:80");
    for text in [
        "0.0.0.0:80",
        "[::]:80",
        "http://224.0.0.1",
        "[ff02::1]:80",
        "255.255.255.255:80",
    ] {
        let error = one(text).unwrap_err();
        assert!(
            error.message.contains("is not the address of one machine"),
            "{text}: {}",
            error.message
        );
    }
}

mod sources {
    use std::time::Duration;

    use crate::{Config, SourceKind};

    fn read(servers: &str) -> Result<Config, String> {
        let text = format!(
            "[listen.\"127.0.0.1:8080\"]\n[upstream.app]\nservers = {servers}\n[[route]]\nmatch = \"/*\"\nto = \"app\"\n"
        );
        let parsed = crate::parse("t.toml", &text);
        parsed
            .map(|(config, _)| config)
            .map_err(|errors| crate::to_text(&errors))
    }

    #[test]
    fn sources_stand_beside_endpoints() {
        let config = read(
            "[\"10.0.0.1:80\", \"file:///run/a\", { srv = \"_HTTP._tcp.x\", scheme = \"https\" }, \
             { list = \"http://10.0.0.2/l?x\", every = \"1m\" }, \
             { consul = \"http://127.0.0.1:8500\", service = \"web\", tag = \"v2\", token_file = \"t\" }]",
        )
        .unwrap();
        let upstream = &config.upstreams[0];
        assert_eq!(upstream.endpoints.len(), 1);
        let names: Vec<_> = upstream
            .sources
            .iter()
            .map(|it| it.kind.to_string())
            .collect();
        assert_eq!(
            names,
            [
                "file:///run/a",
                "https+srv:_http._tcp.x",
                "list:http://10.0.0.2/l?x",
                "consul:http://127.0.0.1:8500/web?tag=v2"
            ]
        );
        let SourceKind::List { every, .. } = &upstream.sources[2].kind else {
            panic!("not a list");
        };
        assert_eq!(*every, Duration::from_secs(60));
        // The list alone, as the short form of an upstream.
        assert!(read("\"file:///run/a\"").is_ok());
    }

    #[test]
    fn mistakes_in_sources_are_reported() {
        for (servers, why) in [
            ("[\"file:run/a\"]", "not the URL of a file"),
            ("[\"file:///\"]", "not the URL of a file"),
            ("[\"file:///a\", \"file:///a\"]", "occurs twice"),
            ("[{ srv = \"a b\" }]", "not the name of SRV records"),
            ("[{ srv = \"x\", weight = 3 }]", "unknown key `weight`"),
            (
                "[{ srv = \"x\", scheme = \"htps\" }]",
                "did you mean \"https\"?",
            ),
            ("[{ list = \"ftp://x/\" }]", "not the URL"),
            ("[{ list = \"http://x/\", every = 5 }]", "write \"5s\""),
            ("[{ consul = \"http://127.0.0.1:8500\" }]", "service"),
            (
                "[{ consul = \"http://x/?dc=a\", service = \"w\" }]",
                "no query",
            ),
            ("[{ consul = \"http://x/\", service = \"\" }]", "not a name"),
            ("[]", "has no endpoint"),
        ] {
            let errors = read(servers).expect_err(servers);
            assert!(errors.contains(why), "{servers}: {errors}");
        }
    }

    #[test]
    fn an_endpoint_of_another_file_is_read_as_in_this_one() {
        let read = |value: &str| crate::parse_endpoint(value);
        let endpoint = read("{\"address\"=\"https://a.test\",\"weight\"=3}").unwrap();
        assert_eq!(
            (endpoint.to_string().as_str(), endpoint.weight),
            ("https://a.test:443", 3)
        );
        for (value, why) in [
            ("\"a\"", "has no port"),
            ("{\"adress\"=\"a:1\"}", "unknown key `adress`"),
            ("{\"address\"=\"a:1\",\"weight\"=65536}", "expected"),
            ("3", "expected"),
            ("", ""),
        ] {
            assert!(read(value).unwrap_err().contains(why), "{value}");
        }
    }
}
