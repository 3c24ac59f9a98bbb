//! What a route has of its policies: how the levels of a file combine.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use weir_config::{Config, IpRules, Networks, Origin, parse};

fn config(policies: &str) -> Config {
    let listener = "[listen.\"0.0.0.0:80\"]";
    let text = format!("{policies}\n[upstream]\na = [\"10.0.0.1:80\"]\n");
    let text = match text.contains("[listen.") {
        true => text,
        false => format!("{text}{listener}\n"),
    };
    match parse("/etc/weir/test.toml", &text) {
        Ok((config, _)) => config,
        Err(errors) => panic!("{}", weir_config::to_text(&errors)),
    }
}

/// Origin and first denied network of each rule.
fn denied(rules: &[IpRules]) -> Vec<String> {
    let text = |rules: &IpRules| match rules.deny.first() {
        Some(Networks::Network(network)) => format!("{}: {network}", rules.origin),
        Some(Networks::List(file)) => format!("{}: {}", rules.origin, file.path.display()),
        None => rules.origin.to_string(),
    };
    rules.iter().map(text).collect()
}

const LEVELS: &str = r#"
ip = { deny = "10.0.0.0/24" }
[policy.one]
ip = { deny = "10.0.1.0/24" }
[policy.two]
ip = { deny = "10.0.2.0/24" }
[policy.none]
ip = "off"
[policy.nothing]
"#;

fn route(keys: &str) -> Vec<String> {
    let route = format!("[[route]]\nname = \"r\"\nmatch = \"/\"\nto = \"a\"\n{keys}");
    let config = config(&format!("{LEVELS}{route}"));
    denied(&config.routes[0].policies.ip)
}

#[test]
fn rules_of_all_levels_add_up() {
    let top = "the top level: 10.0.0.0/24";
    assert_eq!(route(""), [top]);
    assert_eq!(route("use = \"nothing\""), [top]);
    let own = "ip = { deny = \"10.0.3.0/24\" }";
    assert_eq!(route(own), [top, "route `r`: 10.0.3.0/24"]);
    assert_eq!(
        route(&format!("use = [\"two\", \"one\"]\n{own}")),
        [
            top,
            "policy `two`: 10.0.2.0/24",
            "policy `one`: 10.0.1.0/24",
            "route `r`: 10.0.3.0/24"
        ]
    );
}

#[test]
fn off_takes_away_what_lower_levels_say() {
    let nothing: [&str; 0] = [];
    assert_eq!(route("ip = \"off\""), nothing);
    assert_eq!(route("use = [\"one\", \"none\"]"), nothing);
    assert_eq!(
        route("use = [\"none\", \"one\"]"),
        ["policy `one`: 10.0.1.0/24"]
    );
    let own = "use = [\"one\", \"none\"]\nip = { deny = \"10.0.3.0/24\" }";
    assert_eq!(route(own), ["route `r`: 10.0.3.0/24"]);
}

#[test]
fn requests_without_a_route_get_the_policies_of_the_top_level() {
    let config = config(&format!(
        "{LEVELS}[[route]]\nmatch = \"/\"\nto = \"a\"\nip = \"off\""
    ));
    assert_eq!(denied(&config.policies.ip), ["the top level: 10.0.0.0/24"]);
}

#[test]
fn a_listener_has_its_own_rules_only() {
    let text = r#"
ip = { deny = "10.0.0.0/24" }
[listen."0.0.0.0:80"]
ip = { deny = ["10.0.4.0/24", "@lists/bad.txt"], allow = "::/0" }
[listen."0.0.0.0:81"]
[[route]]
match = "/"
to = "a"
"#;
    let config = config(text);
    let rules = &config.listeners[0].policies.ip;
    assert_eq!(denied(rules), ["listener `0.0.0.0:80`: 10.0.4.0/24"]);
    assert_eq!(rules[0].allow.len(), 1);
    assert_eq!(rules[0].position.line, 4);
    let Some(Networks::List(list)) = rules[0].deny.get(1) else {
        panic!("{rules:?}");
    };
    assert_eq!(list.path.to_str(), Some("/etc/weir/lists/bad.txt"));
    assert!(config.listeners[1].policies.ip.is_empty());
    let origins: Vec<_> = config.routes[0].policies.ip.iter().collect();
    assert_eq!(origins.len(), 1);
    assert_eq!(origins[0].origin, Origin::Top);
}

/// The first route's rules, as the file's levels combine them.
fn cors(top: &str, route: &str) -> Option<weir_config::Cors> {
    let route = format!("[[route]]\nmatch = \"/\"\nto = \"a\"\n{route}");
    config(&format!("{top}\n{route}")).routes[0]
        .policies
        .cors
        .clone()
}

#[test]
fn tables_of_cors_merge_by_key_and_a_list_replaces_them() {
    let top = r#"cors = { origins = "https://top.example", credentials = true, max_age = "1h" }"#;
    let origins = |cors: &weir_config::Cors| {
        let all = cors.origins.iter().map(ToString::to_string);
        all.collect::<Vec<_>>().join(" ")
    };
    let merged = cors(top, r#"cors = { max_age = "2h", expose = "X-A" }"#).expect("rules");
    assert_eq!(origins(&merged), "https://top.example");
    assert!(merged.credentials);
    assert_eq!(merged.max_age.map(|age| age.as_secs()), Some(7200));
    assert_eq!(merged.expose, ["X-A"]);
    let replaced = cors(
        top,
        r#"cors = ["https://a.example", "https://*.b.example"]"#,
    );
    let replaced = replaced.expect("rules");
    assert_eq!(origins(&replaced), "https://a.example https://*.b.example");
    assert!(!replaced.credentials);
    assert_eq!(replaced.max_age, None);
    assert_eq!(cors(top, r#"cors = "off""#), None);
    // The top level alone need not name the origins.
    let completed = cors(
        "cors = { credentials = true }",
        r#"cors = { origins = "null" }"#,
    );
    let completed = completed.expect("rules");
    assert_eq!(origins(&completed), "null");
    assert!(completed.credentials);
}

#[test]
fn errors_merge_by_key() {
    let text = r#"
errors = { 502 = { body = "top" }, 5xx = { body = "top" }, no_route = { redirect = "/" } }
[policy.set]
errors = { 502 = { body = "set", upstream = true }, 404 = { file = "pages/404.html" } }
[[route]]
match = "/"
to = "a"
use = "set"
errors = { 5xx = "off", 404 = { body = "{}", content_type = "application/json" } }
"#;
    let config = config(text);
    let shown = |errors: &weir_config::Errors| {
        let show = |answer: &weir_config::ErrorAnswer| {
            let content = match &answer.content {
                weir_config::ErrorContent::Body { text, content_type } => {
                    format!("{text} ({content_type})")
                }
                weir_config::ErrorContent::File { file, content_type } => {
                    format!("{} ({content_type})", file.path.display())
                }
                weir_config::ErrorContent::Redirect(to) => format!("-> {to}"),
            };
            let upstream = if answer.upstream { " upstream" } else { "" };
            format!("{}: {content}{upstream}", answer.key)
        };
        errors.0.iter().map(show).collect::<Vec<_>>()
    };
    let plain = "text/plain; charset=utf-8";
    assert_eq!(
        shown(&config.routes[0].policies.errors),
        [
            "no_route: -> /".to_owned(),
            "404: {} (application/json)".to_owned(),
            format!("502: set ({plain}) upstream"),
        ]
    );
    assert_eq!(
        shown(&config.policies.errors),
        [
            "no_route: -> /".to_owned(),
            format!("502: top ({plain})"),
            format!("5xx: top ({plain})"),
        ]
    );
}
