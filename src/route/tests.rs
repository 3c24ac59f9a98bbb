//! Tables of cases, and a naive matcher that the table must agree with.

mod model;

use std::rc::Rc;

use weir_config::{Config, Match};
use weir_proto_h1::{Event, Head, Server};

use super::{
    KnownClaims, RequestView, RouteLookup, RouteSpec, RouteTable, RouteVerdict, VerifiedClaims,
    ViewBuffers,
};
use crate::ids::{JwtId, ListenerId, RouteId};
use crate::policy::Claims;

/// The matches of routes, written as in a file, one per line. A line in braces is an inline table.
pub(crate) fn matches(lines: &str) -> Vec<Match> {
    let mut text = String::from(
        "[listen.\"127.0.0.1:80\"]\n[listen.\"127.0.0.1:81\"]\n[upstream]\na = \"127.0.0.1:1\"\n",
    );
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let quote = if line.starts_with('{') { "" } else { "\"" };
        let jwt = match line.contains("claim = ") {
            true => "jwt = \"https://idp.example.com/ for orders\"\n",
            false => "",
        };
        text.push_str(&format!(
            "[[route]]\nmatch = {quote}{line}{quote}\nto = \"a\"\n{jwt}"
        ));
    }
    let parsed: Result<(Config, _), _> = weir_config::parse("test.toml", &text);
    let (config, _) = parsed.unwrap_or_else(|all| panic!("{}", weir_config::to_text(&all)));
    config
        .routes
        .into_iter()
        .map(|route| route.matches)
        .collect()
}

