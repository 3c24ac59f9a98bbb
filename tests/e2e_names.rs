//! Endpoint names that cannot be resolved, at a start and at a reload.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;

use std::path::Path;

use e2e::*;

/// Writes the hosts file.
fn hosts(dir: &Path, names: &[&str]) {
    let lines: String = names
        .iter()
        .map(|name| format!("127.0.0.1 {name}\n"))
        .collect();
    std::fs::write(dir.join("hosts"), lines).unwrap();
}

/// A configuration with one upstream behind each path.
fn routes(upstreams: &[(&str, &[String])]) -> String {
    let upstream = |(name, servers): &(&str, &[String])| {
        format!(
            "[upstream.{name}]\nservers = {servers:?}\nbalance = \"round_robin\"\n[[route]]\nmatch = \"/{name}\"\nto = \"{name}\"\n"
        )
    };
    upstreams.iter().map(upstream).collect()
}

fn port(endpoint: &Endpoint) -> &str {
    endpoint.name.rsplit(':').next().unwrap()
}

#[test]
fn a_name_that_is_not_found_keeps_nothing_from_starting_and_comes_in_later() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let dir = Weir::dir();
    hosts(&dir, &[]);
    let name = format!("late.test:{}", port(&endpoint));
    let other = endpoint.name.clone();
    let config = routes(&[
        ("late", std::slice::from_ref(&name)),
        ("mixed", &[name.clone(), other]),
    ]);
    let dns = DnsServer::start();
    let config = dns.key("") + &config;
    let weir = Weir::start_with_hosts(&dir, &config);
    // The other upstream has a resolved endpoint, and Weir does not try the unresolved one.
    for _ in 0..3 {
        assert_eq!(weir.ask(get("/mixed")).text(), "hello");
        assert_eq!(weir.entry("/mixed").number("attempts"), 1.0);
    }
    weir.ask(get("/late"))
        .expect_refusal(503, "unresolved", "dns_error");
    let said = weir.wait_for(&format!(
        "endpoint `{name}` of upstream `late` has no address"
    ));
    assert!(said.contains("the name does not exist"), "{said}");
    let metric = format!("weir_endpoint_unresolved{{upstream=\"late\",endpoint=\"{name}\"}}");
    assert_eq!(weir.metric(&metric), 1.0);
    let health = weir.admin("/healthz?verbose");
    assert_eq!(health.status(), 200);
    assert!(
        health.text().contains("late.test is not found: "),
        "{}",
        health.text()
    );
    let plan = weir.admin("/plan").text();
    assert!(
        plan.contains(&format!("\"unresolved\":[{{\"name\":\"{name}\",\"error\":")),
        "{plan}"
    );
    hosts(&dir, &["late.test"]);
    eventually("the endpoint", || {
        (weir.ask(get("/late")).status() == 200).then_some(())
    });
    weir.wait_for("found late.test after ");
    eventually("no name that is missing", || {
        let health = weir.admin("/healthz?verbose").text();
        (weir.metric(&metric) == 0.0 && !health.contains("not found")).then_some(())
    });
    assert_eq!(weir.metric("weir_reload_total"), 0.0);
    // The new endpoint also gets its share in the other upstream.
    let shared = "weir_endpoint_exchanges_total{upstream=\"mixed\"";
    for _ in 0..4 {
        weir.ask(get("/mixed"));
    }
    let by_name = format!("{shared},endpoint=\"{name}@127.0.0.1\",class=\"2xx\"}}");
    // A core counts an exchange after its answer has left.
    eventually("its share", || (weir.metric(&by_name) == 2.0).then_some(()));
    // The plan equals the one that a reload of the same file compiles.
    let plan = || {
        let text = weir.admin("/plan").text();
        text.split_once("\"listeners\"").unwrap().1.to_owned()
    };
    let before = plan();
    weir.reload(&config);
    weir.wait_for("reloaded in ");
    assert_eq!(plan(), before);
}

#[test]
fn a_reload_keeps_the_addresses_of_a_name_that_is_not_found_any_more() {
    let endpoint = Endpoint::answering(|_| ok("hello"));
    let dir = Weir::dir();
    hosts(&dir, &["known.test"]);
    let known = [format!("known.test:{}", port(&endpoint))];
    let gone = [format!("gone.test:{}", port(&endpoint))];
    let dns = DnsServer::start();
    let routes = |upstreams: &[(&str, &[String])]| dns.key("") + &routes(upstreams);
    let weir = Weir::start_with_hosts(&dir, &routes(&[("known", &known)]));
    assert_eq!(weir.ask(get("/known")).text(), "hello");
    hosts(&dir, &[]);
    weir.reload(&routes(&[("known", &known), ("gone", &gone)]));
    let said = weir.wait_for("of upstream `known` is not found now: ");
    assert!(said.ends_with("; it keeps 127.0.0.1"), "{said}");
    weir.wait_for("reloaded in ");
    assert_eq!(weir.ask(get("/known")).text(), "hello");
    weir.ask(get("/gone"))
        .expect_refusal(503, "unresolved", "dns_error");
    assert_eq!(weir.metric("weir_reload_total"), 1.0);
    let kept = format!(
        "weir_endpoint_unresolved{{upstream=\"known\",endpoint=\"{}\"}}",
        known[0]
    );
    assert_eq!(weir.metric(&kept), 1.0);
    hosts(&dir, &["known.test", "gone.test"]);
    eventually("the endpoint", || {
        (weir.ask(get("/gone")).status() == 200).then_some(())
    });
    // The kept addresses are still right: only the other name's addresses change, and no plan is compiled.
    weir.wait_for("found known.test after ");
    assert_eq!(weir.metric(&kept), 0.0);
    assert_eq!(weir.metric("weir_endpoints_epoch"), 3.0);
    assert_eq!(weir.metric("weir_core_endpoints_epoch{core=\"0\"}"), 3.0);
    assert_eq!(weir.metric("weir_plan_epoch"), 2.0);
    // A file without the names keeps only what it lists.
    hosts(&dir, &[]);
    let reload = |upstreams: &[(&str, &[String])]| {
        let before = weir.metric("weir_reload_total");
        weir.reload(&routes(upstreams));
        eventually("a reload", || {
            (weir.metric("weir_reload_total") == before + 1.0).then_some(())
        });
    };
    reload(&[("known", &known)]);
    reload(&[("known", &known), ("gone", &gone)]);
    assert_eq!(weir.ask(get("/known")).text(), "hello");
    assert_eq!(weir.ask(get("/gone")).status(), 503);
}
