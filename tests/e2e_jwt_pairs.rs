//! `jwt`, and limits by claim, over every pairing of protocols with independent peers.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use http::Request;
use http::request::Builder;
use hyper::body::Incoming;

use e2e::{Issuer, TokenKey, Weir, eventually};
use peers::*;

/// An endpoint that answers with what it got: the user, whether a token, and the cookies.
async fn app(protocol: Protocol) -> Server {
    Server::start(protocol, |request: Request<Incoming>| {
        let fields = request.headers();
        let all = |name: &str| {
            let values = fields.get_all(name).iter();
            let values: Vec<_> = values.map(|value| value.to_str().unwrap()).collect();
            values.join("|")
        };
        let text = format!(
            "user {:?}, token {}, cookies {:?}",
            all("x-user"),
            fields.contains_key("authorization"),
            all("cookie")
        );
        async move { answer(text) }
    })
    .await
}

fn get() -> Builder {
    request("GET", "/x").header("x-user", "root")
}

async fn ask(client: &mut Client, request: Builder) -> FullResponse {
    client.ready().await.unwrap();
    client.ask(request.body(Body::of("")).unwrap()).await
}

#[test]
fn tokens_are_verified_over_every_pairing() {
    for (of_client, of_server) in PAIRS {
        run(async {
            let key = TokenKey::new("k");
            let (issuer, app) = (Issuer::start(&key), app(of_server).await);
            let url = issuer.url();
            let route = routed("", std::slice::from_ref(&app.name), "");
            let weir = Weir::start(&format!(
                "{route}jwt = {{ issuer = {url:?}, audience = \"api\", require = {{ scope = \"read\" }}, \
                 claims_to_headers = {{ sub = \"X-User\" }} }}\n"
            ));
            let mut client = Client::connect(of_client, weir.address).await;
            let bearer = |token: &str| format!("Bearer {token}");
            let token = bearer(&key.token(&url, r#""sub":"ann","scope":"read""#));
            // Verified first, known then.
            for _ in 0..3 {
                let passed = ask(&mut client, get().header("authorization", &token)).await;
                assert_eq!(passed.status, 200);
                assert_eq!(passed.text(), "user \"ann\", token false, cookies \"\"");
            }
            let none = ask(&mut client, get()).await;
            assert_eq!(none.status, 401);
            assert_eq!(
                none.field("www-authenticate"),
                Some("Bearer realm=\"weir\"")
            );
            let twice = get()
                .header("authorization", &token)
                .header("authorization", &token);
            assert_eq!(ask(&mut client, twice).await.status, 400);
            let weak = bearer(&key.token(&url, r#""sub":"ann""#));
            let refused = ask(&mut client, get().header("authorization", &weak)).await;
            assert_eq!(refused.status, 403);
            let challenge = refused.field("www-authenticate").unwrap();
            assert!(
                challenge.contains("error=\"insufficient_scope\""),
                "{challenge}"
            );
            let forged = bearer(&TokenKey::new("k").token(&url, r#""sub":"ann","scope":"read""#));
            let refused = ask(&mut client, get().header("authorization", &forged)).await;
            assert_eq!(refused.status, 401);
            // The connection has survived all refusals.
            let passed = ask(&mut client, get().header("authorization", &token)).await;
            assert_eq!(passed.status, 200);
        });
    }
}

/// Over HTTP/2, clients send each cookie in a field of its own (RFC 9113, section 8.2.3).
#[test]
fn a_token_is_found_among_the_crumbs_of_cookies() {
    for (of_client, of_server) in PAIRS {
        run(async {
            let key = TokenKey::new("k");
            let (issuer, app) = (Issuer::start(&key), app(of_server).await);
            let url = issuer.url();
            let route = routed("", std::slice::from_ref(&app.name), "");
            let weir = Weir::start(&format!(
                "{route}jwt = {{ issuer = {url:?}, audience = \"api\", cookie = \"t\", \
                 claims_to_headers = {{ sub = \"X-User\" }} }}\n"
            ));
            let mut client = Client::connect(of_client, weir.address).await;
            let cookie = format!("t={}", key.token(&url, r#""sub":"ann""#));
            let in_one = get().header("cookie", format!("a=b; {cookie}; c=d"));
            let in_three = get().header("cookie", "a=b").header("cookie", &cookie);
            let in_three = in_three.header("cookie", "c=d");
            for request in [in_one, in_three] {
                let passed = ask(&mut client, request).await;
                assert_eq!(passed.status, 200);
                let text = "user \"ann\", token false, cookies \"a=b; c=d\"";
                assert_eq!(passed.text(), text);
            }
            let two = get().header("cookie", &cookie).header("cookie", &cookie);
            assert_eq!(ask(&mut client, two).await.status, 400);
        });
    }
}

#[test]
fn each_subject_has_its_own_bucket_and_its_own_places() {
    for (of_client, of_server) in PAIRS {
        run(async {
            let key = TokenKey::new("k");
            let (issuer, app) = (Issuer::start(&key), app(of_server).await);
            let url = issuer.url();
            let route = routed("cores = 2", std::slice::from_ref(&app.name), "");
            let weir = Weir::start(&format!(
                "{route}jwt = \"{url} for api\"\n\
                 limit = {{ rate = \"2/h\", per = \"claim:sub\", name = \"subject\" }}\n"
            ));
            let mut client = Client::connect(of_client, weir.address).await;
            let with_token = |subject: &str| {
                let token = key.token(&url, &format!("\"sub\":\"{subject}\""));
                get().header("authorization", format!("Bearer {token}"))
            };
            for subject in ["ann", "bob"] {
                for left in [1, 0] {
                    // Other clients of the subject count too, and other tokens.
                    let passed = ask(&mut client, with_token(subject)).await;
                    assert_eq!(passed.status, 200, "{subject}");
                    let standing = passed.field("ratelimit").unwrap();
                    let wanted = format!("\"subject\";r={left};t=");
                    assert!(standing.starts_with(&wanted), "{standing}");
                    let policy = passed.field("ratelimit-policy");
                    assert_eq!(policy, Some("\"subject\";q=2;w=3600"));
                }
            }
            let mut other = Client::connect(of_client, weir.address).await;
            for subject in ["ann", "bob"] {
                let refused = ask(&mut other, with_token(subject)).await;
                assert_eq!(refused.status, 429, "{subject}");
                let seconds: u32 = refused.field("retry-after").unwrap().parse().unwrap();
                assert!((1_700..=1_800).contains(&seconds), "{seconds}");
                let standing = refused.field("ratelimit").unwrap();
                assert!(standing.starts_with("\"subject\";r=0;t=3"), "{standing}");
            }
            // Refused before the limit: no subject pays for it, and no bucket shows.
            for _ in 0..3 {
                let forged = TokenKey::new("k").token(&url, "\"sub\":\"eve\"");
                let forged = get().header("authorization", format!("Bearer {forged}"));
                let refused = ask(&mut other, forged).await;
                assert_eq!((refused.status, refused.field("ratelimit")), (401, None));
            }
            assert_eq!(ask(&mut other, with_token("eve")).await.status, 200);
            let name = "weir_limit_refused_total{policy=\"limit\",limit=\"subject\"}";
            eventually("the refusals are counted", || {
                (weir.metric(name) == 2.0).then_some(())
            });
        });
    }
}