/// Views a request such as `GET http://host/path`, with field lines after it. A line such as `@1` means that it arrives
/// at the second listener, `@10.0.0.1` that this is its client.
fn ask<T>(request: &str, look_up: impl FnOnce(&RequestView<'_>) -> T) -> T {
    let mut lines = request.lines().map(str::trim);
    let (method, url) = lines.next().and_then(|line| line.split_once(' ')).unwrap();
    let host_and_path = url.strip_prefix("http://").unwrap();
    let (host, target) = match host_and_path.find('/') {
        Some(slash) => host_and_path.split_at(slash),
        None => (host_and_path, url),
    };
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
    let (mut listener, mut address) = (0, None);
    for line in lines {
        let Some(fact) = line.strip_prefix('@') else {
            text.push_str(line);
            text.push_str("\r\n");
            continue;
        };
        match fact.parse() {
            Ok(number) => listener = number,
            Err(_) => address = Some(fact.parse().unwrap()),
        }
    }
    text.push_str("\r\n");
    let mut head = Head::new();
    let mut server = Server::new(weir_proto_h1::Limits::default());
    let received = server.receive(text.as_bytes(), &mut head);
    assert_eq!(
        received.map(|received| received.event),
        Ok(Event::Head),
        "{request}"
    );
    let mut scratch = ViewBuffers::default();
    let view = scratch.view(&head, text.as_bytes());
    let view = view.unwrap_or_else(|error| panic!("{request}: {error}"));
    look_up(&RequestView {
        listener: ListenerId(listener),
        address,
        ..view
    })
}

/// What a table of one path pattern per route finds.
fn taken(id: u32) -> RouteLookup {
    RouteLookup::Route {
        id: RouteId(id),
        pattern: 0,
    }
}

/// Checks `REQUEST -> LINE` cases, where `LINE` is a line of `routes`, `404`, or `405 METHODS`.
fn check(routes: &str, cases: &[(&str, &str)]) {
    let names: Vec<&str> = routes
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let table = RouteTable::from_specs(&matches(routes));
    for (request, expected) in cases {
        let found = match ask(request, |view| table.find(view)) {
            RouteLookup::Route { id, .. } => names[id.0 as usize].to_owned(),
            RouteLookup::MethodNotAllowed(methods) => format!("405 {methods}"),
            RouteLookup::Ambiguous => "400".to_owned(),
            RouteLookup::NeedsClaims { id, .. } => format!("claims for {}", id.0),
            RouteLookup::None => "404".to_owned(),
        };
        assert_eq!(found, *expected, "{request}");
    }
}

#[test]
fn exact_hosts_come_before_wildcards_and_any() {
    check(
        "/*
         *.com/*
         *.example.com/*
         *.eu.example.com/*
         api.example.com/*
         [2001:db8::1]/*
         192.0.2.1/*
         z.y/*
         zoo.example.com/*",
        &[
            ("GET http://api.example.com/", "api.example.com/*"),
            ("GET http://API.Example.COM:8080/", "api.example.com/*"),
            ("GET http://api.example.com./", "api.example.com/*"),
            ("GET http://www.example.com/", "*.example.com/*"),
            ("GET http://a.eu.example.com/", "*.eu.example.com/*"),
            ("GET http://b.a.eu.example.com/", "*.eu.example.com/*"),
            ("GET http://eu.example.com/", "*.example.com/*"),
            ("GET http://example.com/", "*.com/*"),
            ("GET http://notexample.com/", "*.com/*"),
            ("GET http://com/", "/*"),
            ("GET http://Z.y/", "z.y/*"),
            ("GET http://Zoo.example.com/", "zoo.example.com/*"),
            ("GET http://zoo.example.coM/", "zoo.example.com/*"),
            ("GET http://example.org/", "/*"),
            ("GET http://[2001:DB8:0:0::1]:80/", "[2001:db8::1]/*"),
            ("GET http://[2001:db8::2]/", "/*"),
            ("GET http://192.0.2.1/", "192.0.2.1/*"),
        ],
    );
}

#[test]
fn text_comes_before_parameters_and_stars() {
    check(
        "/users
         /users/
         /users/me
         /users/{id}
         /users/{id}/
         /users/{id}/posts
         /users/{id}/posts/{post}
         /users/me/{section}
         /users/{id}/files/*
         /users/*
         /users/m*
         /us*
         /static/a/*
         /static/*",
        &[
            ("GET http://h/users", "/users"),
            ("GET http://h/users/", "/users/"),
            ("GET http://h/users/me", "/users/me"),
            ("GET http://h/users/mo", "/users/m*"),
            ("GET http://h/users/7/", "/users/{id}/"),
            ("GET http://h/users/7/posts", "/users/{id}/posts"),
            ("GET http://h/users/7/posts/1", "/users/{id}/posts/{post}"),
            ("GET http://h/users/7/posts/1/x", "/users/*"),
            ("GET http://h/users/me/posts", "/users/me/{section}"),
            ("GET http://h/users/me/posts/3", "/users/m*"),
            ("GET http://h/users/me/files/", "/users/m*"),
            ("GET http://h/users/to/files/a/b", "/users/{id}/files/*"),
            ("GET http://h/users/me/files", "/users/me/{section}"),
            ("GET http://h/users/a/files", "/users/{id}/files/*"),
            ("GET http://h/users/ma/x/y", "/users/m*"),
            ("GET http://h/use", "/us*"),
            ("GET http://h/u", "404"),
            ("GET http://h/static/a", "/static/a/*"),
            ("GET http://h/static/a/", "/static/a/*"),
            ("GET http://h/static/ab/c", "/static/*"),
            ("GET http://h/static", "/static/*"),
            ("GET http://h/stati", "404"),
            ("GET http://h/", "404"),
        ],
    );
}

#[test]
fn the_first_segment_that_differs_decides() {
    check(
        "/{tenant}/*
         /{tenant}/billing
         /{tenant}/{page}/edit
         /static/*
         /users/{id}/*
         /users/{id}/posts
         /users/admin/*
         /users/*
         /{tenant}
         /*",
        &[
            ("GET http://h/static/a.css", "/static/*"),
            ("GET http://h/static/billing", "/static/*"),
            ("GET http://h/static/a/edit", "/static/*"),
            ("GET http://h/static", "/static/*"),
            ("GET http://h/users/admin/", "/users/admin/*"),
            ("GET http://h/users/admin/posts", "/users/admin/*"),
            ("GET http://h/users/admin", "/users/admin/*"),
            ("GET http://h/users/7/posts", "/users/{id}/posts"),
            ("GET http://h/users/7/posts/1", "/users/{id}/*"),
            ("GET http://h/users/7", "/users/{id}/*"),
            ("GET http://h/users/", "/users/*"),
            ("GET http://h/users", "/users/*"),
            ("GET http://h/acme/billing", "/{tenant}/billing"),
            ("GET http://h/acme/home/edit", "/{tenant}/{page}/edit"),
            ("GET http://h/acme/home/view", "/{tenant}/*"),
            ("GET http://h/acme/", "/{tenant}/*"),
            ("GET http://h/", "/*"),
        ],
    );
}

/// `/v1/*` takes `/v1`, unless a route has exactly that path.
#[test]
fn a_star_after_a_slash_takes_the_path_without_the_slash() {
    check(
        r#"/v1/*
           /v1*
           /v2/*
           /v2
           /v3/*
           { path = "/v3", method = "PUT" }
           /u/{id}/*
           /u/{name}
           /t/{id}/*
           /{any}/x/*
           { path = "/w/*", method = "PUT" }
           { path = "/w*", method = "POST" }"#,
        &[
            ("GET http://h/v1", "/v1/*"),
            ("GET http://h/v1/", "/v1/*"),
            ("GET http://h/v12", "/v1*"),
            ("GET http://h/v", "404"),
            ("GET http://h/v2", "/v2"),
            ("GET http://h/v2/", "/v2/*"),
            ("GET http://h/v3", "/v3/*"),
            ("PUT http://h/v3", r#"{ path = "/v3", method = "PUT" }"#),
            ("GET http://h/u/7", "/u/{name}"),
            ("GET http://h/u/7/", "/u/{id}/*"),
            ("GET http://h/t/7", "/t/{id}/*"),
            ("GET http://h/t/", "404"),
            ("GET http://h/t", "404"),
            ("GET http://h/q/x", "/{any}/x/*"),
            ("GET http://h/w", "405 PUT, POST"),
            ("OPTIONS http://h", "404"),
            ("GET http://h/", "404"),
        ],
    );
}

#[test]
fn expressions_go_between_whole_paths_and_patterns() {
    check(
        r#"/a/b
           { path = "/a/c", method = "PUT" }
           { path = { regex = "/a/.*" }, method = ["GET", "PUT"] }
           /a/{x}
           /a/*
           { path = { regex = "/[ab]/x" } }
           { path = ["/a/d", { regex = "/e[0-9]+" }] }
           { host = "a.b", path = { regex = "/z.*" } }
           /*"#,
        &[
            ("GET http://h/a/b", "/a/b"),
            ("DELETE http://h/a/b", "/a/b"),
            ("PUT http://h/a/c", r#"{ path = "/a/c", method = "PUT" }"#),
            (
                "GET http://h/a/c",
                r#"{ path = { regex = "/a/.*" }, method = ["GET", "PUT"] }"#,
            ),
            (
                "GET http://h/a/x",
                r#"{ path = { regex = "/a/.*" }, method = ["GET", "PUT"] }"#,
            ),
            ("DELETE http://h/a/x", r#"{ path = { regex = "/[ab]/x" } }"#),
            ("DELETE http://h/a/y", "/a/{x}"),
            (
                "GET http://h/a/d",
                r#"{ path = ["/a/d", { regex = "/e[0-9]+" }] }"#,
            ),
            (
                "GET http://h/e12",
                r#"{ path = ["/a/d", { regex = "/e[0-9]+" }] }"#,
            ),
            ("GET http://h/e12/", "/*"),
            ("GET http://h/a", "/a/*"),
            (
                "GET http://a.b/zed",
                r#"{ host = "a.b", path = { regex = "/z.*" } }"#,
            ),
            ("GET http://a.b/a/b", "/a/b"),
            ("GET http://a.b/b/x", r#"{ path = { regex = "/[ab]/x" } }"#),
        ],
    );
}

#[test]
fn a_route_may_have_several_hosts_and_paths() {
    check(
        r#"{ host = ["a.b", "*.c"], path = ["/x", "/y/*"] }
           { host = ["*", "a.b"], path = "/health" }
           a.b/*
           /*"#,
        &[
            (
                "GET http://a.b/x",
                r#"{ host = ["a.b", "*.c"], path = ["/x", "/y/*"] }"#,
            ),
            (
                "GET http://q.c/y",
                r#"{ host = ["a.b", "*.c"], path = ["/x", "/y/*"] }"#,
            ),
            (
                "GET http://q.c/y/z",
                r#"{ host = ["a.b", "*.c"], path = ["/x", "/y/*"] }"#,
            ),
            ("GET http://c/x", "/*"),
            ("GET http://q.c/z", "/*"),
            ("GET http://a.b/z", "a.b/*"),
            (
                "GET http://a.b/health",
                r#"{ host = ["*", "a.b"], path = "/health" }"#,
            ),
            (
                "GET http://q.c/health",
                r#"{ host = ["*", "a.b"], path = "/health" }"#,
            ),
        ],
    );
}

/// The walk may have passed the node of a parameter or a star, and has to go back to it.
#[test]
fn a_failed_branch_gives_way_to_the_next_segment() {
    check(
        r#"{ path = "/users/admin/x", method = "PUT" }
           { path = "/users/admin/*", header = { a = "1" } }
           { path = "/users/{id}/x", header = { b = "1" } }
           { path = "/users/{id}/*", header = { c = "1" } }
           { path = "/{any}/admin/x", header = { d = "1" } }
           { path = "/*", method = "GET" }"#,
        &[
            (
                "PUT http://h/users/admin/x\na: 1",
                r#"{ path = "/users/admin/x", method = "PUT" }"#,
            ),
            (
                "GET http://h/users/admin/x\na: 1\nb: 1\nc: 1\nd: 1",
                r#"{ path = "/users/admin/*", header = { a = "1" } }"#,
            ),
            (
                "GET http://h/users/admin/x\nb: 1\nc: 1\nd: 1",
                r#"{ path = "/users/{id}/x", header = { b = "1" } }"#,
            ),
            (
                "GET http://h/users/admin/x\nc: 1\nd: 1",
                r#"{ path = "/users/{id}/*", header = { c = "1" } }"#,
            ),
            (
                "GET http://h/users/admin/x\nd: 1",
                r#"{ path = "/{any}/admin/x", header = { d = "1" } }"#,
            ),
            (
                "GET http://h/users/admin/x",
                r#"{ path = "/*", method = "GET" }"#,
            ),
            (
                "POST http://h/users/admin/x\nContent-Length: 0",
                "405 PUT, GET",
            ),
        ],
    );
}

#[test]
fn paths_are_compared_in_normal_form() {
    check(
        "/a/b
         /caf%c3%a9/*
         /x/{y}",
        &[
            ("GET http://h/a//b", "/a/b"),
            ("GET http://h/a/./b", "/a/b"),
            ("GET http://h/c/../a/%62", "/a/b"),
            ("GET http://h/caf%C3%A9/x", "/caf%c3%a9/*"),
            ("GET http://h/caf%c3%a9/", "/caf%c3%a9/*"),
            ("GET http://h/x/../b", "404"),
            ("GET http://h/x/%2e%2e/a/b", "/a/b"),
            ("GET http://h/x/a%20b", "/x/{y}"),
            ("GET http://h/x/", "404"),
            ("GET http://h/A/b", "404"),
        ],
    );
}

#[test]
fn predicates_are_tried_in_file_order() {
    check(
        r#"{ path = "/*", header = { upgrade = "websocket" } }
           { path = "/*", method = ["POST", "PUT"], header = { x-key = { prefix = "k" } } }
           { path = "/*", query = { v = "2", q = true } }
           { path = "/*", query = { "a b" = "+ c" } }
           { path = "/*", method = "PURGE" }
           { path = "/*", method = "GET", header = { x-old = true } }
           { path = "/*", method = "GET" }"#,
        &[
            (
                "GET http://h/\nConnection: upgrade\nUpgrade: websocket",
                r#"{ path = "/*", header = { upgrade = "websocket" } }"#,
            ),
            (
                "PUT http://h/\nX-KEY: a\nx-key: kb\nContent-Length: 0",
                r#"{ path = "/*", method = ["POST", "PUT"], header = { x-key = { prefix = "k" } } }"#,
            ),
            (
                "PUT http://h/?v=2&q",
                r#"{ path = "/*", query = { v = "2", q = true } }"#,
            ),
            (
                "GET http://h/?q=&v=1&%76=%32",
                r#"{ path = "/*", query = { v = "2", q = true } }"#,
            ),
            ("GET http://h/?v=2", r#"{ path = "/*", method = "GET" }"#),
            (
                "GET http://h/?v=22&q=",
                r#"{ path = "/*", method = "GET" }"#,
            ),
            ("PUT http://h/?v=2&q+x&q%20=1", "405 PURGE, GET"),
            (
                "PUT http://h/?v=2&q+x&q=+",
                r#"{ path = "/*", query = { v = "2", q = true } }"#,
            ),
            (
                "GET http://h/?a+b=%2B+c",
                r#"{ path = "/*", query = { "a b" = "+ c" } }"#,
            ),
            (
                "GET http://h/?a+b=%2B%c",
                r#"{ path = "/*", method = "GET" }"#,
            ),
            ("PURGE http://h/", r#"{ path = "/*", method = "PURGE" }"#),
            ("HEAD http://h/", "405 PURGE, GET"),
            ("purge http://h/", "405 PURGE, GET"),
        ],
    );
}

#[test]
fn a_cookie_is_any_of_its_name() {
    check(
        r#"{ path = "/*", cookie = { canary = "1", old = false } }
           { path = "/*", cookie = { canary = { prefix = "b-" } } }
           { path = "/*", cookie = { Canary = true } }
           /*"#,
        &[
            (
                "GET http://h/\ncookie: a=b; canary=1",
                r#"{ path = "/*", cookie = { canary = "1", old = false } }"#,
            ),
            (
                "GET http://h/\ncookie: canary=0;canary = 1 ;x",
                r#"{ path = "/*", cookie = { canary = "1", old = false } }"#,
            ),
            (
                "GET http://h/\ncookie: canary=0\ncookie: canary=1",
                r#"{ path = "/*", cookie = { canary = "1", old = false } }"#,
            ),
            ("GET http://h/\ncookie: canary=1; old=", "/*"),
            (
                "GET http://h/\ncookie: canary=b-=7; canary=x",
                r#"{ path = "/*", cookie = { canary = { prefix = "b-" } } }"#,
            ),
            (
                "GET http://h/\ncookie: Canary=",
                r#"{ path = "/*", cookie = { Canary = true } }"#,
            ),
            ("GET http://h/\ncookie: canary=\"1\"", "/*"),
            ("GET http://h/\ncookie: xcanary=1; canary", "/*"),
            ("GET http://h/\nx-cookie: canary=1", "/*"),
        ],
    );
}

#[test]
fn listeners_and_sources_are_predicates() {
    check(
        r#"{ path = "/*", listener = "127.0.0.1:81", source = "10.0.0.0/8" }
           { path = "/*", source = ["192.0.2.0/24", "2001:db8::/32", "10.1.0.0/16"], method = "GET" }
           { path = "/a", listener = ["127.0.0.1:81", "127.0.0.1:80"], method = "PUT" }
           { path = "/a", listener = "127.0.0.1:81" }"#,
        &[
            (
                "GET http://h/b\n@1\n@10.1.2.3",
                r#"{ path = "/*", listener = "127.0.0.1:81", source = "10.0.0.0/8" }"#,
            ),
            (
                "GET http://h/b\n@0\n@10.1.2.3",
                r#"{ path = "/*", source = ["192.0.2.0/24", "2001:db8::/32", "10.1.0.0/16"], method = "GET" }"#,
            ),
            (
                "GET http://h/b\n@2001:db8::1",
                r#"{ path = "/*", source = ["192.0.2.0/24", "2001:db8::/32", "10.1.0.0/16"], method = "GET" }"#,
            ),
            (
                "GET http://h/b\n@::ffff:192.0.2.1",
                r#"{ path = "/*", source = ["192.0.2.0/24", "2001:db8::/32", "10.1.0.0/16"], method = "GET" }"#,
            ),
            ("PUT http://h/b\n@192.0.2.1\ncontent-length: 0", "405 GET"),
            ("GET http://h/b\n@192.0.3.1", "404"),
            ("PUT http://h/b\n@192.0.3.1\ncontent-length: 0", "404"),
            ("GET http://h/b\n@1", "404"),
            (
                "PUT http://h/a\ncontent-length: 0",
                r#"{ path = "/a", listener = ["127.0.0.1:81", "127.0.0.1:80"], method = "PUT" }"#,
            ),
            (
                "GET http://h/a\n@1",
                r#"{ path = "/a", listener = "127.0.0.1:81" }"#,
            ),
            ("GET http://h/a", "405 PUT"),
        ],
    );
}

#[test]
fn claims_of_the_right_rules_decide() {
    let specs = matches(
        r#"{ path = "/*", claim = { plan = "gold" }, method = "GET" }
           { path = "/*", claim = { scope = ["read", "write"] } }
           { path = "/*", claim = { plan = ["silver", "gold"], level = 3 } }
           { path = "/a" }
           /*"#,
    );
    let rules = [Some(JwtId(0)), Some(JwtId(0)), Some(JwtId(2)), None, None];
    let table = RouteTable::from_specs(specs.iter().zip(rules).map(|(matches, jwt)| RouteSpec {
        matches,
        jwt,
        answers_preflights: false,
    }));
    let token = |text: &str| Some(Rc::new(Claims::parse(text.as_bytes()).unwrap()));
    let known = |jwt, claims| VerifiedClaims {
        jwt: JwtId(jwt),
        claims,
    };
    let needs = |id: u32| RouteLookup::NeedsClaims {
        id: RouteId(id),
        pattern: 0,
    };
    let gold = r#"{"plan":"gold","scope":"read","level":3}"#;
    let writer = r#"{"plan":["silver","x"],"scope":["write","read"]}"#;
    for (request, claims, expected) in [
        ("GET http://h/a", vec![], taken(3)),
        ("GET http://h/b", vec![], needs(0)),
        ("PUT http://h/b", vec![], needs(1)),
        ("GET http://h/b", vec![known(0, token(gold))], taken(0)),
        ("PUT http://h/b", vec![known(0, token(gold))], needs(2)),
        ("GET http://h/b", vec![known(0, token(writer))], taken(1)),
        ("GET http://h/b", vec![known(0, None)], needs(2)),
        (
            "GET http://h/b",
            vec![known(0, None), known(2, None)],
            taken(4),
        ),
        (
            "GET http://h/b",
            vec![known(0, None), known(2, token(gold))],
            taken(2),
        ),
        (
            "GET http://h/b",
            vec![known(0, None), known(2, token(writer))],
            taken(4),
        ),
    ] {
        ask(request, |view| {
            let view = RequestView {
                claims: KnownClaims::Verified(&claims),
                ..*view
            };
            assert_eq!(table.find(&view), expected, "{request} {claims:?}");
            let ids = table.claim_candidates(&view);
            match expected {
                RouteLookup::NeedsClaims { id, .. } => {
                    assert_eq!((ids.first(), ids.last()), (Some(&id), Some(&RouteId(4))));
                }
                other => assert_eq!(ids, other.route().as_slice()),
            }
        });
    }
    // A request that is only tried has the same claims by all rules.
    let gold = token(gold);
    for (given, expected) in [(gold.as_ref(), taken(0)), (None, taken(4))] {
        ask("GET http://h/b", |view| {
            let view = RequestView {
                claims: KnownClaims::Given(given),
                ..*view
            };
            assert_eq!(table.find(&view), expected);
        });
    }
}

/// A preflight is answered by the first route with `cors` that may take the request that it announces, but not behind
/// one that takes that request for certain.
#[test]
fn preflights_are_matched_as_the_request_that_they_announce() {
    let lines = r#"{ path = "/a", method = "PUT", header = { x = "1" } }
           { path = "/a", method = ["PUT", "GET"], cookie = { c = true } }
           { path = "/a", method = "PUT" }
           { path = "/a", method = "OPTIONS" }
           { path = "/b", method = "POST" }
           { path = "/c", query = { q = "1" } }
           { path = "/d", source = "10.0.0.0/8" }
           /*"#;
    let specs = matches(lines);
    let with_cors = [1, 2, 5, 6, 7];
    let table = RouteTable::from_specs((0..).zip(&specs).map(|(index, matches)| RouteSpec {
        matches,
        jwt: None,
        answers_preflights: with_cors.contains(&index),
    }));
    let not_allowed = |methods: &str| RouteLookup::MethodNotAllowed(methods.to_owned());
    for (path, asked, expected) in [
        ("/a", "PUT", taken(1)),
        ("/a", "GET", taken(1)),
        ("/a", "DELETE", taken(7)),
        // The route that takes the POST has no `cors`, so no other may allow it.
        ("/b", "POST", taken(7)),
        ("/b", "PUT", taken(7)),
        ("/c", "PUT", taken(7)),
        ("/c?q=1", "PUT", taken(5)),
        ("/c?q=0;q=1", "PUT", RouteLookup::Ambiguous),
        ("/d", "GET", taken(7)),
        ("/d\n@10.0.0.1", "GET", taken(6)),
    ] {
        let request = format!("OPTIONS http://h{path}\norigin: https://o");
        ask(&request, |view| {
            let view = RequestView {
                preflight_for: Some(asked.as_bytes()),
                ..*view
            };
            let found = table.find(&view);
            assert_eq!(found, expected, "{path} for {asked}");
            let explained = table.explain(&view);
            let verdict_of = |wanted: RouteVerdict<'_>| {
                let mut all = explained.considered.iter();
                all.find(|each| each.verdict == wanted)
                    .map(|each| each.route)
            };
            assert_eq!(verdict_of(RouteVerdict::Taken), found.route(), "{path}");
        });
    }
    // Without a preflight, OPTIONS is a method as any other.
    ask("OPTIONS http://h/a", |view| {
        assert_eq!(table.find(view), taken(3))
    });
    let only_get = matches(r#"{ path = "/a", method = "GET" }"#);
    let table = RouteTable::from_specs(&only_get);
    ask("OPTIONS http://h/a", |view| {
        let view = RequestView {
            preflight_for: Some(b"GET"),
            ..*view
        };
        assert_eq!(table.find(&view), not_allowed("GET"));
    });
}

#[test]
fn a_failed_route_gives_way_to_less_specific_ones() {
    check(
        r#"{ host = "a.b.c", path = "/x", method = "GET" }
           { host = "a.b.c", path = "/{any}", method = "PUT" }
           { host = "a.b.c", path = "/*", header = { need = "1" } }
           { host = "*.b.c", path = "/x", method = "DELETE" }
           { host = "*.c", path = "/x", header = { other = "1" }, method = "PATCH" }
           { path = "/x", query = { any = true } }"#,
        &[
            (
                "GET http://a.b.c/x",
                r#"{ host = "a.b.c", path = "/x", method = "GET" }"#,
            ),
            (
                "PUT http://a.b.c/x\nContent-Length: 0",
                r#"{ host = "a.b.c", path = "/{any}", method = "PUT" }"#,
            ),
            (
                "PUT http://a.b.c/x/y\nneed: 1\nContent-Length: 0",
                r#"{ host = "a.b.c", path = "/*", header = { need = "1" } }"#,
            ),
            (
                "DELETE http://a.b.c/x",
                r#"{ host = "*.b.c", path = "/x", method = "DELETE" }"#,
            ),
            (
                "OPTIONS http://a.b.c/x?any",
                r#"{ path = "/x", query = { any = true } }"#,
            ),
            ("OPTIONS http://a.b.c/x", "405 GET, PUT, DELETE"),
            (
                "OPTIONS http://a.b.c/x\nother: 1",
                "405 GET, PUT, DELETE, PATCH",
            ),
            ("GET http://a.b.c/x/y", "404"),
        ],
    );
}

#[test]
fn explain_lists_routes_in_order_with_the_failed_predicate() {
    let table = RouteTable::from_specs(&matches(
        r#"other.com/*
           { path = "/*", header = { x = "1" } }
           { path = "/a", method = "PUT" }
           { path = "/a", query = { q = "1" } }
           { path = "/a", header = { x = "2" }, query = { q = "2" } }
           /{b}
           /b"#,
    ));
    let explained = ask("GET http://h/a\nx: 1", |view| {
        let explained = table.explain(view);
        assert_eq!(explained.found, table.find(view));
        explained
    });
    assert_eq!(explained.found, taken(5));
    let said: Vec<_> = explained
        .considered
        .iter()
        .map(|each| match each.verdict {
            RouteVerdict::FailedPredicate(failed) => format!("{} {failed}", each.route.0),
            verdict => format!("{} {verdict:?}", each.route.0),
        })
        .collect();
    assert_eq!(
        said,
        [
            "2 method is not PUT",
            "3 query parameter `q` is not \"1\"",
            "4 header `x` is not \"2\"",
            "5 Taken",
            "1 Outranked",
            "0 Host",
            "6 Path",
        ]
    );
}

#[test]
fn an_empty_table_finds_nothing() {
    let table = RouteTable::default();
    assert_eq!(
        ask("GET http://h/", |view| table.find(view)),
        RouteLookup::None
    );
}

/// All templates of ten segments, each a letter or a parameter. A walk that visits nodes twice would not end.
#[test]
fn overlapping_templates_are_visited_once() {
    let mut routes = String::new();
    for bits in 0..1 << 10 {
        for place in 0..10 {
            let is_parameter = bits & 1 << place != 0;
            routes.push_str(&if is_parameter {
                format!("/{{p{place}}}")
            } else {
                "/a".to_owned()
            });
        }
        routes.push_str("/end\n");
    }
    let table = RouteTable::from_specs(&matches(&routes));
    let path = "/a".repeat(10);
    let find = |rest: &str| {
        ask(&format!("GET http://h{path}{rest}"), |view| {
            table.find(view)
        })
    };
    assert_eq!(find("/end"), taken(0));
    assert_eq!(find("/other"), RouteLookup::None);
    assert_eq!(find("/a/a/a/a/a/a/a/a/a/a/a/a/end"), RouteLookup::None);
}
