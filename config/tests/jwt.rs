//! What a route asks of tokens: short and long forms, and how the levels of a file combine.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::time::Duration;

use weir_config::{Jwt, JwtAlgorithm, JwtKeys, OnMissing, TokenPlace, parse};

fn jwts(text: &str) -> Vec<Option<Jwt>> {
    let text = format!("{text}\n[listen.\"0.0.0.0:80\"]\n[upstream]\na = [\"10.0.0.1:80\"]\n");
    match parse("/etc/weir/test.toml", &text) {
        Ok((config, _)) => config
            .routes
            .into_iter()
            .map(|route| route.policies.jwt)
            .collect(),
        Err(errors) => panic!("{}", weir_config::to_text(&errors)),
    }
}

fn route(keys: &str) -> String {
    format!("[[route]]\nmatch = \"/\"\nto = \"a\"\n{keys}\n")
}

fn jwt(keys: &str) -> Jwt {
    jwts(&route(keys)).remove(0).expect("a policy")
}

#[test]
fn the_short_form_has_issuer_and_audience() {
    let short = jwt("jwt = \"https://issuer.example/realms/a for my-api\"");
    let long = jwt(
        "jwt = { issuer = \"https://issuer.example/realms/a\", audience = [\"my-api\"], leeway = \"60s\" }",
    );
    assert_eq!(short, long);
    assert_eq!(short.on_missing, OnMissing::Deny);
    let [issuer] = &short.issuers[..] else {
        panic!("one issuer")
    };
    assert_eq!(
        issuer.issuer.as_deref(),
        Some("https://issuer.example/realms/a")
    );
    assert_eq!(issuer.audience, ["my-api"]);
    assert_eq!(issuer.leeway, Duration::from_secs(60));
    assert_eq!(issuer.place, TokenPlace::Header("authorization".to_owned()));
    assert!(!issuer.forward && issuer.algorithms.is_empty() && issuer.require.is_empty());
    let JwtKeys::Discovery(url) = &issuer.keys else {
        panic!("{:?}", issuer.keys)
    };
    assert_eq!(
        url.to_string(),
        "https://issuer.example/realms/a/.well-known/openid-configuration"
    );
}

#[test]
fn the_long_form_has_everything() {
    let jwt = jwt(
        r#"jwt = { issuer = "accounts", audience = ["a", "b"], jwks_url = "https://issuer.example:8443/keys?x=1", ca = "ca.pem",
            algorithms = ["RS256", "ES512"], leeway = "0s", cookie = "Session", forward = true, on_missing = "pass",
            require = { scope = ["read", "write"], plan = "gold", level = [3, 4], staff = true, "a.b" = "c" },
            claims_to_headers = { sub = "X-User", "realm_access.roles" = "X-Roles" } }"#,
    );
    assert_eq!(jwt.on_missing, OnMissing::Pass);
    let issuer = &jwt.issuers[0];
    assert_eq!(issuer.issuer.as_deref(), Some("accounts"));
    assert_eq!(issuer.audience, ["a", "b"]);
    let ca = issuer.ca.as_ref().expect("a file");
    assert_eq!(ca.path, Path::new("/etc/weir/ca.pem"));
    let JwtKeys::Url(url) = &issuer.keys else {
        panic!("{:?}", issuer.keys)
    };
    assert_eq!(
        (
            url.is_https,
            url.host.as_str(),
            url.port,
            url.target.as_str()
        ),
        (true, "issuer.example", 8443, "/keys?x=1")
    );
    assert_eq!(
        issuer.algorithms,
        [JwtAlgorithm::Rs256, JwtAlgorithm::Es512]
    );
    assert_eq!(issuer.leeway, Duration::ZERO);
    assert_eq!(issuer.place, TokenPlace::Cookie("Session".to_owned()));
    assert!(issuer.forward);
    let require: Vec<_> = issuer
        .require
        .iter()
        .map(|(name, values)| (name.as_str(), values.join(" ")))
        .collect();
    let wanted = [
        ("scope", "read write"),
        ("plan", "gold"),
        ("level", "3 4"),
        ("staff", "true"),
        ("a.b", "c"),
    ];
    assert_eq!(
        require,
        wanted.map(|(name, values)| (name, values.to_owned()))
    );
    let fields: Vec<_> = issuer
        .claims_to_headers
        .iter()
        .map(|(claim, field)| (claim.as_str(), field.as_str()))
        .collect();
    assert_eq!(
        fields,
        [("sub", "x-user"), ("realm_access.roles", "x-roles")]
    );
}

