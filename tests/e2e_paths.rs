//! The paths that endpoints receive. No spelling of a path evades a route that forbids it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use e2e::*;

/// A Weir that forbids `/admin/*` and an endpoint that answers with the target that it receives.
fn guarded(routes: &str) -> (Endpoint, Weir) {
    let endpoint = Endpoint::answering(|request| ok(request.target()));
    let name = &endpoint.name;
    let config = format!(
        "[upstream.up]\nservers = [{name:?}]\n[[route]]\nmatch = \"/admin/*\"\nrespond = 403\n{routes}"
    );
    let weir = Weir::start(&config);
    (endpoint, weir)
}

const REST: &str = "[[route]]\nmatch = \"/*\"\nto = \"up\"\n";

/// Asserts this reason in answer and log.
#[track_caller]
fn assert_refused(weir: &Weir, request: &str, status: u16, reason: &str) {
    let response = weir.ask(request);
    assert_eq!(response.status(), status, "{request}");
    let said = format!("\"reason\":\"{reason}\"");
    assert!(
        response.text().contains(&said),
        "{request}: {}",
        response.text()
    );
}

#[test]
fn no_form_of_a_path_passes_by_a_route_that_forbids_it() {
    let (endpoint, weir) = guarded(REST);
    for path in [
        "/admin//../users",
        "/admin//%2e%2e/users",
        "/admin//.%2E/users",
        "/admin/x//../../users",
        "/x/..%2fadmin/y",
        "/x/..%5cadmin/y",
        "/admin%2fx",
        "/admin%5Cx",
        "/x/..;/admin/y",
        "/x/%2e%2e;a=b/admin/y",
        "/admin;x/y",
        "/admin;",
        "/;x/admin/y",
        "/x/%c0%ae%c0%ae/admin/y",
        "/admin%c0%afy",
        "/x/%252e%252e/admin/y",
        "/admin%252fy",
        "//x/admin/y",
    ] {
        assert_refused(&weir, &get(path), 400, "bad_path");
    }
    for path in [
        "/admin",
        "/admin/x",
        "//admin//x",
        "/x/../admin/y",
        "/%61dmin/%2e/y",
    ] {
        assert_eq!(weir.ask(get(path)).status(), 403, "{path}");
    }
    assert_eq!(endpoint.connections(), 0, "nothing was forwarded");
    let entry = weir.entry("/admin//../users");
    assert_eq!(
        (entry.text("reason").as_str(), entry.number("status")),
        ("bad_path", 400.0)
    );
}

#[test]
fn endpoints_see_the_path_as_it_came_or_as_it_was_matched() {
    let (_endpoint, weir) = guarded(REST);
    for (asked, seen) in [
        ("/bucket//key///x", "/bucket//key///x"),
        ("//bucket/key?a=b", "//bucket/key?a=b"),
        ("/@scope%2fpackage", "/@scope%2fpackage"),
        ("/%7ea/%C3%a4%20?%2e%2e/..", "/%7ea/%C3%a4%20?%2e%2e/.."),
        ("/a;b=c/d", "/a;b=c/d"),
        ("/a/./b?c=d", "/a/b?c=d"),
        ("/admin/../users", "/users"),
        ("/admin/%2E%2e/users?", "/users?"),
        ("/x//..//../y//z", "/y/z"),
        ("http://weir.test/a/../b?c", "/b?c"),
        ("http://weir.test?c", "/?c"),
    ] {
        assert_eq!(weir.ask(get(asked)).text(), seen, "{asked}");
    }
}

#[test]
fn a_route_says_what_becomes_of_encoded_slashes() {
    let (endpoint, weir) = guarded(
        "[[route]]\nmatch = \"/gitlab/{project}\"\nto = \"up\"\nencoded_slash = \"keep\"\n\
         [[route]]\nmatch = \"/strict/*\"\nto = \"up\"\nencoded_slash = \"refuse\"\n\
         [[route]]\nmatch = \"/npm/*\"\nto = \"up\"\nstrip = \"/npm\"\n",
    );
    for (asked, seen) in [
        ("/gitlab/group%2Fproject", "/gitlab/group%2Fproject"),
        ("/gitlab/..%2fadmin", "/gitlab/..%2fadmin"),
        ("/npm/@scope%2fname", "/@scope%2fname"),
        ("/npm/bucket//key", "/bucket//key"),
        ("/strict/a/b", "/strict/a/b"),
    ] {
        assert_eq!(weir.ask(get(asked)).text(), seen, "{asked}");
    }
    let before = endpoint.requests().len();
    for path in ["/strict/a%2fb", "/strict/a%5Cb", "/npm/..%2fgitlab/x"] {
        assert_refused(&weir, &get(path), 400, "bad_path");
    }
    assert_eq!(endpoint.requests().len(), before);
}

