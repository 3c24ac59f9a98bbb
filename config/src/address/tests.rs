use super::*;

#[test]
fn listen_addresses() {
    for (text, shown) in [
        ("0.0.0.0:8080", "0.0.0.0:8080"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("[::]:80", "[::]:80"),
        ("[0:0::1]:80", "[::1]:80"),
        ("unix:/run/weir.sock", "unix:/run/weir.sock"),
    ] {
        let address: Address = text.parse().expect(text);
        assert_eq!(address.to_string(), shown);
    }
    let longest = format!("unix:/{}", "x".repeat(106));
    assert!(longest.parse::<Address>().is_ok());
    assert!(format!("{longest}x").parse::<Address>().is_err());
    let error = "8080".parse::<Address>().expect_err("no address");
    assert_eq!(
        error.to_string(),
        "`8080` is no address to listen on (for port 8080 of every address write \"0.0.0.0:8080\")"
    );
}

#[test]
fn endpoints() {
    let ip = |text: &str| EndpointAddress::Ip(text.parse().expect(text));
    let name = |host: &str, port| EndpointAddress::Name {
        host: host.to_owned(),
        port,
    };
    for (text, address) in [
        ("10.0.0.11:8080", ip("10.0.0.11:8080")),
        ("http://10.0.0.11:8080", ip("10.0.0.11:8080")),
        ("http://10.0.0.11", ip("10.0.0.11:80")),
        ("http://[::1]", ip("[::1]:80")),
        ("[2001:db8::1]:80", ip("[2001:db8::1]:80")),
        ("localhost:8080", name("localhost", 8080)),
        ("App.Internal:8080", name("app.internal", 8080)),
        ("http://app", name("app", 80)),
        ("_http._tcp.local:80", name("_http._tcp.local", 80)),
        (
            "unix:/run/app.sock",
            EndpointAddress::Unix("/run/app.sock".into()),
        ),
    ] {
        let endpoint: Endpoint = text.parse().expect(text);
        assert_eq!(endpoint.address, address, "{text}");
        assert_eq!(endpoint.weight.get(), 1);
    }
    for text in [
        "",
        ":",
        ":80",
        "host",
        "host:",
        "host:+80",
        "host:65536",
        "host:80:80",
        "http://",
        "http://host/",
        "http://host?x",
        "http://user@host:80",
        "ftp://host:21",
        "1.2.3:80",
        "-host:80",
        "host.:80",
        "[::1]",
        "[host]:80",
        "::1",
        "unix:run",
        "unix:/run/",
        "unix:/run\0x",
    ] {
        let problem = EndpointText::parse(text).expect_err(text);
        if let Some(at) = problem.at {
            assert!(text.get(at.clone()).is_some(), "{text}: {at:?}");
        }
    }
}

#[test]
fn networks() {
    for (text, inside, outside) in [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
        ("0.0.0.0/0", "255.255.255.255", "::1"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("192.0.2.7/32", "::ffff:192.0.2.7", "192.0.2.6"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
        ("::/0", "::1", "10.0.0.1"),
        ("::1/128", "::1", "::2"),
    ] {
        let network = CidrText::parse(text).expect(text);
        assert!(
            network.contains(inside.parse().expect(inside)),
            "{text} {inside}"
        );
        assert!(
            !network.contains(outside.parse().expect(outside)),
            "{text} {outside}"
        );
        assert_eq!(CidrText::parse(&network.to_string()), Ok(network));
    }
    for text in [
        "",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0.1/8",
        "::/129",
        "x/8",
    ] {
        assert!(CidrText::parse(text).is_err(), "{text}");
    }
}

#[test]
fn cores() {
    for (text, cores) in [
        ("auto", Cores::Auto),
        ("0", Cores::Set(vec![0])),
        ("2-4,10", Cores::Set(vec![2, 3, 4, 10])),
        ("10,2-3", Cores::Set(vec![2, 3, 10])),
        ("7-7", Cores::Set(vec![7])),
    ] {
        assert_eq!(CoresText::parse(text), Ok(cores), "{text}");
    }
    for text in [
        "",
        "-",
        "1-",
        "-1",
        "a",
        "4-2",
        "1,1",
        "1-3,2",
        "1024",
        "0-4294967295",
        "+1",
        "1, 2",
    ] {
        assert!(CoresText::parse(text).is_err(), "{text}");
    }
}
