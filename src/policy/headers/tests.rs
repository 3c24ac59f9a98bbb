use std::net::SocketAddr;
use std::rc::Rc;

use weir_proto_h1::{BodyKind, Framing, Head, Limits, Request, encode_request, parse_request};

use super::*;
use crate::io::Address;
use crate::policy::Claims;
use crate::tls::CertificateIdentity;

/// A request on a route for `/users/{id}/{file}` and `/people/{id}/{other}/{file}`, and what is known about it.
struct Asked {
    head: Head,
    block: Vec<u8>,
    hop: Request,
    facts: Facts,
    pattern: usize,
    path: &'static str,
    endpoint: Address,
}

impl Asked {
    fn new(text: &str) -> Self {
        let block = format!("{}\r\n\r\n", text.replace('\n', "\r\n")).into_bytes();
        let mut head = Head::new();
        parse_request(&block, &Limits::default(), &mut head).unwrap();
        Self {
            head,
            block,
            hop: Request::default(),
            facts: Facts {
                client: Some([192, 0, 2, 7].into()),
                ..Facts::default()
            },
            pattern: 0,
            path: "",
            endpoint: Address::Ip(SocketAddr::from(([10, 0, 0, 1], 80))),
        }
    }

    fn edit(&self, headers: &Headers, edits: &mut Edits) {
        let request = StepRequest {
            peer: Some(SocketAddr::from(([192, 0, 2, 7], 5_000))),
            pattern: self.pattern,
            path: self.path.as_bytes(),
            sent_path: b"",
            given_id: b"id-1",
            ..StepRequest::for_test(&self.head, &self.block, &self.hop)
        };
        let attempt = AttemptFacts {
            upstream: "app",
            endpoint: &self.endpoint,
        };
        headers.edit_request(&request, &self.facts, attempt, edits);
    }

    /// The request as the endpoint gets it.
    fn sent(&self, headers: &Headers, edits: &mut Edits) -> String {
        self.edit(headers, edits);
        let mut out = Vec::new();
        let framing = Framing {
            body: BodyKind::None,
            ..Framing::default()
        };
        encode_request(&mut out, &self.block, &self.head, edits, &framing);
        String::from_utf8(out).unwrap()
    }

    /// What a value becomes; `None` if the field is not written.
    fn value(&self, value: &str) -> Option<String> {
        let headers = compile(&format!("request.set.X-Value = '{value}'"));
        let mut edits = Edits::new();
        self.edit(&headers, &mut edits);
        let (_, value) = edits.iter().next()?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }
}

fn compile(rules: &str) -> Headers {
    let text = format!(
        "jwt = \"https://idp.test/ for app\"\n[listen.\"127.0.0.1:1\"]\n[upstream]\napp = [\"127.0.0.1:2\"]\n\
         [[route]]\nto = \"app\"\n\
         match.path = [\"/users/{{id}}/{{file}}\", \"/people/{{id}}/{{other}}/{{file}}\"]\nheaders = {{ {rules} }}\n"
    );
    let (config, _) = weir_config::parse("test.toml", &text)
        .unwrap_or_else(|errors| panic!("{}", weir_config::to_text(&errors)));
    let route = &config.routes[0];
    let rules = route.policies.headers.as_ref().unwrap();
    Headers::compile(rules, &route.matches.paths).unwrap()
}

#[test]
fn requests_lose_and_gain_fields() {
    let asked = Asked::new(
        "GET /users/7/a HTTP/1.1\nHost: a.test\nCookie: sid=1\nX-User: forged\nx-user: twice\nAccept: */*",
    );
    let headers = compile(
        r#"request = { remove = ["cookie", "X-Absent"], set = { X-User = "{param:id}", X-Forwarded-Proto = "https" },
                       add = { Accept = ["a/b", "c/d"] } }"#
            .replace('\n', " ")
            .as_str(),
    );
    let mut edits = Edits::new();
    edits.append("X-Forwarded-Proto", "http");
    edits.append("Via", "1.1 weir");
    let end = edits.mark();
    let expected = "GET /users/7/a HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nVia: 1.1 weir\r\nX-User: 7\r\n\
                    X-Forwarded-Proto: https\r\nAccept: a/b\r\nAccept: c/d\r\n\r\n";
    assert_eq!(asked.sent(&headers, &mut edits), expected);
    // The second attempt.
    edits.rewind(end);
    assert_eq!(asked.sent(&headers, &mut edits), expected);
    let Verdict::Does(text) = headers.explain() else {
        panic!("the step changes the request");
    };
    assert_eq!(
        text,
        "request: remove cookie, remove X-Absent, set X-User: {param:id}, set X-Forwarded-Proto: https, \
         add Accept: a/b, add Accept: c/d"
    );
}