#[test]
fn keys_may_be_in_files() {
    let keys = |key: &str| {
        jwt(&format!("jwt = {{ audience = \"a\", {key} = \"keys/x\" }}"))
            .issuers
            .remove(0)
    };
    for key in ["jwks_file", "key_file", "secret_file"] {
        let issuer = keys(key);
        assert_eq!(issuer.issuer, None);
        let file = match issuer.keys {
            JwtKeys::SetFile(file) if key == "jwks_file" => file,
            JwtKeys::KeyFile(file) if key == "key_file" => file,
            JwtKeys::SecretFile(file) if key == "secret_file" => file,
            other => panic!("{key}: {other:?}"),
        };
        assert_eq!(file.path.to_str(), Some("/etc/weir/keys/x"));
    }
}

#[test]
fn a_list_has_several_issuers() {
    let jwt = jwt(
        r#"jwt = ["https://one.example/ for api", { issuer = "https://two.example/", audience = "any", cookie = "t" },
            { issuer = "three", audience = "api", key_file = "k.pem", query = "t", forward = true }]"#,
    );
    let issuers: Vec<_> = jwt
        .issuers
        .iter()
        .map(|issuer| issuer.issuer.as_deref().unwrap())
        .collect();
    assert_eq!(
        issuers,
        ["https://one.example/", "https://two.example/", "three"]
    );
    assert!(jwt.issuers[1].audience.is_empty());
    assert_eq!(jwt.issuers[2].place, TokenPlace::Query("t".to_owned()));
}

#[test]
fn levels_merge_by_key() {
    let levels = r#"
        jwt = { issuer = "https://issuer.example/", audience = "api", require = { scope = "read", plan = "gold" } }
        [policy.staff]
        jwt = { audience = "staff", require = { plan = "silver", staff = true }, cookie = "t" }
        [policy.keys]
        jwt = { key_file = "k.pem" }
        [policy.other]
        jwt = "https://other.example/ for web"
        [policy.list]
        jwt = ["https://one.example/ for api", "https://two.example/ for api"]
        [policy.open]
        jwt = "off"
    "#;
    let with = |keys: &str| jwts(&format!("{levels}{}", route(keys))).remove(0);
    let only = |keys: &str| with(keys).unwrap().issuers.remove(0);
    assert_eq!(only("").audience, ["api"]);
    let staff = only("use = \"staff\"");
    assert_eq!(staff.audience, ["staff"]);
    assert_eq!(staff.issuer.as_deref(), Some("https://issuer.example/"));
    let require: Vec<_> = staff
        .require
        .iter()
        .map(|(name, values)| (name.as_str(), values[0].as_str()))
        .collect();
    assert_eq!(
        require,
        [("scope", "read"), ("plan", "silver"), ("staff", "true")]
    );
    // A place replaces another one.
    let header = only("use = \"staff\"\njwt = { header = \"X-Token\" }");
    assert_eq!(header.place, TokenPlace::Header("x-token".to_owned()));
    // So do keys, and another issuer never keeps them.
    assert!(matches!(only("use = \"keys\"").keys, JwtKeys::KeyFile(_)));
    let other = only("use = [\"keys\", \"other\"]");
    assert!(matches!(other.keys, JwtKeys::Discovery(_)));
    assert_eq!(other.require.len(), 2, "what a lower level requires stays");
    assert_eq!(with("use = \"list\"").unwrap().issuers.len(), 2);
    assert_eq!(
        with("use = [\"list\", \"other\"]").unwrap().issuers.len(),
        1
    );
    assert_eq!(with("use = \"open\""), None);
    assert_eq!(with("jwt = \"off\""), None);
    assert!(
        only("use = \"open\"\njwt = \"https://a.example/ for b\"")
            .require
            .is_empty()
    );
}

#[test]
fn the_top_level_may_leave_out_what_routes_say() {
    let text = format!(
        "jwt = {{ issuer = \"https://issuer.example/\" }}\n{}",
        route("jwt = { audience = \"a\" }")
    );
    assert_eq!(jwts(&text)[0].as_ref().unwrap().issuers[0].audience, ["a"]);
}

#[test]
fn authorities_merge_until_the_keys_are_in_a_file() {
    let ca_of = |keys: &str| {
        let top = "jwt = { issuer = \"https://a.example/\", audience = \"x\", ca = \"a.pem\" }\n";
        let jwt = jwts(&format!("{top}{}", route(keys))).remove(0);
        let mut issuers = jwt.expect("a policy").issuers;
        issuers.remove(0).ca.map(|ca| ca.path)
    };
    let path = |name: &str| Some(Path::new("/etc/weir").join(name));
    assert_eq!(ca_of(""), path("a.pem"));
    assert_eq!(ca_of("jwt = { ca = \"b.pem\" }"), path("b.pem"));
    assert_eq!(ca_of("jwt = \"https://b.example/ for y\""), path("a.pem"));
    assert_eq!(ca_of("jwt = { key_file = \"k.pem\" }"), None);
}
