//! Listeners without HTTP.

use super::super::{RelayUrl, explain_relay};
use super::{explain, get, plan};
use crate::plan::EndpointSets;

const RELAYS: &str = r#"
[listen."0.0.0.0:5432"]
tcp = "db"
ip = { deny = ["192.0.2.0/24"] }
timeouts = { connect = "1s" }

[listen."0.0.0.0:443"]
passthrough = { "db.example.com" = "db", "*.example.com" = "web" }

[listen."0.0.0.0:53"]
udp = { to = "dns", replies = 1 }

[upstream]
db = { servers = ["10.0.0.1:5432"], health = { tcp = true }, breaker = {} }
web = ["10.0.0.2:443"]
dns = ["10.0.0.3:53"]
"#;

#[test]
fn a_listener_without_http_takes_no_request() {
    let (_, plan) = plan(RELAYS);
    for (url, expected) in [
        (
            "http://x:5432/",
            "listener   0.0.0.0:5432 reads no HTTP; ask for tcp://HOST:5432 instead\n",
        ),
        (
            "https://x/",
            "listener   0.0.0.0:443 reads no HTTP; ask for tls://NAME:443 instead\n",
        ),
        (
            "http://x:53/",
            "listener   0.0.0.0:53/udp reads no HTTP; ask for udp://HOST:53 instead\n",
        ),
        (
            "http://x/",
            "listener   none on port 80; no listener reads HTTP\n",
        ),
    ] {
        let question = get(url);
        let text = explain(&plan, &question).unwrap();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn connections_and_datagrams_that_pass_through() {
    let (config, plan) = plan(RELAYS);
    let endpoints = EndpointSets::compile(&config, &|_, _| Ok(Vec::new())).unwrap();
    let ask = |url: &str, client: Option<&str>| {
        let url = RelayUrl::parse(url).unwrap();
        let client = client.map(|ip| ip.parse().unwrap());
        explain_relay((&plan, &endpoints), &url, client)
    };
    assert_eq!(
        ask("tls://db.example.com:443", None).unwrap(),
        "\
connection tls://db.example.com:443
listener   0.0.0.0:443, TLS passes through, idle 10m
upstream   db
  endpoint 10.0.0.1:5432
timeouts   connect 2s, queue 10s
failover   if Weir cannot connect, it tries the next endpoint, at most 3 connections in all
breaker    open for 5s when 50% of at least 20 requests of the last 10s fail
checks     a connection must succeed, every 5s and within 2s; down after 3 failures, healthy after 2 successes
ejection   after 5 failures in a row on a core, for 30s and longer each time; at most 50% of the endpoints
"
    );
    assert!(
        ask("tls://a.b.example.com", None)
            .unwrap()
            .contains("upstream   web\n")
    );
    assert!(
        ask("tls://example.org", None)
            .unwrap()
            .contains("reason unknown_server_name")
    );
    let refused = ask("tcp://10.1.1.1:5432", Some("192.0.2.7")).unwrap();
    assert!(refused.contains("policy     ip refuses"), "{refused}");
    assert!(!refused.contains("upstream"), "{refused}");
    let passed = ask("tcp://10.1.1.1:5432", Some("192.0.3.7")).unwrap();
    assert!(passed.contains("connect 1s"), "{passed}");
    let dns = ask("udp://10.1.1.1:53", None).unwrap();
    assert!(
        dns.contains(
            "0.0.0.0:53/udp, a flow ends after 30s of silence or 1 answer, at most 16384 flows"
        ),
        "{dns}"
    );
    assert!(ask("udp://10.1.1.1:443", None).is_err());
    assert!(RelayUrl::parse("http://a/").is_none());
}
