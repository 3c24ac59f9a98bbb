use super::*;

/// The rules of a route's `ip` key.
fn rules(ip: &str) -> Rules {
    let text = format!(
        "[listen.\"127.0.0.1:80\"]\n[[route]]\nname = \"r\"\nmatch = \"/*\"\nrespond = 204\nip = {ip}"
    );
    let (config, _) = weir_config::parse("t.toml", &text).unwrap();
    Rules::compile(&config.routes[0].policies.ip[0])
}

fn passes(rules: &Rules, client: &str) -> bool {
    let facts = Facts {
        client: Some(client.parse().unwrap()),
        ..Facts::default()
    };
    matches!(rules.run(None, &facts), Flow::Next)
}

#[test]
fn the_most_specific_network_decides() {
    let rules = rules(
        r#"{ allow = ["10.0.0.0/8", "10.1.2.0/24", "2001:db8::/32"], deny = ["10.1.0.0/16", "10.1.2.3", "192.0.2.0/24"] }"#,
    );
    for (client, expected) in [
        ("10.0.0.1", true),
        ("10.1.0.1", false),
        ("10.1.2.1", true),
        ("10.1.2.3", false),
        ("::ffff:10.1.2.3", false),
        ("::ffff:10.0.0.1", true),
        ("192.0.2.1", false),
        ("198.51.100.1", false),
        ("2001:db8::1", true),
        ("2001:db9::1", false),
    ] {
        assert_eq!(passes(&rules, client), expected, "{client}");
    }
}

#[test]
fn deny_counts_in_a_tie() {
    let rules = rules(r#"{ allow = ["10.0.0.0/8", "0.0.0.0/0"], deny = "10.0.0.0/8" }"#);
    assert!(!passes(&rules, "10.0.0.1"));
    assert!(passes(&rules, "11.0.0.1"));
}

#[test]
fn without_allow_all_others_pass() {
    let rules = rules(r#"{ deny = "10.0.0.0/8" }"#);
    assert!(!passes(&rules, "10.0.0.1"));
    assert!(passes(&rules, "11.0.0.1"));
    assert!(passes(&rules, "::1"));
}

#[test]
fn a_client_without_an_address_is_in_no_network() {
    let facts = Facts::default();
    let open = rules(r#"{ deny = ["0.0.0.0/0", "::/0"] }"#);
    assert!(matches!(open.run(None, &facts), Flow::Next));
    let closed = rules(r#"{ allow = ["0.0.0.0/0", "::/0"] }"#);
    let Flow::Reply(reply) = closed.run(None, &facts) else {
        panic!("it passes");
    };
    assert_eq!(reply.reason, Some(Reason::IpDenied));
    assert_eq!(reply.status, 403);
}

#[test]
fn a_core_takes_up_a_new_list() {
    let rules = Arc::new(rules(r#"{ deny = "@bad.txt" }"#));
    let core = CoreMap::new(rules.clone());
    let facts = Facts {
        client: Some("192.0.2.1".parse().unwrap()),
        ..Facts::default()
    };
    let passes = || matches!(rules.run(Some(&core), &facts), Flow::Next);
    assert!(passes(), "the list was never read");
    let bad: Cidr = "192.0.2.0/24".parse().unwrap();
    rules.read_lists(|path| (path == Path::new("bad.txt")).then_some(std::slice::from_ref(&bad)));
    assert!(!passes());
    rules.read_lists(|_| Some(&[]));
    assert!(passes());
    assert_eq!(core.change.get(), 3);
    assert_eq!(rules.lists().count(), 1);
}

#[test]
fn an_empty_list_in_allow_lets_nobody_in() {
    let rules = rules(r#"{ allow = "@good.txt" }"#);
    assert!(!passes(&rules, "192.0.2.1"));
}

#[test]
fn the_explanation_names_the_network() {
    let client = |text: &str| Some(text.parse().unwrap());
    let closed = rules(r#"{ allow = "10.0.0.0/8", deny = "10.1.0.0/16" }"#);
    for (address, expected) in [
        (
            client("::ffff:10.0.0.1"),
            Verdict::Passes("10.0.0.1 is in 10.0.0.0/8, which route `r` allows".into()),
        ),
        (
            client("10.1.0.1"),
            Verdict::Refuses(
                Reason::IpDenied,
                "10.1.0.1 is in 10.1.0.0/16, which route `r` denies".into(),
            ),
        ),
        (
            client("::1"),
            Verdict::Refuses(
                Reason::IpDenied,
                "::1 is in no network that route `r` allows".into(),
            ),
        ),
        (
            None,
            Verdict::WouldCheck(
                "the rules of route `r`; without --client-ip there is no address".into(),
            ),
        ),
    ] {
        assert_eq!(closed.explain(address), expected);
    }
    assert_eq!(
        rules(r#"{ deny = "10.1.0.0/16" }"#).explain(client("::1")),
        Verdict::Passes("::1 is in no network that route `r` denies".into())
    );
}

#[test]
fn routes_share_the_rules_of_a_level() {
    let text = r#"
ip = { deny = "10.0.0.0/8" }
[listen."127.0.0.1:80"]
ip = { deny = "10.1.0.0/16" }
[policy.office]
ip = { allow = "192.0.2.0/24" }
[[route]]
match = "/a"
respond = 204
use = "office"
[[route]]
match = "/b"
respond = 204
use = "office"
ip = { deny = "192.0.2.1" }
"#;
    let (config, _) = weir_config::parse("t.toml", text).unwrap();
    let mut states = StatePlans::default();
    let mut plan = |rules: &[IpRules]| -> Vec<_> {
        let steps = rules.iter().map(|rules| plan_step(rules, &mut states));
        steps.map(|step| step.state.map(|id| id.0)).collect()
    };
    assert_eq!(plan(&config.routes[0].policies.ip), [Some(0), Some(1)]);
    assert_eq!(
        plan(&config.routes[1].policies.ip),
        [Some(0), Some(1), Some(2)]
    );
    assert_eq!(plan(&config.listeners[0].policies.ip), [Some(3)]);
}
