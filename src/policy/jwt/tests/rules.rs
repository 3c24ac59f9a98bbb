//! What tokens must say, and where they stand.

use weir_config::JwtAlgorithm as Algorithm;
use weir_proto_h1::Head;

use super::super::{
    Audience, Found, KeyOrigin, KeySet, Place, Refusal, Requirement, Token, TokenRules, Tried,
};
use super::signer::Signer;
use crate::policy::Claims;

const NOW_S: i64 = 1_700_000_000;

fn rules() -> TokenRules {
    TokenRules {
        issuer: Some("https://issuer.example/".into()),
        audience: Audience::OneOf(["api".into(), "web".into()].into()),
        leeway_s: 60.0,
        require: Box::default(),
    }
}

/// The outcome of a token with these claims, beside the usual issuer, audience and expiry unless they are there too.
fn check_with(rules: &TokenRules, claims: &str) -> Result<(), Refusal> {
    let mut all = claims.to_owned();
    for usual in [
        r#""iss":"https://issuer.example/""#,
        r#""aud":"api""#,
        r#""exp":1700000600"#,
    ] {
        let name = usual.split(':').next().unwrap();
        if !claims.contains(name) {
            all += if all.is_empty() { "" } else { "," };
            all += usual;
        }
    }
    let signer = Signer::of(Algorithm::Hs256);
    let text = signer.token(&format!("{{{}}}", all.replace("\"-\":0,", "")));
    let token = Token::parse(text.as_bytes())?;
    rules.check(&token, NOW_S as u64 * 1000)?;
    let keys = format!("{{\"keys\":[{}]}}", signer.jwk("k"));
    let keys = KeySet::parse(keys.as_bytes(), &[], KeyOrigin::File)
        .unwrap()
        .keys;
    match rules.verify(token, &keys, 0) {
        Tried::Valid(verified) if verified.is_sufficient => Ok(()),
        Tried::Valid(_) => Err(Refusal::Insufficient),
        Tried::Refused(refusal) => Err(refusal),
        Tried::WrongKey => panic!("there is one key"),
    }
}

fn check(claims: &str) -> Result<(), Refusal> {
    check_with(&rules(), claims)
}

#[test]
fn times_have_a_leeway() {
    for (claims, wanted) in [
        (format!("\"exp\":{}", NOW_S + 1), Ok(())),
        (format!("\"exp\":{}", NOW_S - 59), Ok(())),
        (format!("\"exp\":{}", NOW_S - 60), Err(Refusal::Expired)),
        (format!("\"exp\":{}.5", NOW_S - 60), Ok(())),
        ("\"exp\":0".to_owned(), Err(Refusal::Expired)),
        ("\"exp\":-1".to_owned(), Err(Refusal::Expired)),
        (
            "\"exp\":-9223372036854775808".to_owned(),
            Err(Refusal::Expired),
        ),
        ("\"exp\":18446744073709551615".to_owned(), Ok(())),
        (format!("\"nbf\":{}", NOW_S + 60), Ok(())),
        (format!("\"nbf\":{}", NOW_S + 61), Err(Refusal::NotYet)),
        ("\"nbf\":-5".to_owned(), Ok(())),
        (
            "\"nbf\":18446744073709551615".to_owned(),
            Err(Refusal::NotYet),
        ),
        // The time of issue is no limit (RFC 7519, section 4.1.6).
        (format!("\"iat\":{}", NOW_S + 100_000), Ok(())),
    ] {
        assert_eq!(check(&claims), wanted, "{claims}");
    }
    let strict = TokenRules {
        leeway_s: 0.0,
        ..rules()
    };
    assert_eq!(
        check_with(&strict, &format!("\"exp\":{NOW_S}")),
        Err(Refusal::Expired)
    );
    assert_eq!(
        check_with(&strict, &format!("\"exp\":{}", NOW_S + 1)),
        Ok(())
    );
    assert_eq!(check_with(&strict, &format!("\"nbf\":{NOW_S}")), Ok(()));
    assert_eq!(
        check_with(&strict, &format!("\"nbf\":{}", NOW_S + 1)),
        Err(Refusal::NotYet)
    );
}

