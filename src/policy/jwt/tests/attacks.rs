//! Tokens that must not pass.

use weir_config::JwtAlgorithm as Algorithm;

use super::super::{Audience, KeyOrigin, KeySet, Refusal, Token, TokenRules, Tried, Verified};
use super::signer::{SECRET, Signer, encode, to_der};

const NOW_MS: u64 = 1_700_000_000_000;
const CLAIMS: &str =
    r#"{"iss":"https://issuer.example/","aud":"api","sub":"ann","exp":1700000600}"#;

fn rules() -> TokenRules {
    TokenRules {
        issuer: Some("https://issuer.example/".into()),
        audience: Audience::OneOf(["api".into()].into()),
        leeway_s: 60.0,
        require: Box::default(),
    }
}

fn key_set(jwks: &[String]) -> KeySet {
    let text = format!("{{\"keys\":[{}]}}", jwks.join(","));
    KeySet::parse(text.as_bytes(), &[], KeyOrigin::File)
        .unwrap()
        .keys
}

fn verify_at(token: &str, keys: &KeySet, now_ms: u64) -> Result<Verified, Refusal> {
    let rules = rules();
    for try_index in 0.. {
        let token = Token::parse(token.as_bytes())?;
        rules.check(&token, now_ms)?;
        match rules.verify(token, keys, try_index) {
            Tried::Valid(verified) => return Ok(verified),
            Tried::Refused(refusal) => return Err(refusal),
            Tried::WrongKey => {}
        }
    }
    unreachable!()
}

fn verify(token: &str, keys: &KeySet) -> Result<Verified, Refusal> {
    verify_at(token, keys, NOW_MS)
}

fn refusal(token: &str, keys: &KeySet) -> Refusal {
    verify(token, keys)
        .err()
        .unwrap_or_else(|| panic!("passes: {token}"))
}

#[test]
fn every_algorithm_verifies_what_its_key_has_signed() {
    for signer in Signer::all() {
        let keys = key_set(&[signer.jwk("k")]);
        let verified = verify(&signer.token(CLAIMS), &keys).unwrap();
        assert_eq!(verified.claims.text("sub"), Some("ann"));
        assert_eq!(verified.expires_ms, 1_700_000_660_000);
        assert!(verified.is_sufficient);
    }
}

