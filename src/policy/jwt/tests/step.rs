//! The step: from a request to a verdict, and what endpoints get.

use std::sync::Arc;

use weir_config::{FetchUrl, JwtAlgorithm as Algorithm, JwtKeys};
use weir_config::{Jwt, JwtIssuer, OnMissing, TokenPlace};
use weir_proto_h1::{Edits, Head, Limits, Request, parse_request};

use super::super::{JwtState, JwtStatePlan, JwtStep, KeyBoard, KeyOrigin, KeySet};
use super::signer::Signer;
use crate::fault::Reason;
use crate::policy::{Claims, Facts, Flow, SharedByName, StepRequest, Verdict, Wait};

const NOW_MS: u64 = 1_700_000_000_000;
const CLAIMS: &str = r#""iss":"https://one.example/","aud":"api","exp":1700000600"#;

fn issuer(name: &str) -> JwtIssuer {
    JwtIssuer {
        issuer: Some(name.to_owned()),
        audience: vec!["api".to_owned()],
        keys: JwtKeys::Url(FetchUrl::parse(&format!("{name}keys")).unwrap()),
        ca: None,
        algorithms: Vec::new(),
        leeway: std::time::Duration::from_secs(60),
        place: TokenPlace::Header("authorization".to_owned()),
        require: Vec::new(),
        claims_to_headers: Vec::new(),
        forward: false,
    }
}

/// A route's tokens on one core, and the requests that it gets.
struct Core {
    step: JwtStep,
    state: JwtState,
    boards: Vec<Arc<KeyBoard>>,
    wall_ms: u64,
}

impl Core {
    fn new(issuers: Vec<JwtIssuer>, on_missing: OnMissing) -> Self {
        let jwt = Jwt {
            issuers,
            on_missing,
        };
        let mut plan = JwtStatePlan::new(&jwt);
        plan.equip(&mut SharedByName::default());
        Self {
            step: JwtStep::new(&jwt),
            state: plan.make(),
            boards: plan.boards().to_vec(),
            wall_ms: NOW_MS,
        }
    }

    fn of_one() -> Self {
        Self::new(vec![issuer("https://one.example/")], OnMissing::Deny)
    }

    fn post(&self, index: usize, jwks: &[String]) {
        let text = format!("{{\"keys\":[{}]}}", jwks.join(","));
        let keys = KeySet::parse(text.as_bytes(), &[], KeyOrigin::Fetched)
            .unwrap()
            .keys;
        self.boards[index].post(keys);
    }