#[test]
fn a_rewrite_leads_to_no_other_path() {
    let (endpoint, weir) = guarded(
        "[[route]]\nmatch = \"/static*\"\nto = \"up\"\nreplace = \"/files/{rest}\"\n\
         [[route]]\nmatch = \"/api*\"\nto = \"up\"\nstrip = \"/api\"\n\
         [[route]]\nmatch = \"/go*\"\nredirect = \"/files/{rest}\"\n",
    );
    for path in [
        "/static../secret",
        "/static%2e%2e/secret",
        "/static..%2fsecret",
        "/static..;/secret",
        "/api../secret",
        "/api..%5csecret",
        "/go../secret",
    ] {
        assert_refused(&weir, &get(path), 400, "bad_path");
    }
    assert_eq!(endpoint.connections(), 0);
    assert_eq!(weir.ask(get("/static/a/../b")).text(), "/files//b");
    assert_eq!(weir.ask(get("/api/..a")).text(), "/..a");
    assert_eq!(weir.ask(get("/go-x")).field("Location"), Some("/files/-x"));
}

#[test]
fn a_host_is_spelt_in_one_way() {
    let endpoint = Endpoint::answering(|request| ok(request.target()));
    let name = &endpoint.name;
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [{name:?}]\n[[route]]\nmatch = \"a.test/*\"\nrespond = 403\n{REST}"
    ));
    let ask = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for host in ["a.test", "A.Test", "a.test.", "a.test:8080", "a.test.:8080"] {
        assert_eq!(weir.ask(ask(host)).status(), 403, "{host}");
    }
    for host in ["a.test..", ".a.test", "a..test", ".", "..", "a.test..:80"] {
        assert_refused(&weir, &ask(host), 400, "bad_host");
    }
    assert_refused(
        &weir,
        "GET http://a.test../ HTTP/1.1\r\nHost: b\r\n\r\n",
        400,
        "bad_host",
    );
    assert_eq!(endpoint.connections(), 0);
}

/// `OPTIONS http://host` means `OPTIONS *` (RFC 9112, section 3.2.4) and is not a request for `/`.
#[test]
fn options_of_a_whole_server_pass_by_no_route() {
    let endpoint = Endpoint::answering(|request| ok(request.target()));
    let name = &endpoint.name;
    let weir = Weir::start(&format!(
        "[upstream.up]\nservers = [{name:?}]\n[[route]]\nmatch = {{ path = \"/\", method = \"GET\" }}\nrespond = 403\n{REST}"
    ));
    for target in ["*", "http://weir.test"] {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nHost: weir.test\r\n\r\n");
        assert_refused(&weir, &request, 404, "no_route");
    }
    assert_eq!(endpoint.connections(), 0);
    for target in ["/", "http://weir.test/", "http://weir.test?"] {
        let request = format!("OPTIONS {target} HTTP/1.1\r\nHost: weir.test\r\n\r\n");
        let seen = weir.ask(request).text();
        assert!(matches!(seen.as_str(), "/" | "/?"), "{target}: {seen}");
    }
}

#[test]
fn no_separator_slips_past_a_query_predicate() {
    let (endpoint, weir) = guarded(&format!(
        "[[route]]\nmatch = {{ path = \"/*\", query = {{ debug = true }} }}\nrespond = 403\n{REST}"
    ));
    for target in ["/?debug=1", "/?a&%64ebug=1", "/?x&debug&debug=0"] {
        assert_eq!(weir.ask(get(target)).status(), 403, "{target}");
    }
    for target in ["/?a;debug=1", "/?a=1;%64ebug=1", "/?debug;a"] {
        assert_refused(&weir, &get(target), 400, "bad_path");
    }
    assert_eq!(endpoint.connections(), 0);
    assert_eq!(weir.ask(get("/?a;b=debug")).text(), "/?a;b=debug");
}
