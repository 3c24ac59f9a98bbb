mod paths;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use weir_config::Config;
use weir_proto_h1::{Event, Head, Server};

use super::{
    Decision, DecisionBuffers, EndpointSets, KeptListener, ListenerDiff, ListenerId, Plan, Refusal,
    RequestHead, UpstreamId,
};
use crate::fault::Reason;
use crate::io::Address;
use crate::networks::NetworkSet;
use crate::route::ViewBuffers;

fn config(text: &str) -> Config {
    match weir_config::parse("test.toml", text) {
        Ok((config, _)) => config,
        Err(all) => panic!("{}", weir_config::to_text(&all)),
    }
}

/// Resolves `one`, `two` (with a repeated address) and `empty`.
fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: &[[u8; 4]] = match host {
        "one" => &[[10, 0, 0, 1]],
        "two" => &[[10, 0, 0, 2], [10, 0, 0, 3], [10, 0, 0, 2]],
        "empty" => &[],
        _ => return Err(io::Error::other("no such name")),
    };
    Ok(addresses
        .iter()
        .map(|address| SocketAddr::from((*address, port)))
        .collect())
}

fn plan(text: &str) -> Plan {
    Plan::compile(&config(text)).unwrap()
}

fn endpoints(text: &str) -> EndpointSets {
    EndpointSets::compile(&config(text), &resolve).unwrap()
}

const REST: &str = r#"
    [upstream]
    app = ["10.1.1.1:80"]
    [[route]]
    match = "/*"
    to = "app"
"#;

/// To a CGI endpoint, `X_User` is the `X-User` that carries a claim.
#[test]
fn claims_have_no_other_spelling() {
    let plan = plan(
        r#"
        [listen."127.0.0.1:80"]
        [upstream]
        app = ["10.1.1.1:80"]
        [[route]]
        match = "/*"
        to = "app"
        jwt = { issuer = "https://a.example/", audience = "api", claims_to_headers = { sub = "X-User" } }
        "#,
    );
    assert!(plan.is_taken_for_matched(b"X_User") && plan.is_taken_for_matched(b"x.user"));
    assert!(!plan.is_taken_for_matched(b"X_Other"));
    assert!(plan.matches_field(b"x-user"), "trailers have none either");
}

fn listening(listeners: &str) -> Plan {
    plan(&format!("{listeners}{REST}"))
}

#[test]
fn endpoints_are_addresses_with_stable_names() {
    let sets = endpoints(
        r#"
        [listen."127.0.0.1:80"]
        [upstream]
        app = ["10.1.1.1:80", { address = "two:8080", weight = 3 }, "one:1", "unix:/run/app.sock"]
        [[route]]
        match = "/*"
        to = "app"
        "#,
    );
    let set = sets.get(UpstreamId(0)).unwrap();
    let shown: Vec<_> = set
        .endpoints
        .iter()
        .map(|each| format!("{} = {} x{}", each.name, each.address, each.weight))
        .collect();
    assert_eq!(
        shown,
        [
            "10.1.1.1:80 = 10.1.1.1:80 x1",
            "two:8080@10.0.0.2 = 10.0.0.2:8080 x3",
            "two:8080@10.0.0.3 = 10.0.0.3:8080 x3",
            "one:1@10.0.0.1 = 10.0.0.1:1 x1",
            "unix:/run/app.sock = unix:/run/app.sock x1",
        ]
    );
}

#[test]
fn every_problem_is_reported_with_its_line() {
    let mut config = config(
        r#"
        [listen."127.0.0.1:80"]
        [upstream]
        app = [
          "gone:80",
          "one:80",
          "empty:80",
        ]
        [[route]]
        match = "/old*"
        redirect = "https://example.com/{rest}"
        [[route]]
        match = "/*"
        to = "app"
        "#,
    );
    if let weir_config::Target::Redirect(redirect) = &mut config.routes[0].target {
        redirect.location.0[1] = weir_config::TextPiece::Parameter("id".to_owned());
    }
    let problems: Vec<_> = Plan::compile(&config)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        problems,
        ["line 9: route `/old*`: the match has no `{id}`",]
    );
}

