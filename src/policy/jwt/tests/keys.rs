//! Keys, and sets of them.

use std::sync::Arc;

use weir_config::JwtAlgorithm as Algorithm;

use super::super::{Key, KeyBoard, KeyOrigin, KeyReader, KeySet, KeySource, ReadKeySet};
use super::signer::{SECRET, Signer, encode};
use crate::policy::json::Object;

fn set(jwks: &[&str]) -> Result<ReadKeySet, String> {
    let text = format!("{{\"keys\":[{}]}}", jwks.join(","));
    KeySet::parse(text.as_bytes(), &[], KeyOrigin::Fetched)
}

fn key(jwk: &str, allowed: &[Algorithm]) -> Result<Option<Key>, String> {
    Key::from_jwk(
        &Object::parse(jwk.as_bytes()).unwrap(),
        allowed,
        KeyOrigin::File,
    )
}

fn verifies(key: &Key, signer: &Signer) -> bool {
    key.verify(signer.algorithm, b"text", &encode(signer.signature("text")))
}

#[test]
fn a_key_is_for_one_algorithm() {
    use Algorithm::*;
    for signer in Signer::all() {
        let plain = key(&format!("{{{}}}", signer.members), &[])
            .unwrap()
            .unwrap();
        let is_default = !matches!(
            signer.algorithm,
            Rs384 | Rs512 | Ps256 | Ps384 | Ps512 | Hs384 | Hs512
        );
        assert_eq!(
            verifies(&plain, signer),
            is_default,
            "{:?}",
            signer.algorithm
        );
        let own = key(&signer.jwk("k"), &[]).unwrap().unwrap();
        assert!(verifies(&own, signer));
        assert_eq!(own.id(), Some("k"));
        let chosen = key(&format!("{{{}}}", signer.members), &[signer.algorithm])
            .unwrap()
            .unwrap();
        assert!(verifies(&chosen, signer));
        let others: Vec<_> = Signer::all()
            .iter()
            .map(|other| other.algorithm)
            .filter(|a| *a != signer.algorithm)
            .collect();
        key(&signer.jwk("k"), &others).unwrap_err();
    }
    let rsa = Signer::of(Rs256);
    let both = key(&format!("{{{}}}", rsa.members), &[Rs256, Ps384, Es256])
        .unwrap()
        .unwrap();
    assert!(
        verifies(&both, rsa)
            && verifies(&both, Signer::of(Ps384))
            && !verifies(&both, Signer::of(Ps256))
    );
    // Another type's algorithm.
    for (signer, algorithm) in [
        (Rs256, "HS256"),
        (Hs256, "RS256"),
        (Es256, "ES384"),
        (EdDsa, "ES256"),
        (Es256, "none"),
    ] {
        let jwk = format!("{{{},\"alg\":\"{algorithm}\"}}", Signer::of(signer).members);
        assert!(
            key(&jwk, &[]).unwrap_err().contains("does not fit"),
            "{jwk}"
        );
    }
}

#[test]
fn keys_for_other_uses_are_ignored() {
    let signer = Signer::of(Algorithm::Es256);
    let with = |members: &str| key(&format!("{{{},{members}}}", signer.members), &[]);
    for members in [
        r#""use":"sig""#,
        r#""key_ops":["verify"]"#,
        r#""key_ops":["sign","verify"],"use":"sig""#,
    ] {
        assert!(with(members).unwrap().is_some(), "{members}");
    }
    for members in [
        r#""use":"enc""#,
        r#""use":"""#,
        r#""key_ops":[]"#,
        r#""key_ops":["encrypt"]"#,
        r#""use":"enc","key_ops":["verify"]"#,
    ] {
        assert!(with(members).unwrap().is_none(), "{members}");
    }
    for members in [
        r#""use":1"#,
        r#""key_ops":"verify""#,
        r#""kid":1"#,
        r#""alg":1"#,
    ] {
        with(members).unwrap_err();
    }
}