    fn with<T>(
        &self,
        lines: &str,
        facts: &mut Facts,
        act: impl FnOnce(&StepRequest<'_>, &mut Facts) -> T,
    ) -> T {
        let block = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut head = Head::new();
        let limits = Limits {
            head_bytes_max: 64 * 1024,
            ..Limits::default()
        };
        parse_request(block.as_bytes(), &limits, &mut head).unwrap();
        let hop = Request::default();
        let request = StepRequest {
            wall_ms: self.wall_ms,
            ..StepRequest::for_test(&head, block.as_bytes(), &hop)
        };
        act(&request, facts)
    }

    /// How often a request with these field lines waits, and what follows: its subject, or the reason of a refusal.
    fn ask(&self, lines: &str) -> (usize, Result<String, Reason>) {
        let mut facts = Facts::default();
        let mut flow = self.with(lines, &mut facts, |request, facts| {
            self.step.run(Some(&self.state), request, facts)
        });
        let mut waits = 0;
        while let Flow::Wait(Wait::Turn) = flow {
            waits += 1;
            flow = self.with(lines, &mut facts, |request, facts| {
                self.step.resume(Some(&self.state), request, facts)
            });
        }
        let outcome = match flow {
            Flow::Next => {
                let subject = facts.claims.as_ref().and_then(|claims| claims.text("sub"));
                Ok(subject.unwrap_or_default().to_owned())
            }
            Flow::Reply(reply) => {
                assert!(facts.claims.is_none());
                Err(reply.reason.unwrap())
            }
            Flow::Wait(wait) => panic!("{wait:?}"),
        };
        (waits, outcome)
    }

    /// The request as an endpoint gets it: fields that are left out, and fields that are added.
    fn edits(&self, lines: &str) -> (Vec<String>, Vec<String>) {
        let mut facts = Facts::default();
        let mut flow = self.with(lines, &mut facts, |request, facts| {
            self.step.run(Some(&self.state), request, facts)
        });
        if let Flow::Wait(_) = flow {
            flow = self.with(lines, &mut facts, |request, facts| {
                self.step.resume(Some(&self.state), request, facts)
            });
        }
        assert!(matches!(flow, Flow::Next));
        let mut edits = Edits::new();
        self.with(lines, &mut facts, |request, facts| {
            self.step.edit_request(request, facts, &mut edits)
        });
        let names = ["authorization", "cookie", "x-user", "x-roles", "x-other"];
        let is_removed = |name: &&&str| match weir_proto_h1::FieldId::from_name(name.as_bytes()) {
            weir_proto_h1::FieldId::Other => edits.removes_name(name.as_bytes()),
            id => edits.removed().has(id),
        };
        let removed = names
            .iter()
            .filter(is_removed)
            .map(|name| (*name).to_owned())
            .collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let added = edits
            .iter()
            .map(|(name, value)| format!("{}: {}", text(name), text(value)))
            .collect();
        (removed, added)
    }
}

fn claims(more: &str) -> String {
    format!("{{{CLAIMS},{more}}}")
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

#[test]
fn a_token_is_verified_once_until_it_expires_or_the_keys_change() {
    let mut core = Core::of_one();
    let signer = Signer::of(Algorithm::Es256);
    let ann = bearer(&signer.token(&claims(r#""sub":"ann""#)));
    assert_eq!(core.ask(&ann), (1, Err(Reason::KeysUnavailable)));
    core.post(0, &[signer.jwk("k")]);
    assert_eq!(core.ask(&ann), (1, Ok("ann".to_owned())));
    assert_eq!(core.ask(&ann), (0, Ok("ann".to_owned())));
    // The same keys once more change nothing.
    core.post(0, &[signer.jwk("k")]);
    assert_eq!(core.ask(&ann), (0, Ok("ann".to_owned())));
    core.post(0, &[signer.jwk("k"), Signer::of(Algorithm::EdDsa).jwk("e")]);
    assert_eq!(core.ask(&ann), (1, Ok("ann".to_owned())));
    assert_eq!(core.ask(&ann), (0, Ok("ann".to_owned())));
    core.post(0, &[Signer::of(Algorithm::EdDsa).jwk("e")]);
    assert_eq!(core.ask(&ann), (1, Err(Reason::TokenInvalid)));
    assert!(
        core.boards[0].take_wanted(),
        "control hears of the unknown key"
    );
    core.post(0, &[signer.jwk("k")]);
    assert_eq!(core.ask(&ann), (1, Ok("ann".to_owned())));
    core.wall_ms = 1_700_000_659_999;
    assert_eq!(core.ask(&ann), (0, Ok("ann".to_owned())));
    core.wall_ms += 1;
    assert_eq!(core.ask(&ann), (1, Err(Reason::TokenExpired)));
    assert!(core.state.cache.borrow().is_empty());
    assert!(!core.boards[0].take_wanted());
}

#[test]
fn refused_tokens_are_not_kept_and_weak_ones_are() {
    let mut weak = issuer("https://one.example/");
    weak.require = vec![("scope".to_owned(), vec!["read".to_owned()])];
    let core = Core::new(vec![weak], OnMissing::Deny);
    let signer = Signer::of(Algorithm::Es256);
    core.post(0, &[signer.jwk("k")]);
    let forged = bearer(&Signer::new(Algorithm::Es256).token(&claims(r#""scope":"read""#)));
    for _ in 0..2 {
        assert_eq!(core.ask(&forged), (1, Err(Reason::TokenInvalid)));
    }
    assert!(core.state.cache.borrow().is_empty());
    let token = bearer(&signer.token(&claims(r#""scope":"list""#)));
    assert_eq!(core.ask(&token), (1, Err(Reason::InsufficientScope)));
    assert_eq!(core.ask(&token), (0, Err(Reason::InsufficientScope)));
    assert_eq!(core.ask(""), (0, Err(Reason::TokenMissing)));
    assert_eq!(
        core.ask(&format!("{token}{token}")),
        (0, Err(Reason::TokenAmbiguous))
    );
}

#[test]
fn each_key_that_may_have_signed_a_token_costs_a_turn() {
    let core = Core::of_one();
    let signers: Vec<_> = (0..5).map(|_| Signer::new(Algorithm::Es256)).collect();
    let jwks: Vec<_> = signers
        .iter()
        .map(|signer| format!("{{{}}}", signer.members))
        .collect();
    core.post(0, &jwks);
    for (index, signer) in signers.iter().enumerate() {
        let token = bearer(&signer.token(&claims(&format!("\"sub\":\"{index}\""))));
        assert_eq!(core.ask(&token), (index + 1, Ok(index.to_string())));
        assert_eq!(core.ask(&token), (0, Ok(index.to_string())));
    }
    let stranger = bearer(&Signer::new(Algorithm::Es256).token(&claims(r#""sub":"x""#)));
    assert_eq!(core.ask(&stranger), (5, Err(Reason::TokenInvalid)));
}

#[test]
fn tokens_of_several_issuers_stand_in_their_own_places() {
    let mut other = issuer("https://two.example/");
    other.place = TokenPlace::Cookie("t".to_owned());
    let core = Core::new(vec![issuer("https://one.example/"), other], OnMissing::Pass);
    let (one, two) = (Signer::of(Algorithm::Es256), Signer::new(Algorithm::Es256));
    core.post(0, &[one.jwk("k")]);
    core.post(1, &[two.jwk("k")]);
    let of_one = one.token(&claims(r#""sub":"1""#));
    let of_two = two.token(&claims(r#""sub":"2""#).replace("one", "two"));
    let cookie = |token: &str| format!("Cookie: t={token}\r\n");
    for _ in 0..2 {
        assert_eq!(core.ask(&bearer(&of_one)).1, Ok("1".to_owned()));
        assert_eq!(core.ask(&cookie(&of_two)).1, Ok("2".to_owned()));
        assert_eq!(core.ask(&bearer(&of_two)).1, Err(Reason::TokenInvalid));
        assert_eq!(core.ask(&cookie(&of_one)).1, Err(Reason::TokenInvalid));
    }
    assert_eq!(core.ask(""), (0, Ok(String::new())));
    let both = format!("{}{}", bearer(&of_one), cookie(&of_two));
    assert_eq!(core.ask(&both), (0, Err(Reason::TokenAmbiguous)));
}

#[test]
fn endpoints_get_claims_and_no_forged_ones() {
    let fields = |names: [(&str, &str); 2]| {
        names
            .map(|(claim, field)| (claim.to_owned(), field.to_owned()))
            .to_vec()
    };
    let mut one = issuer("https://one.example/");
    one.claims_to_headers = fields([("sub", "x-user"), ("roles", "x-roles")]);
    let mut two = issuer("https://two.example/");
    two.claims_to_headers = fields([("sub", "x-other"), ("none", "x-user")]);
    two.place = TokenPlace::Cookie("t".to_owned());
    let core = Core::new(vec![one.clone(), two], OnMissing::Pass);
    let signer = Signer::of(Algorithm::Es256);
    core.post(0, &[signer.jwk("k")]);
    core.post(1, &[signer.jwk("k")]);
    let forged = "X-User: root\r\nX-Roles: root\r\nX-Other: root\r\nCookie: a=b; c=\"d\"\r\n";
    let all = ["x-user", "x-roles", "x-other"];
    assert_eq!(
        core.edits(forged),
        (all.map(str::to_owned).to_vec(), Vec::new())
    );
    let of_one = bearer(&signer.token(&claims(r#""sub":"ann","roles":["a","b"]"#)));
    let (removed, added) = core.edits(&format!("{forged}{of_one}"));
    assert_eq!(removed, ["authorization", "x-user", "x-roles", "x-other"]);
    assert_eq!(added, ["x-user: ann", "x-roles: a,b"]);
    let of_two = signer.token(&claims(r#""sub":"bob","roles":["x"]"#).replace("one", "two"));
    let (removed, added) = core.edits(&format!(
        "Cookie: a=b; t={of_two}\r\nCookie: c=d;e=f;\r\nAuthorization: Basic x\r\n"
    ));
    assert_eq!(removed, ["cookie", "x-user", "x-roles", "x-other"]);
    assert_eq!(added, ["cookie: a=b; c=d; e=f", "x-other: bob"]);
    one.forward = true;
    let core = Core::new(vec![one], OnMissing::Deny);
    core.post(0, &[signer.jwk("k")]);
    let (removed, _) = core.edits(&of_one);
    assert_eq!(removed, ["x-user", "x-roles"]);
}

#[test]
fn the_same_rules_share_a_state_and_others_do_not() {
    let plan = |change: fn(&mut JwtIssuer)| {
        let mut issuer = issuer("https://one.example/");
        change(&mut issuer);
        JwtStatePlan::new(&Jwt {
            issuers: vec![issuer],
            on_missing: OnMissing::Deny,
        })
    };
    let base = plan(|_| {});
    let same: [fn(&mut JwtIssuer); 2] = [
        |issuer| issuer.forward = true,
        |issuer| issuer.claims_to_headers = vec![("a".to_owned(), "b".to_owned())],
    ];
    for change in same {
        assert!(base.is_same(&plan(change)));
    }
    let others: [fn(&mut JwtIssuer); 7] = [
        |issuer| issuer.issuer = Some("https://two.example/".to_owned()),
        |issuer| issuer.audience = Vec::new(),
        |issuer| {
            issuer.keys = JwtKeys::Discovery(FetchUrl::parse("https://one.example/keys").unwrap())
        },
        |issuer| issuer.algorithms = vec![Algorithm::Es256],
        |issuer| issuer.leeway = std::time::Duration::ZERO,
        |issuer| issuer.place = TokenPlace::Cookie("t".to_owned()),
        |issuer| issuer.require = vec![("a".to_owned(), vec!["b".to_owned()])],
    ];
    for (index, change) in others.into_iter().enumerate() {
        assert!(!base.is_same(&plan(change)), "{index}");
    }
}

#[test]
fn verdicts_need_no_keys() {
    let mut strict = issuer("https://one.example/");
    strict.require = vec![(
        "plan".to_owned(),
        vec!["gold".to_owned(), "silver".to_owned()],
    )];
    let core = Core::new(vec![strict], OnMissing::Deny);
    let signer = Signer::of(Algorithm::Es256);
    let explain = |lines: &str, claims: Option<&str>| {
        let mut facts = Facts {
            claims: claims
                .map(|claims| std::rc::Rc::new(Claims::parse(claims.as_bytes()).unwrap())),
            ..Facts::default()
        };
        core.with(lines, &mut facts, |request, facts| {
            core.step.explain(request, facts)
        })
    };
    let refuses = |reason, why: &str| Verdict::Refuses(reason, why.to_owned());
    assert_eq!(
        explain("", None),
        refuses(Reason::TokenMissing, "the request has no token")
    );
    let token = signer.token(&claims(r#""sub":"ann""#));
    let two = bearer(&token).repeat(2);
    assert_eq!(
        explain(&two, None),
        refuses(Reason::TokenAmbiguous, "the request has several tokens")
    );
    assert_eq!(
        explain(&bearer("x"), None),
        refuses(Reason::TokenInvalid, "the token is malformed")
    );
    let wanted =
        Verdict::WouldCheck("the token, with the keys of https://one.example/keys".to_owned());
    assert_eq!(explain(&bearer(&token), None), wanted);
    let other = signer.token(&claims("\"a\":1").replace("one", "two"));
    assert_eq!(
        explain(&bearer(&other), None),
        refuses(Reason::TokenInvalid, "the issuer is not trusted")
    );
    let other = signer.token(&claims("\"a\":1").replace("\"api\"", "\"x\""));
    assert_eq!(
        explain(&bearer(&other), None),
        refuses(Reason::TokenInvalid, "the token is for another audience")
    );
    let given = |claims| explain("", Some(claims));
    assert_eq!(
        given(r#"{"plan":"gold"}"#),
        Verdict::Passes("with the claims given".to_owned())
    );
    let lacks = refuses(
        Reason::InsufficientScope,
        "the claims lack `plan` = gold or silver",
    );
    assert_eq!(given(r#"{"plan":"iron"}"#), lacks);
}
