use std::net::IpAddr;

use weir_config::{Cidr, ForwardedHeader};
use weir_proto_h1::{Head, Limits, parse_request};

use super::*;

#[test]
fn nodes_are_parsed_in_every_spelling() {
    for (text, canonical) in [
        ("192.0.2.7", "192.0.2.7"),
        (" 192.0.2.7\t", "192.0.2.7"),
        ("192.0.2.7:80", "192.0.2.7"),
        ("192.0.2.7:_port", "192.0.2.7"),
        ("\"192.0.2.7:80\"", "192.0.2.7"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("\"[2001:db8::1]:443\"", "2001:db8::1"),
        ("\"2001:db8::1\"", "2001:db8::1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("[::ffff:c000:207]", "192.0.2.7"),
        ("\"[::ffff:192.0.2.7]:1\"", "192.0.2.7"),
        ("unknown", "unknown"),
        ("Unknown", "unknown"),
        ("unknown:123", "unknown"),
        ("_hidden", "_hidden"),
        ("_a.B-c_1:80", "_a.B-c_1"),
        ("\"_hidden:_p\"", "_hidden"),
    ] {
        assert_eq!(
            written(ForwardedNode::parse(text.as_bytes())),
            canonical,
            "{text}"
        );
    }
}

#[test]
fn invalid_nodes_are_unknown() {
    for text in [
        "",
        "\"",
        "\"\"",
        "localhost",
        "example.com:80",
        "192.0.2",
        "192.0.2.256",
        "192.0.2.07",
        "192.0.2.7:",
        "192.0.2.7:123456",
        "192.0.2.7:http",
        "192.0.2.7 ",
        "192.0.2.7;x",
        "192.0.2.7, 192.0.2.8",
        "[192.0.2.7]",
        "[2001:db8::1",
        "2001:db8::1]",
        "[2001:db8::1]443",
        "[fe80::1%eth0]",
        "[]",
        "_",
        "_a b",
        "_a\"",
        "_a\\b",
        "\"192.0.2.7",
        "192.0.2.7\"",
        "\"192.0.2.7\\\"",
        "\u{661}92.0.2.7",
        "unknown!",
        "unix:",
        "::ffff:192.0.2.7:80:1:1:1",
    ] {
        let node = ForwardedNode::parse(text.as_bytes());
        let expected = if text == "192.0.2.7 " {
            "192.0.2.7"
        } else {
            "unknown"
        };
        assert_eq!(written(node), expected, "{text:?}");
    }
}

fn written(node: ForwardedNode<'_>) -> String {
    match node {
        ForwardedNode::Address(address) => address.to_string(),
        ForwardedNode::Obfuscated(name) => String::from_utf8(name.to_vec()).unwrap(),
        ForwardedNode::Unknown => "unknown".to_owned(),
    }
}

/// The hops, client, scheme and host of the chain in these lines, with 10.0.0.0/8 trusted.
fn read_chain(
    spelling: ForwardedHeader,
    lines: &str,
) -> (String, Option<String>, Option<String>, Option<String>) {
    let block = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
    let mut head = Head::new();
    parse_request(block.as_bytes(), &Limits::default(), &mut head).unwrap();
    let trusted = NetworkSet::of(&[Cidr {
        network: IpAddr::from([10, 0, 0, 0]),
        prefix_bits: 8,
    }]);
    let chain = ForwardedChain::read(&head, block.as_bytes(), spelling, &trusted);
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    let hops: Vec<_> = chain.hops().map(|hop| written(hop.node)).collect();
    let client = chain.client().map(|client| client.to_string());
    (
        hops.join(" "),
        client,
        text(chain.proto()),
        text(chain.host()),
    )
}

#[test]
fn x_forwarded_for_is_read_from_its_end() {
    for (lines, hops, client, proto) in [
        ("X: y", "", None, None),
        (
            "X-Forwarded-For: 192.0.2.7",
            "192.0.2.7",
            Some("192.0.2.7"),
            None,
        ),
        (
            "X-Forwarded-For: 192.0.2.7, 10.0.0.1",
            "192.0.2.7 10.0.0.1",
            Some("192.0.2.7"),
            None,
        ),
        (
            "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-For: 10.0.0.1",
            "192.0.2.7 10.0.0.1",
            Some("192.0.2.7"),
            None,
        ),
        // What the client made up comes before what a proxy appended.
        (
            "X-Forwarded-For: 10.9.9.9, 192.0.2.7, 10.0.0.1",
            "10.9.9.9 192.0.2.7 10.0.0.1",
            Some("192.0.2.7"),
            None,
        ),
        (
            "X-Forwarded-For: 192.0.2.7, bogus, 10.0.0.1",
            "192.0.2.7 unknown 10.0.0.1",
            Some("10.0.0.1"),
            None,
        ),
        (
            "X-Forwarded-For: 192.0.2.7, unknown",
            "192.0.2.7 unknown",
            None,
            None,
        ),
        (
            "X-Forwarded-For: ,, 192.0.2.7 ,, ",
            "192.0.2.7",
            Some("192.0.2.7"),
            None,
        ),
        (
            "X-Forwarded-For: \"x, 192.0.2.7",
            "unknown 192.0.2.7",
            Some("192.0.2.7"),
            None,
        ),
        (
            "X-Forwarded-For: \"[2001:db8::1]:443\", [::ffff:10.0.0.1]:80",
            "2001:db8::1 10.0.0.1",
            Some("2001:db8::1"),
            None,
        ),
        ("X-Forwarded-Proto: https", "", None, Some("https")),
        (
            "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https",
            "192.0.2.7",
            Some("192.0.2.7"),
            Some("https"),
        ),
        // Of several, the one of the client's hop.
        (
            "X-Forwarded-For: 192.0.2.7, 10.0.0.1\r\nX-Forwarded-Proto: https, http",
            "192.0.2.7 10.0.0.1",
            Some("192.0.2.7"),
            Some("https"),
        ),
        (
            "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https, http",
            "192.0.2.7",
            Some("192.0.2.7"),
            Some("http"),
        ),
        (
            "X-Forwarded-For: 192.0.2.7, 10.0.0.1\r\nX-Forwarded-Proto: https",
            "192.0.2.7 10.0.0.1",
            Some("192.0.2.7"),
            Some("https"),
        ),
        ("X-Forwarded-Proto: ht tps", "", None, None),
        // The other field does not count.
        ("Forwarded: for=192.0.2.7;proto=https", "", None, None),
    ] {
        let (is_hops, is_client, is_proto, _) = read_chain(ForwardedHeader::XForwardedFor, lines);
        assert_eq!(
            (is_hops.as_str(), is_client.as_deref(), is_proto.as_deref()),
            (hops, client, proto),
            "{lines}"
        );
    }
}

/// The lines of a head, its hops, the client, the scheme, the host.
type Told = (
    &'static str,
    &'static str,
    Option<&'static str>,
    Option<&'static str>,
    Option<&'static str>,
);

const FORWARDED: &[Told] = &[
    ("X: y", "", None, None, None),
    (
        "Forwarded: for=192.0.2.7",
        "192.0.2.7",
        Some("192.0.2.7"),
        None,
        None,
    ),
    (
        "Forwarded: For=\"[2001:db8::1]:443\";Proto=https;by=_x;Host=\"a.test:81\"",
        "2001:db8::1",
        Some("2001:db8::1"),
        Some("https"),
        Some("a.test:81"),
    ),
    (
        "Forwarded: for=192.0.2.7;proto=https, for=10.0.0.1;proto=http",
        "192.0.2.7 10.0.0.1",
        Some("192.0.2.7"),
        Some("https"),
        None,
    ),
    (
        "Forwarded: for=192.0.2.7;proto=https\r\nForwarded: for=10.0.0.1;proto=http",
        "192.0.2.7 10.0.0.1",
        Some("192.0.2.7"),
        Some("https"),
        None,
    ),
    // A quote that a client left open, and one that seems to continue into what the proxy appends.
    (
        "Forwarded: for=\"evil, for=192.0.2.7;proto=https",
        "unknown 192.0.2.7",
        Some("192.0.2.7"),
        Some("https"),
        None,
    ),
    (
        "Forwarded: for=\"evil, for=\"[2001:db8::1]\"",
        "unknown 2001:db8::1",
        Some("2001:db8::1"),
        None,
        None,
    ),
    (
        "Forwarded: for=10.9.9.9;ext=\"a, for=192.0.2.7",
        "unknown 192.0.2.7",
        Some("192.0.2.7"),
        None,
        None,
    ),
    (
        "Forwarded: host=\"a,b;c\";for=192.0.2.7",
        "192.0.2.7",
        Some("192.0.2.7"),
        None,
        None,
    ),
    // An endpoint could take an invalid host for several hosts, or for more of the element.
    (
        "Forwarded: for=192.0.2.7;host=\"a, for=192.0.2.8\"",
        "192.0.2.7",
        Some("192.0.2.7"),
        None,
        None,
    ),
    (
        "Forwarded: for=192.0.2.7;host=\"[2001:db8::1]:81\";proto=http",
        "192.0.2.7",
        Some("192.0.2.7"),
        Some("http"),
        Some("[2001:db8::1]:81"),
    ),
    (
        "Forwarded: proto=https",
        "unknown",
        None,
        Some("https"),
        None,
    ),
    (
        "Forwarded: for=unknown;proto=https",
        "unknown",
        None,
        Some("https"),
        None,
    ),
    (
        "Forwarded: for=192.0.2.7, for=_hidden, for=10.0.0.1",
        "192.0.2.7 _hidden 10.0.0.1",
        Some("10.0.0.1"),
        None,
        None,
    ),
    ("Forwarded: 192.0.2.7", "unknown", None, None, None),
    (
        "Forwarded: ;for=192.0.2.7;",
        "192.0.2.7",
        Some("192.0.2.7"),
        None,
        None,
    ),
    (
        "Forwarded: for=192.0.2.7;proto=\"java script\"",
        "192.0.2.7",
        Some("192.0.2.7"),
        None,
        None,
    ),
    ("X-Forwarded-For: 192.0.2.7", "", None, None, None),
];

#[test]
fn x_forwarded_host_is_a_host() {
    for (value, host) in [
        ("a.test:81", Some("a.test:81")),
        ("evil.test, a.test", Some("a.test")),
        ("a\"b.test", None),
        ("a.test/x", None),
        ("a.test;host=b.test", None),
        ("user@a.test", None),
        ("a b", None),
    ] {
        let chain = read_chain(
            ForwardedHeader::XForwardedFor,
            &format!("X-Forwarded-Host: {value}"),
        );
        assert_eq!(chain.3.as_deref(), host, "{value}");
    }
}

#[test]
fn forwarded_is_read_from_its_end() {
    for (lines, hops, client, proto, host) in FORWARDED {
        let is = read_chain(ForwardedHeader::Forwarded, lines);
        assert_eq!(
            (
                is.0.as_str(),
                is.1.as_deref(),
                is.2.as_deref(),
                is.3.as_deref()
            ),
            (*hops, *client, *proto, *host),
            "{lines}"
        );
    }
}

#[test]
fn only_the_nearest_hops_are_kept() {
    let many: Vec<_> = (0..100).map(|n| format!("192.0.2.{n}")).collect();
    let (hops, client, ..) = read_chain(
        ForwardedHeader::XForwardedFor,
        &format!("X-Forwarded-For: {}", many.join(",")),
    );
    assert_eq!(hops, many[100 - FORWARDED_HOPS_MAX..].join(" "));
    assert_eq!(client.as_deref(), Some("192.0.2.99"));
    let trusted = vec!["10.0.0.1"; 100].join(",");
    let (_, client, ..) = read_chain(
        ForwardedHeader::XForwardedFor,
        &format!("X-Forwarded-For: 192.0.2.7,{trusted}"),
    );
    assert_eq!(client.as_deref(), Some("10.0.0.1"));
}
