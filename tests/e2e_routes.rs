//! Which route handles a request, and the answers that Weir makes itself.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use e2e::*;

/// A Weir that answers with the name of the route.
fn named(routes: &[(&str, &str)]) -> Weir {
    let mut config = String::new();
    for (name, matched) in routes {
        config +=
            &format!("[[route]]\nname = \"{name}\"\nmatch = {matched}\nrespond = \"{name}\"\n");
    }
    Weir::start(&config)
}

/// Sends a GET for the path at the host and returns the body.
#[track_caller]
fn at(weir: &Weir, host: &str, path: &str) -> String {
    let response = weir.ask(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    match response.status() {
        200 => response.text(),
        status => status.to_string(),
    }
}

#[test]
fn routes_match_by_host_and_path() {
    let weir = named(&[
        ("any", "\"/*\""),
        ("exact host", "\"a.test/*\""),
        ("wildcard", "\"*.test/*\""),
        ("longer wildcard", "\"*.b.test/*\""),
        ("full path", "\"a.test/x/y\""),
        ("template", "\"a.test/x/{id}\""),
        ("prefix", "\"a.test/x/*\""),
    ]);
    for (host, path, expected) in [
        ("other", "/", "any"),
        ("a.test", "/", "exact host"),
        ("A.Test:8080", "/q", "exact host"),
        ("a.test.", "/q", "exact host"),
        ("c.test", "/", "wildcard"),
        ("c.b.test", "/", "longer wildcard"),
        ("test", "/", "any"),
        ("a.test", "/x/y", "full path"),
        ("a.test", "/x/y?q", "full path"),
        ("a.test", "/x/z", "template"),
        ("a.test", "/x/z/w", "prefix"),
        ("[::1]:80", "/", "any"),
    ] {
        assert_eq!(at(&weir, host, path), expected, "{host} {path}");
    }
}

#[test]
fn a_route_has_several_hosts_and_paths_and_a_star_takes_what_is_in_front_of_its_slash() {
    let weir = named(&[
        (
            "several",
            "{ host = [\"a.test\", \"*.b.test\"], path = [\"/x\", \"/y/*\", \"/z/{id}\"] }",
        ),
        (
            "health",
            "{ host = [\"*\", \"a.test\"], path = \"/health\" }",
        ),
        ("of a", "\"a.test/*\""),
        ("admin", "\"/admin/*\""),
        ("v1", "\"/v1/*\""),
        ("v1 itself", "\"/v1\""),
        ("any", "\"/*\""),
    ]);
    for (host, path, expected) in [
        ("a.test", "/x", "several"),
        ("q.b.test", "/y", "several"),
        ("q.b.test", "/y/z", "several"),
        ("a.test", "/z/7", "several"),
        ("a.test", "/z/7/8", "of a"),
        ("b.test", "/x", "any"),
        ("a.test", "/health", "health"),
        ("other", "/health", "health"),
        ("other", "/admin", "admin"),
        ("other", "/admin/", "admin"),
        ("other", "/admins", "any"),
        ("other", "/v1", "v1 itself"),
        ("other", "/v1/", "v1"),
    ] {
        assert_eq!(at(&weir, host, path), expected, "{host} {path}");
    }
}

#[test]
fn predicates_choose_among_routes_of_one_path() {
    let weir = named(&[
        ("post", "{ path = \"/p\", method = \"POST\" }"),
        ("beta", "{ path = \"/p\", header = { x-beta = \"on\" } }"),
        (
            "bearer",
            "{ path = \"/p\", header = { authorization = { prefix = \"Bearer \" } } }",
        ),
        ("query", "{ path = \"/p\", query = { format = \"json\" } }"),
        (
            "old",
            "{ path = \"/p\", header = { x-old = true, x-new = false } }",
        ),
        ("rest", "\"/p\""),
    ]);
    let ask = |request: &str| weir.ask(request).text();
    assert_eq!(ask(&post("/p", "")), "post");
    assert_eq!(
        ask("GET /p HTTP/1.1\r\nHost: a\r\nX-Beta: on\r\n\r\n"),
        "beta"
    );
    assert_eq!(
        ask("GET /p HTTP/1.1\r\nHost: a\r\nX-Beta: off\r\n\r\n"),
        "rest"
    );
    assert_eq!(
        ask("GET /p HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\n\r\n"),
        "bearer"
    );
    assert_eq!(ask(&get("/p?a=b&format=json")), "query");
    assert_eq!(ask(&get("/p?format=xml")), "rest");
    assert_eq!(ask("GET /p HTTP/1.1\r\nHost: a\r\nX-Old: 1\r\n\r\n"), "old");
    assert_eq!(
        ask("GET /p HTTP/1.1\r\nHost: a\r\nX-Old: 1\r\nX-New: 1\r\n\r\n"),
        "rest"
    );
}

#[test]
fn paths_are_normalised_for_matching() {
    let weir = named(&[
        ("admin", "\"/admin/*\""),
        ("public", "\"/*\""),
        ("umlaut", "\"/caf%C3%A9\""),
    ]);
    for path in [
        "/admin/x",
        "//admin///x",
        "/public/../admin/x",
        "/./admin/x",
        "/%61dmin/x",
        "/public/%2e%2E/admin/x",
        "/admin/.",
        "/a/b/../../admin/",
    ] {
        assert_eq!(at(&weir, "a", path), "admin", "{path}");
    }
    assert_eq!(at(&weir, "a", "/caf%c3%a9"), "umlaut");
    assert_eq!(at(&weir, "a", "/Admin/x"), "public", "case matters");
}

#[test]
fn a_path_that_is_none_is_refused() {
    let weir = named(&[("all", "\"/*\"")]);
    for path in ["/a\\b", "/a%00b", "/a%", "/a%zz"] {
        let response = weir.ask(get(path));
        assert_eq!(response.status(), 400, "{path}");
        assert!(
            response.text().contains("\"reason\":\"bad_path\""),
            "{path}: {}",
            response.text()
        );
    }
}

#[test]
fn a_wrong_method_is_405_with_what_is_allowed() {
    let weir = named(&[("p", "{ path = \"/p\", method = [\"POST\", \"PUT\"] }")]);
    let response = weir.ask(get("/p"));
    assert_eq!(
        (response.status(), response.field("Allow")),
        (405, Some("POST, PUT"))
    );
    assert!(response.text().contains("\"method_not_allowed\""));
    for method in ["POST", "PUT"] {
        let allowed = get("/p").replace("GET", method);
        assert_eq!(weir.ask(allowed).text(), "p");
    }
    assert_eq!(weir.ask(get("/q")).status(), 404);
}

#[test]
fn the_path_is_rewritten() {
    let endpoint = Endpoint::answering(|request| ok(request.target()));
    let name = &endpoint.name;
    let mut config = format!("[upstream.up]\nservers = [{name:?}]\n");
    for (matched, rewrite) in [
        ("/v1/*", "strip = \"/v1\""),
        ("/old/*", "replace = { prefix = \"/old\", with = \"/new\" }"),
        ("/users/{id}/posts/*", "replace = \"/posts/{rest}/of/{id}\""),
        ("/fixed", "replace = \"/elsewhere\""),
    ] {
        config += &format!("[[route]]\nmatch = {matched:?}\nto = \"up\"\n{rewrite}\n");
    }
    let weir = Weir::start(&config);
    for (asked, forwarded) in [
        ("/v1/users/7?a=b", "/users/7?a=b"),
        ("/v1/", "/"),
        ("/v1", "/"),
        ("/v1?q", "/?q"),
        ("/old", "/new"),
        ("/users/42/posts", "/posts//of/42"),
        ("/old/a/b?c", "/new/a/b?c"),
        ("/users/42/posts/1/2", "/posts/1/2/of/42"),
        ("/fixed?q=1", "/elsewhere?q=1"),
        ("/v1/a%20b", "/a%20b"),
    ] {
        assert_eq!(weir.ask(get(asked)).text(), forwarded, "{asked}");
    }
}

#[test]
fn a_redirect_answers_with_the_new_address() {
    let weir = Weir::start(
        "[[route]]\nmatch = \"www.test/*\"\nredirect = \"https://{host}{path}{query}\"\n\
         [[route]]\nmatch = \"/old/*\"\nredirect = { location = \"/new/{rest}{query}\", status = 308 }\n\
         [[route]]\nmatch = \"/people/{name}\"\nredirect = { location = \"/users/{name}\", status = 301 }\n",
    );
    let ask = |request: &str| {
        let response = weir.ask(request);
        assert_eq!(response.text(), "");
        (
            response.status(),
            response.field("Location").unwrap().to_owned(),
        )
    };
    let to = |status, location: &str| (status, location.to_owned());
    assert_eq!(
        ask("GET /a/b?c=d HTTP/1.1\r\nHost: www.test:80\r\n\r\n"),
        to(307, "https://www.test/a/b?c=d")
    );
    assert_eq!(ask(&get("/old/x/y?z")), to(308, "/new/x/y?z"));
    assert_eq!(ask(&get("/people/ann")), to(301, "/users/ann"));
    // An unread request body does not disturb the next request.
    let mut client = weir.connect();
    client.send(post("/people/bob", "who?") + &get("/people/cat"));
    assert_eq!(client.response().field("Location"), Some("/users/bob"));
    assert_eq!(client.response().field("Location"), Some("/users/cat"));
}

#[test]
fn a_redirect_never_leads_where_the_client_says() {
    let weir = Weir::start("[[route]]\nmatch = \"/go/*\"\nredirect = \"/{rest}\"\n");
    for path in [
        "/go//evil.test",
        "/go/%0d%0aSet-Cookie:x",
        "/go/\\evil.test",
    ] {
        let response = weir.ask(get(path));
        let location = response.field("Location").unwrap_or("/");
        assert!(
            location.starts_with('/') && !location.starts_with("//"),
            "{path}: {location}"
        );
        assert_eq!(response.field("Set-Cookie"), None, "{path}");
    }
}

#[test]
fn a_fixed_answer_is_as_the_file_says() {
    let weir = Weir::start(
        "[[route]]\nmatch = \"/ping\"\nrespond = \"pong\\n\"\n\
         [[route]]\nmatch = \"/gone\"\nrespond = 410\n\
         [[route]]\nmatch = \"/json\"\nrespond = { status = 418, body = '{}', content_type = \"application/json\", headers = { x-by = \"weir\" } }\n",
    );
    let mut client = weir.connect();
    client.send(get("/ping"));
    let pong = client.response();
    assert_eq!((pong.status(), pong.text().as_str()), (200, "pong\n"));
    assert_eq!(
        pong.field("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    assert!(httpdate::parse_http_date(pong.field("Date").unwrap()).is_ok());
    client.send("HEAD /ping HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    assert_eq!(client.message_head().status(), 200);
    client.send(get("/gone"));
    assert_eq!(client.response().status(), 410);
    client.send(get("/json"));
    let json = client.response();
    assert_eq!((json.status(), json.text().as_str()), (418, "{}"));
    assert_eq!(
        (json.field("Content-Type"), json.field("X-By")),
        (Some("application/json"), Some("weir"))
    );
    assert_eq!(weir.entry("/json").text("route"), "/json");
}

#[test]
fn a_local_answer_gives_its_reason_in_three_places_that_agree() {
    let weir = named(&[("one", "\"one.test/*\"")]);
    let response = weir.ask(get("/nowhere"));
    assert_eq!(response.status(), 404);
    assert_eq!(
        response.field("Content-Type"),
        Some("application/problem+json")
    );
    assert_eq!(response.field("Cache-Control"), Some("no-store"));
    let problem: tinyjson::JsonValue = response.text().parse().unwrap();
    let part = |name: &str| problem[name].get::<String>().cloned().unwrap();
    assert_eq!(
        (part("reason").as_str(), part("title").as_str()),
        ("no_route", "Not Found")
    );
    assert_eq!(problem["status"].get::<f64>(), Some(&404.0));
    let status = response.field("Proxy-Status").unwrap();
    assert!(status.starts_with("weir-"), "{status}");
    assert!(
        status.ends_with("; error=destination_not_found; details=\"no_route\""),
        "{status}"
    );
    let entry = weir.entry("/nowhere");
    assert_eq!(
        (entry.text("reason"), entry.text("id")),
        (part("reason"), part("request_id"))
    );
    assert_eq!(
        (entry.number("status"), entry.number("bytes_out")),
        (404.0, response.body.len() as f64)
    );
    // HEAD gets only the head.
    let mut client = weir.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    assert_eq!(client.message_head().status(), 404);
    client.finish();
    client.expect_closed();
}
