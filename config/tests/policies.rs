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
