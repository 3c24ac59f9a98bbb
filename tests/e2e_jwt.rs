//! Tokens of an issuer that comes, goes, and changes its keys.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::process::Command;

use e2e::*;

/// A GET with these field lines.
fn with(lines: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: weir.test\r\n{lines}\r\n")
}

fn bearer(token: &str) -> String {
    with(&format!("Authorization: Bearer {token}\r\n"))
}

/// A Weir that passes requests with tokens to `endpoint`. `jwt` is the key's value.
fn weir(endpoint: &Endpoint, jwt: &str) -> Weir {
    Weir::start(&config(endpoint, jwt))
}

fn config(endpoint: &Endpoint, jwt: &str) -> String {
    format!("{}\njwt = {jwt}\n", route_to(&[endpoint]))
}

/// The status of the answer, and its reason.
fn outcome(weir: &Weir, request: &str) -> (u16, String) {
    let answer = weir.ask(request);
    let details = answer.field("Proxy-Status").unwrap_or_default().to_owned();
    let reason = details
        .split("details=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    (answer.status(), reason.unwrap_or_default().to_owned())
}

#[test]
fn a_valid_token_passes_and_endpoints_get_its_claims() {
    let key = TokenKey::new("k");
    let (issuer, endpoint) = (Issuer::start(&key), Endpoint::answering(|_| ok("hello")));
    let url = issuer.url();
    let weir = weir(
        &endpoint,
        &format!(
            "{{ issuer = {url:?}, audience = \"api\", require = {{ scope = [\"read\", \"list\"] }}, \
             claims_to_headers = {{ sub = \"X-User\", roles = \"X-Roles\", evil = \"X-Evil\" }} }}"
        ),
    );
    let token = key.token(
        &url,
        r#""sub":"ann","scope":"list read","roles":["a","b"],"evil":"a\r\nX-Admin: 1""#,
    );
    for _ in 0..3 {
        let forged = format!(
            "x-user: root\r\nX-USER: root\r\nX-Roles: admin\r\nX-Evil: 1\r\nAuthorization: Bearer {token}\r\n"
        );
        assert_eq!(weir.ask(with(&forged)).text(), "hello");
        let seen = endpoint.requests().pop().unwrap();
        assert_eq!(seen.all("x-user"), ["ann"]);
        assert_eq!(seen.all("x-roles"), ["a,b"]);
        assert!(seen.all("x-evil").is_empty() && seen.all("x-admin").is_empty());
        assert!(seen.all("authorization").is_empty());
    }
    let none = weir.ask(with(""));
    none.expect_refusal(401, "token_missing", "http_request_denied");
    assert_eq!(
        none.field("WWW-Authenticate"),
        Some("Bearer realm=\"weir\"")
    );
    let basic = weir.ask(with("Authorization: Basic eDp5\r\n"));
    basic.expect_refusal(401, "token_missing", "http_request_denied");
    let two = weir.ask(with(&format!(
        "Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"
    )));
    two.expect_refusal(400, "token_ambiguous", "http_request_error");
    let expired = weir.ask(bearer(
        &key.sign(&format!("{{\"iss\":{url:?},\"aud\":\"api\",\"exp\":1}}")),
    ));
    expired.expect_refusal(401, "token_expired", "http_request_denied");
    assert_eq!(
        expired.field("WWW-Authenticate"),
        Some(
            "Bearer realm=\"weir\", error=\"invalid_token\", error_description=\"the token has expired\""
        )
    );
    // A second time from the cache.
    let weak = key.token(&url, r#""scope":"read""#);
    for _ in 0..2 {
        let weak = weir.ask(bearer(&weak));
        weak.expect_refusal(403, "insufficient_scope", "http_request_denied");
        let challenge = weak.field("WWW-Authenticate").unwrap();
        assert!(challenge.ends_with("error=\"insufficient_scope\", error_description=\"the token does not grant this\", scope=\"read list\""));
    }
    let other = TokenKey::new("k");
    for token in [
        other.token(&url, r#""scope":"read list""#),
        key.token("https://other.example/", r#""scope":"read list""#),
        key.sign(&format!(
            "{{\"iss\":{url:?},\"aud\":\"other\",\"exp\":99999999999}}"
        )),
        format!("{}x", key.token(&url, "")),
        "x".to_owned(),
        "a".repeat(15_000),
    ] {
        weir.ask(bearer(&token))
            .expect_refusal(401, "token_invalid", "http_request_denied");
    }
    let entry = weir.entry_with("subject", "ann");
    assert_eq!(entry.text("policy"), "");
    let entry = weir.entry_with("reason", "token_expired");
    assert_eq!(entry.text("policy"), "jwt");
    assert_eq!(
        endpoint.requests().len(),
        3,
        "no endpoint saw a refused request"
    );
}

#[test]
fn weir_starts_without_the_issuer_and_keeps_its_keys_when_it_fails() {
    let (key, address) = (TokenKey::new("k"), free_address("127.0.0.1"));
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let url = format!("http://{address}/");
    let weir = weir(&endpoint, &format!("\"{url} for api\""));
    weir.wait_for(&format!("there are no keys of {url}: "));
    let token = bearer(&key.token(&url, ""));
    assert_eq!(outcome(&weir, &token), (503, "keys_unavailable".to_owned()));
    assert_eq!(outcome(&weir, &with("")), (401, "token_missing".to_owned()));
    assert_eq!(
        weir.metric(&format!("weir_jwt_keys{{source=\"{url}\"}}")),
        0.0
    );
    assert!(
        weir.admin("/healthz?verbose")
            .text()
            .contains(&format!("no keys of {url}: "))
    );
    let issuer = Issuer::start_at(address, &key, None);
    eventually("the keys arrive", || {
        (outcome(&weir, &token).0 == 200).then_some(())
    });
    weir.wait_for(&format!("keys of {url}: 1 key in use"));
    assert_eq!(
        weir.metric(&format!("weir_jwt_keys{{source=\"{url}\"}}")),
        1.0
    );
    drop(issuer);
    // Also over a reload, which asks nobody for keys that are there.
    weir.reload(&format!(
        "{}\n# changed",
        config(&endpoint, &format!("\"{url} for api\""))
    ));
    weir.wait_for("reloaded in");
    assert_eq!(outcome(&weir, &token).0, 200);
    assert_eq!(
        outcome(&weir, &bearer(&key.token(&url, "\"sub\":\"new\""))).0,
        200
    );
}

#[test]
fn a_token_with_a_new_key_makes_weir_look_once() {
    let (old, new) = (TokenKey::new("old"), TokenKey::new("new"));
    let (issuer, endpoint) = (Issuer::start(&old), Endpoint::answering(|_| ok("hello")));
    let url = issuer.url();
    let weir = weir(&endpoint, &format!("\"{url} for api\""));
    let (of_old, of_new) = (bearer(&old.token(&url, "")), bearer(&new.token(&url, "")));
    assert_eq!(outcome(&weir, &of_old).0, 200);
    assert_eq!(issuer.documents().fetches, [1, 1]);
    issuer.documents().keys = key_set(&[&new]);
    eventually("the new key is there", || {
        (outcome(&weir, &of_new).0 == 200).then_some(())
    });
    assert_eq!(issuer.documents().fetches, [2, 2], "once in ten seconds");
    // The token was in the cache, and its key is gone.
    assert_eq!(outcome(&weir, &of_old), (401, "token_invalid".to_owned()));
}

#[test]
fn documents_that_cannot_be_trusted_give_no_keys() {
    let key = TokenKey::new("k");
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let secret = r#"{"keys":[{"kty":"oct","kid":"k","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}]}"#;
    type Change<'a> = &'a dyn Fn(&Issuer);
    let cases: [(&str, Change<'_>, &str); 6] = [
        (
            "mismatch",
            &|issuer| issuer.documents().discovery = r#"{"issuer":"http://other/"}"#.to_owned(),
            "not of",
        ),
        (
            "secret",
            &|issuer| issuer.documents().keys = secret.to_owned(),
            "it is a secret",
        ),
        (
            "redirect",
            &|issuer| issuer.documents().status = 302,
            "follows no redirects",
        ),
        (
            "error",
            &|issuer| issuer.documents().status = 500,
            "it answers 500",
        ),
        (
            "huge",
            &|issuer| {
                issuer.documents().keys =
                    format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(300_000))
            },
            "length limit",
        ),
        (
            "empty",
            &|issuer| issuer.documents().keys = "{\"keys\":[]}".to_owned(),
            "no key for signatures",
        ),
    ];
    for (name, spoil, why) in cases {
        let issuer = Issuer::start(&key);
        let url = issuer.url();
        spoil(&issuer);
        let weir = weir(&endpoint, &format!("\"{url} for api\""));
        let line = weir.wait_for(&format!("there are no keys of {url}: "));
        assert!(line.contains(why), "{name}: {line}");
        let token = bearer(&key.token(&url, ""));
        assert_eq!(
            outcome(&weir, &token),
            (503, "keys_unavailable".to_owned()),
            "{name}"
        );
    }
}

#[test]
fn an_issuer_over_tls_needs_a_certificate_of_an_authority() {
    let (key, authority) = (TokenKey::new("k"), Authority::new("Authority"));
    let certificate = authority.sign(&["localhost"]);
    let issuer = Issuer::start_at("127.0.0.1:0".parse().unwrap(), &key, Some(&certificate));
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let url = format!("https://{}/", issuer.address);
    let token = bearer(&key.token(&url, ""));
    for (trusted, wanted) in [(&authority, 200), (&Authority::new("Stranger"), 503)] {
        let dir = Weir::dir();
        std::fs::write(dir.join("roots.pem"), &trusted.pem).unwrap();
        let mut command = Command::new("env");
        command.arg(format!("SSL_CERT_FILE={}", dir.join("roots.pem").display()));
        command.arg("SSL_CERT_DIR=/nonexistent");
        command.arg(env!("CARGO_BIN_EXE_weir"));
        let weir = Weir::start_with_command(
            &dir,
            &config(&endpoint, &format!("\"{url} for api\"")),
            command,
        );
        assert_eq!(outcome(&weir, &token).0, wanted);
    }
}

#[test]
fn an_issuer_may_have_a_certificate_of_a_private_authority() {
    let (key, authority) = (TokenKey::new("k"), Authority::new("Authority"));
    let certificate = authority.sign(&["localhost"]);
    let issuer = Issuer::start_at("127.0.0.1:0".parse().unwrap(), &key, Some(&certificate));
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let url = format!("https://{}/", issuer.address);
    let token = bearer(&key.token(&url, ""));
    let jwt = format!("{{ issuer = {url:?}, audience = \"api\", ca = \"ca.pem\" }}");
    let text = config(&endpoint, &jwt);
    let stranger = Authority::new("Stranger");
    // It stands in place of the system's authorities, and is not one more.
    for (bundle, system, wanted) in [(&authority, &stranger, 200), (&stranger, &authority, 503)] {
        let dir = Weir::dir();
        std::fs::write(dir.join("ca.pem"), &bundle.pem).unwrap();
        std::fs::write(dir.join("roots.pem"), &system.pem).unwrap();
        let mut command = Command::new("env");
        command.arg(format!("SSL_CERT_FILE={}", dir.join("roots.pem").display()));
        command.arg("SSL_CERT_DIR=/nonexistent");
        command.arg(env!("CARGO_BIN_EXE_weir"));
        let weir = Weir::start_with_command(&dir, &text, command);
        assert_eq!(outcome(&weir, &token).0, wanted);
    }

    let dir = Weir::dir();
    let ca = dir.join("ca.pem");
    let file = dir.join("check.toml");
    std::fs::write(&file, format!("{text}[listen.\"127.0.0.1:0\"]\n")).unwrap();
    for (content, wanted) in [
        (Some("nothing"), "there is no certificate in it (PEM)"),
        (None, "cannot read"),
    ] {
        match content {
            Some(content) => std::fs::write(&ca, content).unwrap(),
            None => std::fs::remove_file(&ca).unwrap(),
        }
        let (code, text) = run_weir(&["check", file.to_str().unwrap()]);
        assert!(code == Some(3) && text.contains(wanted), "{text}");
        assert!(text.contains("ca = \"ca.pem\""), "{text}");
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn keys_in_files_are_taken_up_when_they_change() {
    let (first, second) = (TokenKey::new("a"), TokenKey::new("b"));
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let dir = Weir::dir();
    let file = dir.join("key.pem");
    std::fs::write(&file, first.pem()).unwrap();
    let jwt = "{ issuer = \"files\", audience = \"api\", key_file = \"key.pem\" }";
    let weir = Weir::start_in(&dir, &config(&endpoint, jwt));
    let (of_first, of_second) = (
        bearer(&first.token("files", "")),
        bearer(&second.token("files", "")),
    );
    assert_eq!(outcome(&weir, &of_first).0, 200);
    assert_eq!(outcome(&weir, &of_second).0, 401);
    std::fs::write(&file, "broken").unwrap();
    weir.wait_for("cannot be read again: cannot use ");
    assert_eq!(outcome(&weir, &of_first).0, 200, "the former key stays");
    std::fs::write(&file, second.jwk()).unwrap();
    eventually("the new key is there", || {
        (outcome(&weir, &of_second).0 == 200).then_some(())
    });
    assert_eq!(outcome(&weir, &of_first).0, 401);
}

#[test]
fn check_reads_key_files() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let dir = Weir::dir();
    let jwt = "{ issuer = \"files\", audience = \"api\", secret_file = \"secret\" }";
    let file = dir.join("check.toml");
    std::fs::write(
        &file,
        format!("{}[listen.\"127.0.0.1:0\"]\n", config(&endpoint, jwt)),
    )
    .unwrap();
    let check = || run_weir(&["check", file.to_str().unwrap()]);
    let (code, text) = check();
    assert!(
        code == Some(3) && text.contains("cannot read") && text.contains("secret_file"),
        "{text}"
    );
    std::fs::write(dir.join("secret"), "short").unwrap();
    let (code, text) = check();
    assert!(
        code == Some(3) && text.contains("it has 5 bytes, and a secret needs at least 32"),
        "{text}"
    );
    std::fs::write(dir.join("secret"), format!("{}\n", "x".repeat(32))).unwrap();
    let (code, text) = check();
    assert_eq!(code, Some(0), "{text}");
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn tokens_may_stand_elsewhere_and_visitors_may_pass() {
    let key = TokenKey::new("k");
    let (issuer, endpoint) = (Issuer::start(&key), Endpoint::answering(|_| ok("hello")));
    let url = issuer.url();
    let token = key.token(&url, "\"sub\":\"ann\"");
    let seen = || endpoint.requests().pop().unwrap();
    let common = format!("issuer = {url:?}, audience = \"api\"");

    let cookie = weir(
        &endpoint,
        &format!(
            "{{ {common}, cookie = \"session\", on_missing = \"pass\", claims_to_headers = {{ sub = \"X-User\" }} }}"
        ),
    );
    let lines = format!("Cookie: a=b; session={token}; c=d\r\nAuthorization: Basic eDp5\r\n");
    assert_eq!(cookie.ask(with(&lines)).status(), 200);
    assert_eq!(seen().all("cookie"), ["a=b; c=d"]);
    assert_eq!(seen().field("x-user"), Some("ann"));
    assert_eq!(seen().field("authorization"), Some("Basic eDp5"));
    assert_eq!(
        cookie
            .ask(with(&format!("Cookie: session={token}\r\n")))
            .status(),
        200
    );
    assert!(seen().all("cookie").is_empty());
    assert_eq!(
        cookie.ask(with("Cookie: a=b\r\nX-User: root\r\n")).status(),
        200
    );
    assert!(seen().all("x-user").is_empty(), "no visitor forges a claim");
    assert_eq!(seen().field("cookie"), Some("a=b"));
    assert_eq!(
        cookie.ask(with("Cookie: session=x\r\n")).status(),
        401,
        "a bad token never passes"
    );

    let header = weir(
        &endpoint,
        &format!("{{ {common}, header = \"X-Token\", forward = true }}"),
    );
    assert_eq!(
        header.ask(with(&format!("X-Token: {token}\r\n"))).status(),
        200
    );
    assert_eq!(seen().field("x-token"), Some(token.as_str()));
    assert_eq!(header.ask(bearer(&token)).status(), 401);

    let query = weir(
        &endpoint,
        &format!("{{ {common}, query = \"access_token\", forward = true }}"),
    );
    let get = |query: &str| format!("GET /x?{query} HTTP/1.1\r\nHost: weir.test\r\n\r\n");
    assert_eq!(
        query
            .ask(get(&format!("a=b&access_token={token}")))
            .status(),
        200
    );
    assert_eq!(
        query
            .ask(get(&format!("access_token={token}&access_token={token}")))
            .status(),
        400
    );
    assert_eq!(query.ask(get("a=b")).status(), 401);
}

#[test]
fn the_issuer_of_a_token_chooses_among_several() {
    let (one_key, other_key) = (TokenKey::new("k"), TokenKey::new("k"));
    let (one, other) = (Issuer::start(&one_key), Issuer::start(&other_key));
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let (one_url, other_url) = (one.url(), other.url());
    let weir = weir(
        &endpoint,
        &format!(
            "[\"{one_url} for api\", {{ issuer = {other_url:?}, audience = \"api\", cookie = \"t\", \
             claims_to_headers = {{ sub = \"X-User\" }} }}]"
        ),
    );
    let cookie = |token: &str| with(&format!("X-User: root\r\nCookie: t={token}\r\n"));
    let of_one = one_key.token(&one_url, "\"sub\":\"a\"");
    let of_other = other_key.token(&other_url, "\"sub\":\"b\"");
    // From the issuer once, and from the cache once: the tokens of each pass in their own place alone.
    for _ in 0..2 {
        assert_eq!(outcome(&weir, &bearer(&of_one)).0, 200);
        assert!(endpoint.requests().pop().unwrap().all("x-user").is_empty());
        assert_eq!(outcome(&weir, &cookie(&of_other)).0, 200);
        assert_eq!(endpoint.requests().pop().unwrap().all("x-user"), ["b"]);
        assert_eq!(outcome(&weir, &bearer(&of_other)).0, 401);
        assert_eq!(outcome(&weir, &cookie(&of_one)).0, 401);
    }
    // The keys of one issuer verify nothing of the other.
    let mixed = one_key.token(&other_url, "");
    assert_eq!(outcome(&weir, &cookie(&mixed)).0, 401);
    let both = with(&format!(
        "Authorization: Bearer {of_one}\r\nCookie: t={of_other}\r\n"
    ));
    assert_eq!(outcome(&weir, &both), (400, "token_ambiguous".to_owned()));
}

/// CGI, WSGI and PHP take `X_User` for `X-User`, so a client may write neither it nor a token like that.
#[test]
fn no_client_forges_a_claim_or_a_token_in_another_spelling() {
    let key = TokenKey::new("k");
    let (issuer, endpoint) = (Issuer::start(&key), Endpoint::answering(|_| ok("hello")));
    let url = issuer.url();
    let jwt = format!(
        "{{ issuer = {url:?}, audience = \"api\", on_missing = \"pass\", header = \"X-Token\", forward = true, claims_to_headers = {{ sub = \"X-User\" }} }}"
    );
    let token = key.token(&url, "\"sub\":\"ann\"");
    for (underscores, content_type) in [("keep", "text/plain"), ("drop", "application/grpc")] {
        let file = config(&endpoint, &jwt);
        let weir = Weir::start(&format!("{file}underscores = {underscores:?}\n"));
        for token in [String::new(), format!("X-Token: {token}\r\n")] {
            // One at a time, because Weir drops two spellings of one name in any case.
            for name in ["X_User", "x.user", "X_Token"] {
                let request = format!(
                    "POST /x HTTP/1.1\r\nHost: weir.test\r\nTransfer-Encoding: chunked\r\nContent-Type: {content_type}\r\n\
                     {token}{name}: root\r\nX_Other: 1\r\n\r\n0\r\n{name}: root\r\nX_Other: 2\r\n\r\n"
                );
                assert_eq!(weir.ask(request).status(), 200);
                let seen = endpoint.requests().pop().unwrap();
                assert!(seen.all(name).is_empty(), "{seen:?}");
                assert_eq!(seen.field("x_other"), Some("1"));
                assert_eq!(seen.trailers, [("X_Other".to_owned(), "2".to_owned())]);
            }
        }
    }
}