#[test]
fn an_expiry_is_required() {
    let signer = Signer::of(Algorithm::Hs256);
    let token = signer.token(r#"{"iss":"https://issuer.example/","aud":"api"}"#);
    assert_eq!(
        Token::parse(token.as_bytes()).err(),
        Some(Refusal::NoExpiry)
    );
}

#[test]
fn claims_have_their_types() {
    for claims in [
        r#""exp":"1700000600""#,
        r#""exp":null"#,
        r#""exp":true"#,
        r#""exp":[1700000600]"#,
        r#""exp":{}"#,
        r#""nbf":"0""#,
        r#""nbf":null"#,
        r#""iat":"0""#,
        r#""iat":false"#,
        r#""iss":["https://issuer.example/"]"#,
        r#""iss":null"#,
        r#""iss":1"#,
        r#""aud":1"#,
        r#""aud":null"#,
        r#""aud":{"api":true}"#,
        r#""aud":["api",1]"#,
        r#""aud":[["api"]]"#,
        r#""sub":1"#,
        r#""sub":null"#,
        r#""sub":["ann"]"#,
        r#""jti":7"#,
        r#""scope":1"#,
        r#""scope":[1]"#,
        r#""scp":{}"#,
    ] {
        assert_eq!(check(claims), Err(Refusal::WrongType), "{claims}");
    }
    for claims in [
        r#""exp":1e400"#,
        r#""exp":NaN"#,
        r#""exp":0x7fffffff"#,
        r#""exp":1e300"#,
    ] {
        assert_eq!(check(claims), Err(Refusal::Malformed), "{claims}");
    }
}

#[test]
fn issuer_and_audience_are_compared_exactly() {
    for issuer in [
        "https://issuer.example",
        "https://ISSUER.example/",
        "http://issuer.example/",
        "https://issuer.example/x",
        "https://issuer.example//",
        "https://issuer.example.evil.example/",
        "",
        " https://issuer.example/",
    ] {
        assert_eq!(
            check(&format!("\"iss\":\"{issuer}\"")),
            Err(Refusal::Issuer),
            "{issuer}"
        );
    }
    let no_issuer = Token::parse(
        Signer::of(Algorithm::Hs256)
            .token(r#"{"aud":"api","exp":1700000600}"#)
            .as_bytes(),
    )
    .map(|token| rules().check(&token, 0));
    assert_eq!(no_issuer, Ok(Err(Refusal::Issuer)));
    for (audience, wanted) in [
        (r#""api""#, Ok(())),
        (r#""web""#, Ok(())),
        (r#"["x","web"]"#, Ok(())),
        (r#""API""#, Err(Refusal::Audience)),
        (r#""api ""#, Err(Refusal::Audience)),
        (r#""api web""#, Err(Refusal::Audience)),
        (r#""api,web""#, Err(Refusal::Audience)),
        (r#""""#, Err(Refusal::Audience)),
        (r#"[]"#, Err(Refusal::Audience)),
        (r#"[""]"#, Err(Refusal::Audience)),
    ] {
        assert_eq!(check(&format!("\"aud\":{audience}")), wanted, "{audience}");
    }
    let signer = Signer::of(Algorithm::Hs256);
    let without = signer.token(r#"{"iss":"https://issuer.example/","exp":1700000600}"#);
    let without = Token::parse(without.as_bytes()).unwrap();
    assert_eq!(rules().check(&without, 0), Err(Refusal::Audience));
    let any = TokenRules {
        audience: Audience::Any,
        ..rules()
    };
    assert_eq!(any.check(&without, 0), Ok(()));
    let nobody = TokenRules {
        audience: Audience::Nobody,
        ..rules()
    };
    assert_eq!(nobody.check(&without, 0), Err(Refusal::Audience));
    let without_issuer = TokenRules {
        issuer: None,
        ..rules()
    };
    assert_eq!(
        check_with(&without_issuer, r#""iss":"https://other.example/""#),
        Ok(())
    );
}

#[test]
fn what_is_required_must_be_granted() {
    let require = |all: Vec<Requirement>| TokenRules {
        require: all.into(),
        ..rules()
    };
    let scope = |scope: &str| Requirement::Scope(scope.into());
    let claim = |name: &str, values: &[&str]| Requirement::Claim {
        name: name.into(),
        values: values.iter().map(|value| (*value).into()).collect(),
    };
    let both = require(vec![scope("read"), scope("write")]);
    assert_eq!(both.scopes(), "read write");
    assert_eq!(check_with(&both, r#""scope":"write read admin""#), Ok(()));
    assert_eq!(check_with(&both, r#""scp":["read","write"]"#), Ok(()));
    for claims in [
        "\"-\":0",
        r#""scope":"read""#,
        r#""scope":"readwrite""#,
        r#""scope":"""#,
        r#""scp":"READ WRITE""#,
    ] {
        assert_eq!(
            check_with(&both, claims),
            Err(Refusal::Insufficient),
            "{claims}"
        );
    }
    let gold = require(vec![
        claim("plan", &["gold", "silver"]),
        claim("a.level", &["3"]),
    ]);
    assert_eq!(gold.scopes(), "");
    assert_eq!(
        check_with(&gold, r#""plan":"silver","a":{"level":3}"#),
        Ok(())
    );
    assert_eq!(
        check_with(&gold, r#""plan":["x","gold"],"a":{"level":[3]}"#),
        Ok(())
    );
    for claims in [
        r#""plan":"gold""#,
        r#""a":{"level":3}"#,
        r#""plan":"goldsilver","a":{"level":3}"#,
    ] {
        assert_eq!(
            check_with(&gold, claims),
            Err(Refusal::Insufficient),
            "{claims}"
        );
    }
    assert!(!claim("x", &[]).is_met(&Claims::parse(br#"{"x":""}"#).unwrap()));
}

fn with_head<T>(lines: &str, read: impl FnOnce(&Head, &[u8]) -> T) -> T {
    let block = format!("{lines}\r\n\r\n");
    let mut head = Head::new();
    let limits = weir_proto_h1::Limits::default();
    weir_proto_h1::parse_request(block.as_bytes(), &limits, &mut head).unwrap();
    read(&head, block.as_bytes())
}

#[test]
fn tokens_are_found_in_their_place_alone() {
    let header = Place::Authorization;
    let other = Place::Header("x-token".into());
    let cookie = Place::Cookie("session".into());
    let get = "GET / HTTP/1.1\r\nHost: a";
    for (place, lines, wanted) in [
        (&header, "", Found::Nothing),
        (
            &header,
            "Authorization: Bearer a.b.c",
            Found::Token(b"a.b.c"),
        ),
        (
            &header,
            "authorization: bEARER   a.b.c ",
            Found::Token(b"a.b.c"),
        ),
        (&header, "Authorization: Basic eDp5", Found::Nothing),
        (
            &header,
            "Authorization: Bearer\ta.b.c",
            Found::Token(b"a.b.c"),
        ),
        (&header, "Authorization: a.b.c", Found::Nothing),
        (&header, "Authorization: Bearer", Found::Nothing),
        (&header, "Authorization: Bearera.b.c", Found::Nothing),
        (
            &header,
            "Authorization: Bearer a, Bearer b",
            Found::Token(b"a, Bearer b"),
        ),
        (
            &header,
            "Authorization: Bearer a\r\nAuthorization: Bearer a",
            Found::Several,
        ),
        (
            &header,
            "Authorization: Basic a\r\nX: y\r\nauthorization: Bearer a",
            Found::Several,
        ),
        (&header, "X-Token: a\r\nCookie: session=a", Found::Nothing),
        (&other, "x-TOKEN: a.b.c", Found::Token(b"a.b.c")),
        (&other, "X-Token: Bearer a.b.c", Found::Token(b"a.b.c")),
        (&other, "X-Token:", Found::Nothing),
        (&other, "X-Token: a\r\nX-Token: b", Found::Several),
        (&other, "Authorization: Bearer a", Found::Nothing),
        (
            &cookie,
            "Cookie: a=b; session=a.b.c; c=d",
            Found::Token(b"a.b.c"),
        ),
        (&cookie, "Cookie: session=a.b.c", Found::Token(b"a.b.c")),
        (
            &cookie,
            "Cookie: a=b; session = a.b.c ;c=d",
            Found::Token(b"a.b.c"),
        ),
        (
            &cookie,
            "Cookie: xsession=a; sessionx=b; Session=c",
            Found::Nothing,
        ),
        (&cookie, "Cookie: session=a; session=a", Found::Several),
        (
            &cookie,
            "Cookie: session=a\r\nCookie: session=b",
            Found::Several,
        ),
        (&cookie, "Cookie: session=", Found::Token(b"")),
    ] {
        let lines = format!("{get}{}{lines}", if lines.is_empty() { "" } else { "\r\n" });
        with_head(&lines, |head, block| {
            assert_eq!(place.find(head, block), wanted, "{lines}")
        });
    }
}

#[test]
fn tokens_are_found_in_the_query() {
    let query = Place::Query("access_token".into());
    for (target, wanted) in [
        ("/?access_token=a.b.c", Found::Token(&b"a.b.c"[..])),
        ("/?x=1&access_token=a.b.c&y=2", Found::Token(b"a.b.c")),
        ("/?access_token=a&access_token=b", Found::Several),
        // An endpoint decodes names.
        ("/?%61ccess%5Ftoken=a.b.c", Found::Token(b"a.b.c")),
        ("/?%61ccess_token=a&access_token=b", Found::Several),
        ("/?Access_Token=a", Found::Nothing),
        ("/?access_token", Found::Nothing),
        ("/access_token=a", Found::Nothing),
        ("/", Found::Nothing),
    ] {
        let lines = format!("GET {target} HTTP/1.1\r\nHost: a");
        with_head(&lines, |head, block| {
            assert_eq!(query.find(head, block), wanted, "{target}")
        });
    }
}