#[test]
fn names_without_an_address_leave_their_endpoint_out() {
    let sets = endpoints(
        r#"
        [listen."127.0.0.1:80"]
        [upstream]
        app = ["gone:80", "one:80"]
        api = "empty:80"
        [[route]]
        match = "/*"
        to = "app"
        [[route]]
        match = "/api"
        to = "api"
        "#,
    );
    let without: Vec<_> = sets
        .iter()
        .flat_map(|set| &set.unresolved)
        .map(|endpoint| {
            (
                &*endpoint.name,
                endpoint.position.line,
                endpoint.why.as_str(),
            )
        })
        .collect();
    assert_eq!(
        without,
        [
            ("gone:80", 4, "no such name"),
            ("empty:80", 5, "the name exists without one")
        ]
    );
    let counts: Vec<_> = sets.iter().map(|set| set.endpoints.len()).collect();
    assert_eq!(counts, [1, 0]);
}

#[test]
fn settings_are_merged_from_top_to_route() {
    let plan = plan(
        r#"
        trusted_proxies = ["10.0.0.0/8"]
        [timeouts]
        connect = "1s"
        first_byte = "2s"
        grace = "7s"
        [limits]
        fields = 50
        body_rate = "off"
        [listen."127.0.0.1:80"]
        connections = 10
        [upstream.app]
        servers = ["10.1.1.1:80"]
        timeouts = { first_byte = "3s", total = "9s" }
        retries = 2
        [[route]]
        match = "/*"
        to = "app"
        timeouts = { total = "off" }
        limits = { body = "1MiB" }
        "#,
    );
    let (listener, upstream, route) = (&plan.listeners[0], &plan.upstreams[0], &plan.routes[0]);
    let seconds = Duration::from_secs;
    assert_eq!(plan.grace, seconds(7));
    assert_eq!(
        (
            listener.connections_max,
            listener.connections_per_client_max
        ),
        (10, 10)
    );
    assert_eq!(listener.limits.fields_max, 50);
    assert_eq!(listener.timeouts.first_byte, seconds(2));
    assert_eq!(upstream.timeouts.first_byte, seconds(3));
    assert_eq!(upstream.timeouts.total, Some(seconds(9)));
    assert_eq!(upstream.limits.fields_max, 50);
    assert_eq!(route.timeouts.connect, seconds(1));
    assert_eq!(route.timeouts.first_byte, seconds(3));
    assert_eq!(route.timeouts.total, None);
    assert_eq!(route.timeouts.body_rate_bytes_min, 0);
    assert_eq!(route.body_bytes_max, Some(1 << 20));
    assert_eq!(
        (route.retry.retries_max, upstream.retry.retries_max),
        (2, 2)
    );
    assert!(plan.trusted_proxies.contains([10, 9, 8, 7].into()));
}

#[test]
fn the_name_in_via_follows_from_the_file() {
    let one = listening("[listen.\"127.0.0.1:80\"]");
    let again = listening("# A comment.\n[listen.\"127.0.0.1:80\"]");
    let other = listening("[listen.\"127.0.0.1:81\"]");
    assert_eq!(one.via, again.via);
    assert_ne!(one.via, other.via);
    assert!(
        one.via.starts_with("weir-") && one.via.len() == 13,
        "{}",
        one.via
    );
    let sent_to = |server: &str| {
        let rest = REST.replace("10.1.1.1:80", server);
        plan(&format!("[listen.\"127.0.0.1:80\"]{rest}")).via
    };
    assert_eq!(one.via, sent_to("10.1.1.1:80"));
    assert_ne!(one.via, sent_to("10.1.1.2:80"));
}

#[test]
fn a_diff_pairs_listeners_by_address() {
    let old = listening("[listen.\"127.0.0.1:1\"]\n[listen.\"127.0.0.1:2\"]\n[listen.\"unix:/a\"]");
    let new = listening(
        "[listen.\"unix:/a\"]\nbacklog = 9\n[listen.\"127.0.0.1:3\"]\n[listen.\"127.0.0.1:1\"]",
    );
    let kept = |old, new, socket_changed| KeptListener {
        old: ListenerId(old),
        new: ListenerId(new),
        socket_changed,
    };
    let diff = ListenerDiff::between(&old, &new);
    assert_eq!(diff.added, [ListenerId(1)]);
    assert_eq!(diff.removed, [ListenerId(1)]);
    assert_eq!(diff.kept, [kept(2, 0, true), kept(0, 2, false)]);
    assert!(!diff.is_empty());
    assert!(ListenerDiff::between(&old, &old).is_empty());
}