#[test]
fn no_algorithm_passes_for_another() {
    for signer in Signer::all() {
        let keys = key_set(&[signer.jwk("k")]);
        for other in Signer::all()
            .into_iter()
            .filter(|other| other.algorithm != signer.algorithm)
        {
            // The key of one algorithm, the name of another, and the signature by either.
            let header = other.header("k");
            assert_eq!(
                refusal(&signer.sign(&header, CLAIMS), &keys),
                Refusal::Algorithm
            );
            assert_eq!(
                refusal(&other.sign(&header, CLAIMS), &keys),
                Refusal::Algorithm
            );
            let header = signer.header("k");
            assert_eq!(
                refusal(&other.sign(&header, CLAIMS), &keys),
                Refusal::Signature
            );
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    use jsonwebtoken::{Algorithm as Library, EncodingKey, crypto};
    for signer in Signer::all()
        .into_iter()
        .filter(|signer| !signer.pem.is_empty())
    {
        let keys = key_set(&[signer.jwk("k")]);
        let der = signer
            .pem
            .lines()
            .filter(|line| !line.starts_with('-'))
            .collect::<String>();
        let jwk = signer.jwk("k");
        for secret in [
            signer.pem.as_bytes(),
            signer.pem.trim().as_bytes(),
            der.as_bytes(),
            jwk.as_bytes(),
            b"",
        ] {
            for (name, library) in [
                ("HS256", Library::HS256),
                ("HS384", Library::HS384),
                ("HS512", Library::HS512),
            ] {
                let header = format!("{{\"alg\":\"{name}\",\"kid\":\"k\"}}");
                let text = format!("{}.{}", encode(&header), encode(CLAIMS));
                let signature =
                    crypto::sign(text.as_bytes(), &EncodingKey::from_secret(secret), library)
                        .unwrap();
                assert_eq!(
                    refusal(&format!("{text}.{signature}"), &keys),
                    Refusal::Algorithm
                );
                // The same signature under the algorithm of the key.
                let text = format!("{}.{}", encode(signer.header("k")), encode(CLAIMS));
                let signature =
                    crypto::sign(text.as_bytes(), &EncodingKey::from_secret(secret), library)
                        .unwrap();
                assert_eq!(
                    refusal(&format!("{text}.{signature}"), &keys),
                    Refusal::Signature
                );
            }
        }
    }
}

#[test]
fn none_never_passes() {
    let keys = key_set(&[
        Signer::of(Algorithm::Es256).jwk("k"),
        Signer::of(Algorithm::Hs256).jwk("s"),
    ]);
    let signed = Signer::of(Algorithm::Es256).token(CLAIMS);
    let signature = signed.rsplit('.').next().unwrap();
    for name in [
        "none", "None", "NONE", "nOnE", "", " none", "none ", "null", "HS1", "RS1", "ES256K",
        "dir", "A128KW",
    ] {
        let header = format!("{{\"alg\":{name:?}}}");
        for signature in ["", signature, "AA"] {
            let token = format!("{}.{}.{signature}", encode(&header), encode(CLAIMS));
            assert_eq!(refusal(&token, &keys), Refusal::Algorithm, "{name}");
        }
    }
    for header in [
        "{}",
        r#"{"alg":null}"#,
        r#"{"alg":["ES256"]}"#,
        r#"{"alg":1}"#,
        r#"{"ALG":"ES256"}"#,
    ] {
        let token = format!("{}.{}.{signature}", encode(header), encode(CLAIMS));
        verify(&token, &keys).unwrap_err();
    }
    // The signature left out.
    let (text, _) = signed.rsplit_once('.').unwrap();
    assert_eq!(refusal(&format!("{text}."), &keys), Refusal::Signature);
    assert_eq!(refusal(text, &keys), Refusal::Malformed);
}

#[test]
fn keys_in_a_token_are_not_used() {
    let ours = Signer::of(Algorithm::Es256);
    let keys = key_set(&[ours.jwk("k")]);
    let theirs = Signer::new(Algorithm::Es256);
    let jwk = theirs.jwk("k");
    for member in [
        format!("\"jwk\":{jwk}"),
        r#""jku":"http://127.0.0.1:9/keys""#.to_owned(),
        r#""x5u":"http://127.0.0.1:9/cert""#.to_owned(),
        r#""x5c":["MIIB"]"#.to_owned(),
        r#""x5t":"AA","x5t#S256":"AA""#.to_owned(),
    ] {
        let header = format!("{{\"alg\":\"ES256\",\"kid\":\"k\",{member}}}");
        assert_eq!(
            refusal(&theirs.sign(&header, CLAIMS), &keys),
            Refusal::Signature,
            "{member}"
        );
        // Nor do they hurt.
        verify(&ours.sign(&header, CLAIMS), &keys).unwrap();
        let header = format!("{{\"alg\":\"ES256\",\"kid\":\"other\",{member}}}");
        assert_eq!(
            refusal(&theirs.sign(&header, CLAIMS), &keys),
            Refusal::UnknownKey
        );
    }
}

#[test]
fn a_key_id_is_only_compared() {
    let signer = Signer::of(Algorithm::Es256);
    let keys = key_set(&[signer.jwk("k")]);
    for id in [
        "K",
        "k ",
        " k",
        "",
        "../k",
        "../../../../dev/null",
        "/etc/passwd",
        "k' OR '1'='1",
        "k\\u0000",
        "k\\n",
        "%6b",
        "http://127.0.0.1:9/",
        "|id",
        "*",
    ] {
        let header = format!("{{\"alg\":\"ES256\",\"kid\":\"{id}\"}}");
        assert_eq!(
            refusal(&signer.sign(&header, CLAIMS), &keys),
            Refusal::UnknownKey,
            "{id}"
        );
    }
    for id in ["1", "null", "[\"k\"]", "{}", "true"] {
        let header = format!("{{\"alg\":\"ES256\",\"kid\":{id}}}");
        assert_eq!(
            refusal(&signer.sign(&header, CLAIMS), &keys),
            Refusal::WrongType,
            "{id}"
        );
    }
    // Without an id, a key that fits is looked for.
    verify(&signer.sign(r#"{"alg":"ES256"}"#, CLAIMS), &keys).unwrap();
}

#[test]
fn critical_extensions_are_not_understood() {
    let signer = Signer::of(Algorithm::Hs256);
    let keys = key_set(&[signer.jwk("k")]);
    for crit in [
        "[\"b64\"]",
        "[\"exp\"]",
        "[]",
        "[\"alg\"]",
        "\"b64\"",
        "null",
        "[\"http://x.example/new\"]",
        "{}",
    ] {
        let header = format!("{{\"alg\":\"HS256\",\"kid\":\"k\",\"b64\":true,\"crit\":{crit}}}");
        assert_eq!(
            refusal(&signer.sign(&header, CLAIMS), &keys),
            Refusal::Critical,
            "{crit}"
        );
    }
}

#[test]
fn every_changed_bit_is_noticed() {
    for algorithm in [Algorithm::Es256, Algorithm::Hs256, Algorithm::EdDsa] {
        let signer = Signer::of(algorithm);
        let keys = key_set(&[signer.jwk("k")]);
        let token = signer.token(CLAIMS);
        verify(&token, &keys).unwrap();
        for index in 0..token.len() {
            for bit in 0..8 {
                let mut changed = token.clone().into_bytes();
                changed[index] ^= 1 << bit;
                if let Ok(changed) = std::str::from_utf8(&changed) {
                    assert!(verify(changed, &keys).is_err(), "{changed}");
                }
            }
        }
        for index in 0..token.len() {
            assert!(verify(&token[..index], &keys).is_err());
            assert!(verify(&token[index + 1..], &keys).is_err());
            let without = [&token[..index], &token[index + 1..]].concat();
            assert!(verify(&without, &keys).is_err());
        }
    }
}

#[test]
fn signatures_have_their_one_length() {
    for signer in Signer::all() {
        let keys = key_set(&[signer.jwk("k")]);
        let text = format!("{}.{}", encode(signer.header("k")), encode(CLAIMS));
        let signature = signer.signature(&text);
        let mut wrong = vec![
            Vec::new(),
            vec![0; signature.len()],
            signature[..signature.len() - 1].to_vec(),
            signature[1..].to_vec(),
            [&signature[..], &[0]].concat(),
            [&[0], &signature[..]].concat(),
            signature.repeat(2),
            signature.iter().rev().copied().collect(),
            signature[..signature.len() / 2].to_vec(),
            vec![0xff; signature.len()],
            vec![1; 10_000],
        ];
        if matches!(signer.algorithm, Algorithm::Es256 | Algorithm::Es384) {
            wrong.push(to_der(&signature));
            let (r, s) = signature.split_at(signature.len() / 2);
            // R and S of zero verified everything in more than one library.
            wrong.push([r, &vec![0; s.len()]].concat());
            wrong.push([&vec![0; r.len()], s].concat());
            wrong.push([s, r].concat());
        }
        for wrong in wrong {
            let token = format!("{text}.{}", encode(&wrong));
            assert_eq!(
                refusal(&token, &keys),
                Refusal::Signature,
                "{:?}",
                signer.algorithm
            );
        }
    }
}

#[test]
fn only_the_compact_form_is_a_token() {
    let signer = Signer::of(Algorithm::Hs256);
    let keys = key_set(&[signer.jwk("k")]);
    let token = signer.token(CLAIMS);
    let parts: Vec<_> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        panic!()
    };
    let json =
        format!(r#"{{"payload":"{claims}","protected":"{header}","signature":"{signature}"}}"#);
    for token in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        json,
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{header}.{claims}.{signature}.{signature}.{signature}"),
        format!("{header}..{claims}.{signature}"),
        format!(" {token}"),
        format!("{token} "),
        format!("{token}\n"),
        format!("\"{token}\""),
        format!("{token}#"),
        format!("{token},{token}"),
        format!("{header}=.{claims}.{signature}"),
        format!("{header}.{claims}=.{signature}"),
        format!("{header}.{claims}.{signature}="),
        format!("{header}.{claims}.{signature}=="),
        format!("{header}\n.{claims}.{signature}"),
        token.replace('.', "%2E"),
        token.replace('.', "．"),
    ] {
        assert_eq!(refusal(&token, &keys), Refusal::Malformed, "{token}");
    }
    Token::parse(b"\xff.\xff.\xff").unwrap_err();
}

#[test]
fn base64_has_one_form() {
    let signer = Signer::of(Algorithm::Hs256);
    let keys = key_set(&[signer.jwk("k")]);
    let token = signer.token(CLAIMS);
    // The last character of 32 bytes in base64 has two bits that mean nothing.
    let last = token.chars().next_back().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = alphabet.find(last).unwrap();
    assert_eq!(place % 4, 0);
    for other in 1..4 {
        let changed = format!(
            "{}{}",
            &token[..token.len() - 1],
            &alphabet[place + other..=place + other]
        );
        assert_eq!(refusal(&changed, &keys), Refusal::Malformed);
    }
    // The same bytes in the alphabet of other base64, signed as they are.
    let claims = r#"{"aud":"api","exp":1700000600,"iss":"https://issuer.example/","x":"ÿ?ÿ>ÿ?"}"#;
    let url = encode(claims);
    assert!(url.contains(['-', '_']));
    let plain = url.replace('-', "+").replace('_', "/");
    let text = |claims: &str| format!("{}.{claims}", encode(signer.header("k")));
    verify(&signer.sign_text(&text(&url)), &keys).unwrap();
    assert_eq!(
        refusal(&signer.sign_text(&text(&plain)), &keys),
        Refusal::Malformed
    );
    let padded = format!("{}{}", url, "=".repeat(4 - url.len() % 4));
    assert_eq!(
        refusal(&signer.sign_text(&text(&padded)), &keys),
        Refusal::Malformed
    );
}

#[test]
fn huge_tokens_are_refused_and_large_ones_are_read() {
    let signer = Signer::of(Algorithm::Hs256);
    let keys = key_set(&[signer.jwk("k")]);
    let with = |length: usize| {
        let claims = CLAIMS.replace('{', &format!("{{\"x\":\"{}\",", "a".repeat(length)));
        signer.token(&claims)
    };
    let room = 16 * 1024 - with(0).len();
    let largest = (0..)
        .map(|less| with(room * 3 / 4 - less))
        .find(|token| token.len() <= 16 * 1024)
        .unwrap();
    assert!(largest.len() > 16 * 1024 - 4);
    verify(&largest, &keys).unwrap();
    assert_eq!(refusal(&with(room * 3 / 4 + 3), &keys), Refusal::TooLong);
    assert_eq!(refusal(&with(10_000_000), &keys), Refusal::TooLong);
    assert_eq!(refusal(&".".repeat(16 * 1024 + 1), &keys), Refusal::TooLong);
    let deep = format!("{}{}", "[".repeat(4000), "]".repeat(4000));
    let claims = CLAIMS.replace('{', &format!("{{\"x\":{deep},"));
    assert_eq!(refusal(&signer.token(&claims), &keys), Refusal::Malformed);
}

#[test]
fn repeated_names_are_refused() {
    let signer = Signer::of(Algorithm::Hs256);
    let keys = key_set(&[signer.jwk("k")]);
    for header in [
        r#"{"alg":"HS256","alg":"HS256","kid":"k"}"#,
        r#"{"alg":"none","kid":"k","alg":"HS256"}"#,
        r#"{"alg":"HS256","kid":"x","kid":"k"}"#,
        r#"{"alg":"HS256","kid":"k","x":{"y":1,"y":2}}"#,
    ] {
        assert_eq!(
            refusal(&signer.sign(header, CLAIMS), &keys),
            Refusal::Malformed,
            "{header}"
        );
    }
    for member in [
        r#""sub":"bob""#,
        r#""s\u0075b":"bob""#,
        r#""exp":1700000600"#,
        r#""x":{"y":1,"y":1}"#,
        r#""x":[{"y":1,"z":1,"y":1}]"#,
    ] {
        let claims = CLAIMS.replace('{', &format!("{{{member},"));
        let claims = claims
            .strip_suffix("}}")
            .map_or_else(|| claims.clone(), |rest| format!("{rest}}}"));
        assert_eq!(
            refusal(&signer.token(&claims), &keys),
            Refusal::Malformed,
            "{claims}"
        );
    }
}

#[test]
fn parts_that_are_no_objects_are_refused() {
    let signer = Signer::of(Algorithm::Hs256);
    let keys = key_set(&[signer.jwk("k")]);
    for part in [
        "",
        "[]",
        "1",
        "null",
        "\"{}\"",
        "{",
        "{}x",
        "{} {}",
        "\u{feff}{}",
        "{'a':1}",
        "{\"a\":1,}",
        "{\"a\":01}",
    ] {
        assert_eq!(
            refusal(&signer.token(part), &keys),
            Refusal::Malformed,
            "{part}"
        );
        assert_eq!(
            refusal(&signer.sign(part, CLAIMS), &keys),
            Refusal::Malformed,
            "{part}"
        );
    }
    let not_utf8 = format!(
        "{}.{}",
        encode(signer.header("k")),
        encode(b"{\"a\":\"\xff\"}")
    );
    assert_eq!(
        refusal(&signer.sign_text(&not_utf8), &keys),
        Refusal::Malformed
    );
}

#[test]
fn a_secret_in_a_set_for_files_is_used_and_in_a_fetched_one_is_not() {
    let signer = Signer::of(Algorithm::Hs256);
    let public = Signer::of(Algorithm::Es256);
    let text = format!("{{\"keys\":[{},{}]}}", signer.jwk("s"), public.jwk("k"));
    let fetched = KeySet::parse(text.as_bytes(), &[], KeyOrigin::Fetched).unwrap();
    assert_eq!(fetched.keys.iter().count(), 1);
    assert!(
        fetched.left_out[0].contains("it is a secret"),
        "{:?}",
        fetched.left_out
    );
    let token = signer.sign(&signer.header("s"), CLAIMS);
    assert_eq!(refusal(&token, &fetched.keys), Refusal::UnknownKey);
    let from_file = KeySet::parse(text.as_bytes(), &[], KeyOrigin::File).unwrap();
    verify(&token, &from_file.keys).unwrap();
    let only = format!("{{\"keys\":[{}]}}", signer.jwk("s"));
    KeySet::parse(only.as_bytes(), &[], KeyOrigin::Fetched).unwrap_err();
    assert!(!format!("{from_file:?}").contains(&encode(SECRET)));
}

#[test]
fn without_an_id_only_keys_of_the_algorithm_are_tried() {
    let first = Signer::new(Algorithm::Es256);
    let second = Signer::new(Algorithm::Es256);
    let secret = Signer::of(Algorithm::Hs256);
    let keys = key_set(&[first.jwk("1"), secret.jwk("s"), second.jwk("2")]);
    for signer in [&first, &second, secret] {
        let header = format!("{{\"alg\":\"{}\"}}", signer.algorithm.name());
        verify(&signer.sign(&header, CLAIMS), &keys).unwrap();
    }
    let third = Signer::new(Algorithm::Es256);
    assert_eq!(
        refusal(&third.sign(r#"{"alg":"ES256"}"#, CLAIMS), &keys),
        Refusal::Signature
    );
    assert_eq!(
        refusal(&third.sign(r#"{"alg":"ES384"}"#, CLAIMS), &keys),
        Refusal::Algorithm
    );
    let token = first.sign(r#"{"alg":"ES256"}"#, CLAIMS);
    let rules = rules();
    // One key a call.
    let tried = |index| rules.verify(Token::parse(token.as_bytes()).unwrap(), &keys, index);
    assert!(matches!(tried(0), Tried::Valid(_)));
    assert!(matches!(tried(1), Tried::Refused(Refusal::Signature)));
    assert!(matches!(tried(2), Tried::Refused(Refusal::Signature)));
    let token = second.sign(r#"{"alg":"ES256"}"#, CLAIMS);
    let tried = |index| rules.verify(Token::parse(token.as_bytes()).unwrap(), &keys, index);
    assert!(matches!(tried(0), Tried::WrongKey));
    assert!(matches!(tried(1), Tried::Valid(_)));
}

#[test]
fn no_changed_token_passes_or_panics() {
    let mut random = fastrand::Rng::with_seed(7);
    let signer = Signer::of(Algorithm::Es256);
    let (token, keys) = (signer.token(CLAIMS), key_set(&[signer.jwk("k")]));
    for _ in 0..20_000 {
        let mut text = token.clone().into_bytes();
        for _ in 0..random.usize(1..8) {
            let (at, to) = (random.usize(..text.len()), random.usize(..text.len()));
            match random.u8(..5) {
                0 => text[at] = random.u8(..),
                1 => text.truncate(at.max(1)),
                2 => text.insert(at, *random.choice(b".=-_{}\"").unwrap()),
                3 => text.swap(at, to),
                _ => {
                    let piece = text[at.min(to)..at.max(to)].to_vec();
                    text.extend(piece);
                }
            }
        }
        if let Ok(text) = std::str::from_utf8(&text)
            && text != token
        {
            assert!(verify(text, &keys).is_err(), "{text}");
        }
    }
}
