use super::host::*;
use super::path::*;
use super::*;

fn literal(text: &str) -> Segment {
    Segment::Literal(text.to_owned())
}

fn parameter(name: &str) -> Segment {
    Segment::Parameter(name.to_owned())
}

#[test]
fn hosts() {
    let exact = |host: &str| HostMatch::Exact(host.to_owned());
    for (text, host) in [
        ("*", HostMatch::Any),
        ("example.com", exact("example.com")),
        ("EXAMPLE.com", exact("example.com")),
        ("localhost", exact("localhost")),
        ("127.0.0.1", exact("127.0.0.1")),
        ("[0:0::1]", exact("[::1]")),
        ("xn--mnchen-3ya.de", exact("xn--mnchen-3ya.de")),
        (
            "*.Example.com",
            HostMatch::Wildcard("example.com".to_owned()),
        ),
    ] {
        assert_eq!(HostText::parse(text), Ok(host), "{text}");
    }
    for text in [
        "",
        "*.",
        "*.*.com",
        "a.*.com",
        "*a.com",
        "a..b",
        "a.com.",
        "a.com:80",
        "*.a.com:80",
        "[::1]:80",
        "[::g]",
        "user@a.com",
        "a b",
        "1.2.3",
        "*.1.2.3.4",
        "-a.com",
    ] {
        assert!(HostText::parse(text).is_err(), "{text}");
    }
}

#[test]
fn paths() {
    let exact = |path: &str| PathMatch::Exact(path.to_owned());
    let prefix = |path: &str| PathMatch::Prefix(path.to_owned());
    let template = |segments: &[Segment], open| PathMatch::Template {
        segments: segments.to_vec(),
        open,
    };
    for (text, path) in [
        ("/", exact("/")),
        ("/a/b", exact("/a/b")),
        ("/a/b/", exact("/a/b/")),
        ("/*", prefix("/")),
        ("/v1/*", prefix("/v1/")),
        ("/v1*", prefix("/v1")),
        ("/%7euser", exact("/~user")),
        ("/caf%c3%a9", exact("/caf%C3%A9")),
        ("/café", exact("/caf%C3%A9")),
        ("/a:b@c;d=1,2", exact("/a:b@c;d=1,2")),
        (
            "/users/{id}",
            template(&[literal("users"), parameter("id")], false),
        ),
        (
            "/users/{id}/*",
            template(&[literal("users"), parameter("id")], true),
        ),
        (
            "/users/{id}/",
            template(&[literal("users"), parameter("id"), literal("")], false),
        ),
        (
            "/{a}/x%2d/{b_2}",
            template(&[parameter("a"), literal("x-"), parameter("b_2")], false),
        ),
    ] {
        assert_eq!(PathText::parse(text), Ok(path), "{text}");
    }
    for text in [
        "",
        "a",
        "*",
        "/**",
        "/*a",
        "//",
        "/a//b",
        "/.",
        "/a/./b",
        "/..",
        "/%2e%2e/a",
        "/%00",
        "/%00",
        "/%",
        "/%4",
        "/%+1",
        "/a b",
        "/a?b",
        "/a#b",
        "/a\\b",
        "/\u{7f}",
        "/{",
        "/}",
        "/{}",
        "/{A}",
        "/{1}",
        "/{a}b",
        "/{a}*",
        "/{a}/b*",
        "/{a}/{a}",
        "/{host}",
        "/{a}//b",
        "/{a}//",
        "/{a}//*",
        "/{a}/..",
        "/{é}",
        "/{a}/%é",
    ] {
        let problem = PathText::parse(text).expect_err(text);
        if let Some(at) = problem.at {
            assert!(text.get(at.clone()).is_some(), "{text}: {at:?}");
        }
    }
}

#[test]
fn matches_show_what_was_written() {
    for text in [
        "/*",
        "/",
        "example.com/",
        "*.example.com/v1/*",
        "[::1]/a",
        "example.com/users/{id}",
        "example.com/users/{id}/*",
        "/users/{id}/",
        "/v1*",
    ] {
        let parsed = MatchText::parse(text).expect(text);
        assert_eq!(parsed.to_string(), text);
        assert_eq!(MatchText::parse(&parsed.to_string()), Ok(parsed));
    }
}

#[test]
fn methods() {
    assert_eq!(MethodText::parse("GET").as_deref(), Ok("GET"));
    assert_eq!(MethodText::parse("purge").as_deref(), Ok("purge"));
    for text in ["", "get", "Post", "G T", "GÉT", "GET\n"] {
        assert!(MethodText::parse(text).is_err(), "{text}");
    }
}