#[test]
fn a_set_of_networks_holds_their_union() {
    let text =
        r#"trusted_proxies = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7", "2001:db8::/32", "::1"]"#;
    let trusted = |text| plan(&format!("{text}\n[listen.\"127.0.0.1:80\"]{REST}")).trusted_proxies;
    let set = trusted(text);
    for (address, expected) in [
        ("10.0.0.0", true),
        ("10.255.255.255", true),
        ("11.0.0.0", false),
        ("9.255.255.255", false),
        ("192.0.2.7", true),
        ("192.0.2.8", false),
        ("::ffff:10.2.3.4", true),
        ("::ffff:11.2.3.4", false),
        ("2001:db8:ffff::1", true),
        ("2001:db9::", false),
        ("::1", true),
        ("::2", false),
    ] {
        assert_eq!(
            set.contains(address.parse().unwrap()),
            expected,
            "{address}"
        );
    }
    assert!(!set.is_empty() && NetworkSet::default().is_empty());
    assert!(!NetworkSet::default().contains([127, 0, 0, 1].into()));
    assert!(trusted("trusted_proxies = \"0.0.0.0/0\"").contains([1, 2, 3, 4].into()));
}

/// Passes the plan's decision about `METHOD TARGET` at a host, and the path that goes upstream, to `then`.
fn decide<T>(plan: &Plan, request: &str, host: &str, then: impl FnOnce(Decision, &[u8]) -> T) -> T {
    let text = format!("{request} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut head = Head::new();
    let mut server = Server::new(weir_proto_h1::Limits::default());
    let received = server.receive(text.as_bytes(), &mut head);
    assert_eq!(
        received.map(|received| received.event),
        Ok(Event::Head),
        "{request}"
    );
    let request = RequestHead {
        head: &head,
        block: text.as_bytes(),
        hop: server.request(),
        client: None,
        address: None,
        listener: ListenerId(0),
        claims: super::KnownClaims::NONE,
        is_https: false,
    };
    let mut buffers = DecisionBuffers::default();
    let decision = plan.decide(&plan.listeners[0], &request, &mut buffers);
    let as_it_came = buffers.sent.is_empty() && matches!(decision, Decision::Route(_));
    then(
        decision,
        if as_it_came {
            head.effective_path(text.as_bytes())
        } else {
            &buffers.sent
        },
    )
}

#[test]
fn a_decision_is_a_route_or_a_reason() {
    let plan = plan(
        r#"
        [listen."127.0.0.1:80"]
        [[route]]
        match = { path = "/a", method = ["GET", "HEAD"] }
        respond = 200
        "#,
    );
    let refuse = |reason, allow: Option<&str>| {
        Decision::Refuse(Refusal {
            reason,
            allow: allow.map(str::to_owned),
            route: None,
            objection: None,
        })
    };
    let all = "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH";
    for (request, expected) in [
        ("GET /a", Decision::Route(super::RouteId(0))),
        ("GET /b", refuse(Reason::NoRoute, None)),
        (
            "PATCH /a",
            refuse(Reason::MethodNotAllowed, Some("GET, HEAD")),
        ),
        ("TRACE /a", refuse(Reason::MethodNotAllowed, Some(all))),
        ("CONNECT h:80", refuse(Reason::MethodNotAllowed, Some(all))),
        // Both ask for the options of the whole server.
        ("OPTIONS *", refuse(Reason::NoRoute, None)),
        ("OPTIONS http://other", refuse(Reason::NoRoute, None)),
        ("GET http://other", refuse(Reason::NoRoute, None)),
    ] {
        decide(&plan, request, "h", |decision, _| {
            assert_eq!(decision, expected, "{request}")
        });
    }
}

#[test]
fn a_request_that_returns_is_a_loop() {
    let plan = listening("[listen.\"127.0.0.1:80\"]");
    let us = &*plan.via;
    for (via, expected) in [
        (format!("1.1 {us}"), true),
        (format!("1.0 fred, HTTP/1.1  {us} (edge),1.1 proxy"), true),
        (format!("1.1 fred\r\nVia: 1.1\t{us}"), true),
        (format!("1.1 {us}0"), false),
        (format!("{us} fred"), false),
        ("1.1 weir, ,".to_owned(), false),
    ] {
        let is_loop = decide(
            &plan,
            "GET /",
            &format!("h\r\nVia: {via}"),
            |decision, _| decision == Decision::from(Reason::Loop),
        );
        assert_eq!(is_loop, expected, "{via}");
    }
}

#[test]
fn a_plan_is_shared_by_all_cores() {
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<Plan>();
    assert!(matches!(
        listening("[listen.\"unix:/a\"]").listeners[0].address,
        Address::Unix(_)
    ));
}