#[test]
fn variables_have_their_values() {
    let mut asked = Asked::new(
        "PURGE /users/7%2f/a?b=c&d HTTP/1.1\nHost: A.Test.:8080\nUser-Agent: x y\nuser-agent: z\n\
         Cookie: a=1; sid=\"2=3\" ;b\nCookie: c = 4\nConnection: x-hop\nX-Hop: 1",
    );
    for (value, expected) in [
        ("{client_ip}", "192.0.2.7"),
        ("{client_port}", "5000"),
        ("{host}", "a.test"),
        ("{method}", "PURGE"),
        ("{path}{query}", "/users/7%2f/a?b=c&d"),
        ("{scheme}://{host}", "http://a.test"),
        ("{request_id}", "id-1"),
        ("{header:User-Agent}", "x y"),
        ("{header:host}", "A.Test.:8080"),
        ("{header:x-hop}", "1"),
        ("{cookie:sid}", "\"2=3\""),
        ("{cookie:c}", "4"),
        ("{param:id}-{param:file}", "7%2f-a"),
        ("{upstream} {endpoint}", "app 10.0.0.1:80"),
        ("{{{method}}}", "{PURGE}"),
    ] {
        assert_eq!(asked.value(value).as_deref(), Some(expected), "{value}");
    }
    // A field without a value is not written.
    for value in [
        "{header:X-Absent}",
        "{cookie:b}",
        "{cookie:SID}",
        "{claim:sub}",
        "{tls_version}",
        "{client_cert:subject}",
    ] {
        assert_eq!(asked.value(value), None, "{value}");
    }
    assert_eq!(asked.value("a {header:X-Absent}").as_deref(), Some("a"));
    // A trusted proxy names the client, and no port.
    asked.facts.client = Some("::ffff:198.51.100.1".parse().unwrap());
    asked.facts.is_https = true;
    assert_eq!(
        asked.value("{client_ip}:{client_port} {scheme}").as_deref(),
        Some("198.51.100.1: https")
    );
    asked.facts.client = None;
    assert_eq!(asked.value("{client_ip}{client_port}"), None);
    let identity = CertificateIdentity::from_texts(&["CN=a\\,b;c".to_owned()]);
    asked.facts.identity = identity.map(Rc::new);
    assert_eq!(
        asked.value("{client_cert:subject}").as_deref(),
        Some("CN=a\\2Cb\\3Bc")
    );
    let claims = br#"{"sub":"ann","roles":["a","b"],"n":5,"bad":"x\ny","list":["a,b"]}"#;
    asked.facts.claims = Some(Rc::new(Claims::parse(claims).unwrap()));
    for (claim, expected) in [
        ("sub", Some("ann")),
        ("roles", Some("a,b")),
        ("n", Some("5")),
        ("bad", None),
        ("list", None),
    ] {
        let value = asked.value(&format!("{{claim:{claim}}}"));
        assert_eq!(value.as_deref(), expected, "{claim}");
    }
}

/// A parameter stands for another segment in each pattern, and never for a segment beside dot segments.
#[test]
fn parameters_follow_the_pattern_that_matches() {
    let mut asked = Asked::new("GET /people/7/x/a HTTP/1.1\nHost: a");
    asked.pattern = 1;
    assert_eq!(
        asked.value("{param:id} {param:file}").as_deref(),
        Some("7 a")
    );
    let mut asked = Asked::new("GET /users/x/../7//a HTTP/1.1\nHost: a");
    asked.path = "/users/7/a";
    assert_eq!(
        asked.value("{param:id} {param:file} {path}").as_deref(),
        Some("7 a /users/7/a")
    );
}

/// Fields that the client may not send do not exist for variables.
#[test]
fn refused_fields_have_no_value() {
    let mut asked = Asked::new("GET / HTTP/1.1\nHost: a\nX-Forwarded-For: 1.2.3.4\nX-A: b");
    let policy = weir_proto_h1::FieldPolicy::default();
    asked.head.enforce(&asked.block, &policy, &|_| false);
    assert_eq!(asked.value("{header:X-Forwarded-For}"), None);
    assert_eq!(asked.value("{header:X-A}").as_deref(), Some("b"));
}

/// Whatever a request holds, no value ends its line, and a removed field never arrives.
#[test]
fn no_request_writes_more_than_its_fields() {
    let headers = compile(
        "request = { remove = \"X-Gone\", set = { X-Value = \"[{header:X-A}{query}{cookie:c}{claim:sub}{path}]\" } }",
    );
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random as u8
    };
    for _ in 0..5_000 {
        let mut asked = Asked::new(
            "GET /users/7/a?0123456789 HTTP/1.1\nHost: a\nX-A: 0123456789\nX-GONE: 1\nCookie: c=0123456789\nx-gone: 2",
        );
        // Bytes that no parser lets through, in every place that a variable reads.
        for _ in 0..8 {
            let digits = asked.block.iter().enumerate();
            let places: Vec<_> = digits
                .filter_map(|(at, byte)| byte.is_ascii_digit().then_some(at))
                .collect();
            let at = places[usize::from(next()) % places.len()];
            asked.block[at] = next();
        }
        let mut edits = Edits::new();
        asked.edit(&headers, &mut edits);
        assert!(edits.removes(weir_proto_h1::FieldId::Other, b"X-Gone"));
        let added: Vec<_> = edits.iter().collect();
        let [(b"X-Value", value)] = added[..] else {
            panic!("one field");
        };
        assert!(value.starts_with(b"[") && value.ends_with(b"]"));
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        let mut out = Vec::new();
        let head = Head::with_status(200);
        weir_proto_h1::encode_response(&mut out, b"", &head, &edits, &Framing::default());
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 3);
    }
}