/// Slips, and patterns of nginx, Traefik, Express and others, with the advice that they get.
#[test]
fn wrong_matches_are_corrected() {
    for (text, advice) in [
        ("", "write \"/*\""),
        ("*", "write \"/*\""),
        (
            "api",
            "write \"api/*\" for this host, or \"/api/*\" for paths that begin with it",
        ),
        ("example.com", "write \"example.com/*\""),
        ("example.com*", "write \"example.com/*\""),
        (".example.com/x", "write \"*.example.com/x\""),
        ("*example.com/", "write \"*.example.com/\""),
        ("example.com./x", "write \"example.com/x\""),
        ("::1/x", "write \"[::1]/x\""),
        ("{host}/x", "write \"/x\""),
        ("me@example.com/x", "write \"example.com/x\""),
        (
            "a.com:80/x",
            "a match does not look at the port: write \"a.com/x\"",
        ),
        (
            "http://a.com:80/x",
            "a match is a host and a path: write \"a.com/x\"",
        ),
        ("  /x ", "write \"/x\""),
        ("//x//y/", "write \"/x/y/\""),
        ("/a b", "write \"/a%20b\""),
        ("/a/**", "write \"/a/*\""),
        (
            "/a/*/",
            "a star stands only at the end; for a single segment, write a name in braces: write \"/a/*\"",
        ),
        (
            "/*/b/*/c",
            "a star stands only at the end; for a single segment, write a name in braces: write \"/{name}/b/{name2}/c\"",
        ),
        ("/users/{id", "write \"/users/{id}\""),
        ("/users/id}", "write \"/users/{id}\""),
        ("/users/{ ID }/{}", "write \"/users/{id}/{name}\""),
        ("/{id}/{id}", "write \"/{id}/{id2}\""),
        ("/users/<int:id>", "write \"/users/{id}\""),
        ("/users/{id...}", "write \"/users/*\""),
        (
            "/users/{*rest}",
            "a star stands only at the end; for a single segment, write a name in braces: write \"/users/*\"",
        ),
        (
            "/users/{id:[0-9]+}",
            "a match is not a regular expression; a star at its end stands for any rest: write \"/users/{id}\"",
        ),
        (
            "/users/[0-9]+",
            "a match is not a regular expression; a star at its end stands for any rest: write \"/users/{name}\"",
        ),
        (
            "^/api/.*$",
            "a match is not a regular expression; a star at its end stands for any rest: write \"/api/*\"",
        ),
        (
            "~* ^/x$",
            "a match is not a regular expression; a star at its end stands for any rest: write \"/x\"",
        ),
        ("= /x", "write \"/x\""),
        (
            "/(a|b)",
            "a match is not a regular expression; for the character itself write \"%7C\"",
        ),
        (
            "GET /x",
            "the method has a key of its own: write match = { path = \"/x\", method = \"GET\" }",
        ),
        (
            "Host(`a.com`) && PathPrefix(`/b`)",
            "a match is a host and a path, without functions: write \"a.com/b/*\"",
        ),
        (
            "PathPrefix('/b/')",
            "a match is a host and a path, without functions: write \"/b/*\"",
        ),
        // Without a correction, the advice is the rule.
        (
            "Host(`a.com`) && Method(`GET`)",
            "a match is a host and a path: \"api.example.com/v1/*\"",
        ),
        (
            "www.*",
            "a match is a host and a path: \"api.example.com/v1/*\"",
        ),
        (
            "a.*/x",
            "a star stands for whole labels at the front: \"*.example.com\"",
        ),
        (
            "/x{id}",
            "write a whole segment in braces, in lower case: \"/users/{id}\"",
        ),
        (
            "/a?b=c",
            "for the query write match = { path = \"...\", query = { key = \"value\" } }",
        ),
    ] {
        let problem = MatchText::parse(text).expect_err(text);
        assert_eq!(problem.help.as_deref(), Some(advice), "{text}");
    }
    for (text, advice) in [
        ("v1/*", "write \"/v1/*\""),
        ("https://a.com/x//y", "write \"/x/y\""),
        (
            "^/a/.*",
            "a match is not a regular expression; a star at its end stands for any rest: write \"/a/*\"",
        ),
    ] {
        let problem = PathText::parse(text).expect_err(text);
        assert_eq!(problem.help.as_deref(), Some(advice), "{text}");
    }
}
