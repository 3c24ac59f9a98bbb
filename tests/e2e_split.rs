//! Routes whose requests several upstreams share.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use e2e::*;

/// A Weir whose route shares requests among `app` and `canary`.
fn split(to: &str, settings: &str, app: &Endpoint, canary: &Endpoint) -> Weir {
    let (app, canary) = (&app.name, &canary.name);
    Weir::start(&format!(
        "[upstream]\napp = [\"{app}\"]\ncanary = [\"{canary}\"]\n\
         [[route]]\nmatch = \"/*\"\nto = {{ {to} }}\n{settings}\n"
    ))
}

fn named(name: &'static str) -> Endpoint {
    Endpoint::answering(move |_| ok(name))
}

/// A GET with one more field.
fn get_with(field: &str) -> String {
    get("/").replacen("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"), 1)
}

#[test]
fn shares_hold_and_the_log_has_the_upstream() {
    let (app, canary) = (named("app"), named("canary"));
    let weir = split("app = 80, canary = 20", "", &app, &canary);
    let mut client = weir.connect();
    for _ in 0..2_000 {
        client.send(get("/"));
        assert_eq!(client.response().status(), 200);
    }
    let share = canary.requests().len() as f64 / 2_000.0;
    assert!((share - 0.2).abs() < 0.03, "{share}");
    let response = weir.ask(get("/last"));
    assert_eq!(weir.entry("/last").text("upstream"), response.text());
}

#[test]
fn a_cookie_keeps_a_client_at_its_upstream() {
    let (app, canary) = (named("app"), named("canary"));
    let weir = split(
        "app = 1, canary = 1",
        "split = { sticky = \"cookie\" }",
        &app,
        &canary,
    );
    for _ in 0..8 {
        let first = weir.ask(get("/"));
        let set = first.field("set-cookie").unwrap().to_owned();
        let (pair, attributes) = set.split_once(';').unwrap();
        assert_eq!(attributes, " Path=/; HttpOnly; SameSite=Lax");
        for _ in 0..8 {
            let next = weir.ask(get_with(&format!("Cookie: {pair}")));
            assert_eq!(next.text(), first.text());
            assert_eq!(next.field("set-cookie"), None);
        }
    }
    let forged = weir.ask(get_with("Cookie: weir-split-00000000=0123456789abcdef"));
    assert!(forged.field("set-cookie").is_some());
}

#[test]
fn a_field_forces_an_upstream() {
    let (app, canary) = (named("app"), named("canary"));
    let force = "split = { force = \"x-upstream\" }";
    let weir = split("app = 1, canary = 0", force, &app, &canary);
    for _ in 0..4 {
        let forced = weir.ask(get_with("X-Upstream: canary"));
        assert_eq!(forced.text(), "canary");
        assert_eq!(weir.ask(get_with("X-Upstream: other")).text(), "app");
        assert_eq!(weir.ask(get("/")).text(), "app");
    }
}

#[test]
fn a_retry_stays_with_the_upstream() {
    let app = named("app");
    let canary = Endpoint::answering(|_| "HTTP/1.1 503 Sorry\r\nContent-Length: 5\r\n\r\nsorry");
    let weir = split("app = 1, canary = 1", "", &app, &canary);
    for _ in 0..16 {
        let response = weir.ask(get("/"));
        match response.text().as_str() {
            "app" => assert_eq!(response.status(), 200),
            _ => assert_eq!(response.status(), 503),
        }
    }
    assert!(!canary.requests().is_empty());
}