#[test]
fn broken_keys_are_refused() {
    let on_curve = encode([7; 32]);
    for (jwk, why) in [
        ("{}".to_owned(), "`kty` is missing"),
        (
            r#"{"kty":"PQ"}"#.to_owned(),
            "Weir does not support its type",
        ),
        (r#"{"kty":"RSA","n":"AQAB"}"#.to_owned(), "`e` is missing"),
        (
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#.to_owned(),
            "it has 17 bits",
        ),
        (
            r#"{"kty":"RSA","n":"","e":"AQAB"}"#.to_owned(),
            "it has 0 bits",
        ),
        (
            format!(r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#, encode([255; 128])),
            "it has 1024 bits",
        ),
        (
            format!(
                r#"{{"kty":"RSA","n":"{}","e":"AQAB"}}"#,
                encode([255; 2000])
            ),
            "it has 16000 bits",
        ),
        (
            r#"{"kty":"RSA","n":"AQ==","e":"AQAB"}"#.to_owned(),
            "`n` is not base64url",
        ),
        (
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{on_curve}","y":"{on_curve}"}}"#),
            "not a point of its curve",
        ),
        (
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{on_curve}","y":"AA"}}"#),
            "must have 32 bytes each",
        ),
        (
            format!(r#"{{"kty":"EC","crv":"secp256k1","x":"{on_curve}","y":"{on_curve}"}}"#),
            "does not support its curve",
        ),
        (
            format!(r#"{{"kty":"EC","crv":"Ed25519","x":"{on_curve}","y":"{on_curve}"}}"#),
            "does not support its curve",
        ),
        (
            format!(r#"{{"kty":"OKP","crv":"X25519","x":"{on_curve}"}}"#),
            "does not support its curve",
        ),
        (
            format!(r#"{{"kty":"OKP","crv":"Ed448","x":"{on_curve}"}}"#),
            "does not support its curve",
        ),
        (
            r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#.to_owned(),
            "not a point of its curve",
        ),
        (
            format!(
                r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"}}"#,
                encode([0; 32])
            ),
            "a point of small order",
        ),
        (r#"{"kty":"oct","k":"AA"}"#.to_owned(), "at least 32"),
        (
            format!(r#"{{"kty":"oct","alg":"HS512","k":"{}"}}"#, encode([1; 63])),
            "at least 64",
        ),
    ] {
        let error = key(&jwk, &[]).unwrap_err();
        assert!(error.contains(why), "{jwk}: {error}");
    }
}

#[test]
fn an_rsa_key_whose_exponent_changes_nothing_verifies_nothing() {
    // With an exponent of one, everybody could write signatures.
    let n = [255; 256];
    for exponent in [&[1][..], &[0], &[], &[2]] {
        let jwk = format!(
            r#"{{"kty":"RSA","n":"{}","e":"{}"}}"#,
            encode(n),
            encode(exponent)
        );
        let key = key(&jwk, &[]).unwrap().unwrap();
        for signature in [[0; 256], [1; 256]] {
            assert!(!key.verify(Algorithm::Rs256, b"text", &encode(signature)));
        }
    }
}

#[test]
fn a_set_leaves_out_what_it_cannot_use() {
    let rsa = Signer::of(Algorithm::Rs256);
    let ec = Signer::of(Algorithm::Es256);
    let (rsa_a, ec_a, ec_b) = (
        rsa.jwk("a"),
        ec.jwk("a"),
        Signer::new(Algorithm::Es256).jwk("a"),
    );
    let read = set(&[
        &rsa_a,
        &ec_a,
        &ec_b,
        r#"{"kty":"new","kid":"n"}"#,
        "7",
        r#"{"kty":"EC","use":"enc"}"#,
    ])
    .unwrap();
    assert_eq!(read.keys.iter().count(), 2);
    assert_eq!(
        read.left_out,
        [
            "key \"a\": another key has the same id",
            "key \"n\": Weir does not support its type \"new\"",
            "key 5: it is not an object"
        ]
    );
    // The first of two keys with one id and algorithm stays.
    assert_eq!(read.keys.iter().filter(|key| verifies(key, ec)).count(), 1);
    for (text, why) in [
        ("", "it is not a key set"),
        ("[]", "it is not a key set"),
        ("{}", "no list `keys`"),
        (r#"{"keys":{}}"#, "no list `keys`"),
        (r#"{"keys":[]}"#, "no key for signatures"),
        (r#"{"keys":[],"keys":[]}"#, "is repeated"),
        (
            r#"{"keys":[{"kty":"x"}]}"#,
            "no usable key; key 1: Weir does not support",
        ),
        ("<html>", "it is not a key set"),
    ] {
        let error = KeySet::parse(text.as_bytes(), &[], KeyOrigin::Fetched).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
    let many = vec![ec_a.as_str(); 65];
    assert!(set(&many).unwrap_err().contains("at most 64"));
}

#[test]
fn files_have_public_keys_in_pem_and_secrets_as_they_are() {
    for signer in Signer::all() {
        let key = if signer.pem.is_empty() {
            Key::from_secret_file(SECRET, &[signer.algorithm]).unwrap()
        } else {
            Key::from_pem(signer.pem.as_bytes(), &[signer.algorithm]).unwrap()
        };
        assert!(verifies(&key, signer), "{:?}", signer.algorithm);
        assert_eq!(key.id(), None);
    }
    let pem = &Signer::of(Algorithm::Es256).pem;
    let label = |label: &str| pem.replace("PUBLIC KEY", label);
    for (text, why) in [
        (String::new(), "neither a public key"),
        ("x".to_owned(), "neither a public key"),
        (pem.repeat(2), "several keys"),
        (label("PRIVATE KEY"), "it is a private key"),
        (label("RSA PRIVATE KEY"), "it is a private key"),
        (label("CERTIFICATE"), "it is a certificate"),
        (label("OPENSSH KEY"), "neither a public key"),
        (pem.replace("A", "B"), ""),
        (pem[..pem.len() / 2].to_owned(), ""),
    ] {
        let error = Key::from_pem(text.as_bytes(), &[]).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
    assert!(
        Key::from_pem(pem.as_bytes(), &[Algorithm::Rs256])
            .unwrap_err()
            .contains("no algorithm")
    );
    assert!(
        Key::from_secret_file(b"short", &[])
            .unwrap_err()
            .contains("at least 32")
    );
}

#[test]
fn a_board_moves_only_when_keys_change() {
    let board = Arc::new(KeyBoard::new(KeySource {
        place: weir_config::JwtKeys::Url(
            weir_config::FetchUrl::parse("https://issuer.example/keys").unwrap(),
        ),
        issuer: None,
        ca: None,
        algorithms: Box::default(),
    }));
    let reader = KeyReader::new(Arc::clone(&board));
    let count = |reader: &KeyReader| {
        reader.with(|keys, version| (keys.map_or(0, |keys| keys.iter().count()), version))
    };
    assert_eq!((reader.version(), count(&reader)), (0, (0, 0)));
    let (one, other) = (
        Signer::of(Algorithm::Es256).jwk("a"),
        Signer::of(Algorithm::Rs256).jwk("b"),
    );
    assert!(board.post(set(&[&one]).unwrap().keys));
    assert_eq!((reader.version(), count(&reader)), (1, (1, 1)));
    assert!(!board.post(set(&[&one]).unwrap().keys));
    assert_eq!(reader.version(), 1);
    assert!(board.post(set(&[&one, &other]).unwrap().keys));
    assert_eq!(count(&reader), (2, 2));
    assert!(board.post(set(&[&other, &one]).unwrap().keys));
    assert_eq!(reader.version(), 3);
    assert!(!board.take_wanted());
    board.want();
    board.want();
    assert!(board.take_wanted());
    assert!(!board.take_wanted());
}
