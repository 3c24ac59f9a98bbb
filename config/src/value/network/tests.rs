use super::*;

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
