use super::super::digest::{Digest, DigestSecret};
use super::super::table::Key;

fn key(secret: &DigestSecret, fill: impl FnOnce(&mut Digest)) -> Key {
    let mut digest = secret.begin(7);
    fill(&mut digest);
    digest.finish()
}

#[test]
fn an_ipv6_client_is_its_64_and_a_mapped_address_is_ipv4() {
    let secret = DigestSecret::default();
    let client = |text: &str| {
        let address = text.parse().expect("an address");
        key(&secret, |digest| digest.client(Some(address)))
    };
    assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff::9"));
    assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
    assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
    assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    // The IPv6 network with the same bits.
    assert_ne!(client("192.0.2.1"), client("0:0:c000:201::"));
    assert_ne!(
        client("0.0.0.0"),
        key(&secret, |digest| digest.client(None))
    );
}

#[test]
fn parts_cannot_be_shifted_from_one_to_the_next() {
    let secret = DigestSecret::default();
    let texts = |parts: &[&[u8]]| {
        key(&secret, |digest| {
            parts
                .iter()
                .for_each(|part| digest.text(part.iter().copied()))
        })
    };
    assert_ne!(texts(&[b"ab", b"c"]), texts(&[b"a", b"bc"]));
    assert_ne!(texts(&[b"ab"]), texts(&[b"ab", b""]));
    assert_eq!(texts(&[b"ab", b"c"]), texts(&[b"ab", b"c"]));
    let long = [b'x'; 100];
    for length in 0..100 {
        let text = &long[..length];
        assert_eq!(texts(&[text]), texts(&[text]));
        assert_ne!(texts(&[text]), texts(&[&long[..length + 1]]));
        assert_ne!(texts(&[text, b""]), texts(&[text]));
    }
}

#[test]
fn limits_and_processes_have_different_keys() {
    let (one, other) = (DigestSecret::default(), DigestSecret::default());
    assert_ne!(one.begin(1).finish(), one.begin(2).finish());
    assert_ne!(one.begin(1).finish(), other.begin(1).finish());
}
