//! `forward_auth` over every pairing of protocols, with independent peers: clients and authorization servers of both
//! HTTP versions, servers over TLS, gRPC calls.
#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod e2e;
mod peers;

use std::cell::RefCell;
use std::rc::Rc;

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;

use e2e::Weir;
use peers::*;

/// What an authorization server was asked.
type Asked = Rc<RefCell<Vec<(String, HeaderMap)>>>;

/// An authorization server: users with a cookie pass, others get 401 with a body.
async fn auth(protocol: Protocol, tls: Option<&Tls>) -> (Server, Asked) {
    let asked = Asked::default();
    let seen = asked.clone();
    let handler = move |request: Request<Incoming>| {
        let (head, _) = request.into_parts();
        let passes = head.headers.contains_key("cookie");
        let host = head.uri.authority().map(ToString::to_string);
        let host = host.or_else(|| Some(head.headers.get("host")?.to_str().ok()?.to_owned()));
        seen.borrow_mut()
            .push((host.unwrap_or_default(), head.headers));
        async move {
            let answer = Response::builder().header("remote-user", "alice");
            match passes {
                true => answer.status(204).body(Body::of("")).unwrap(),
                false => {
                    let answer = answer.status(401).header("www-authenticate", "Bearer");
                    answer.body(Body::of("log in")).unwrap()
                }
            }
        }
    };
    let server = match tls {
        None => Server::start(protocol, handler).await,
        Some(tls) => Server::start_tls(protocol, tls, handler).await,
    };
    (server, asked)
}

/// An endpoint that answers with the user in the request.
async fn app(protocol: Protocol) -> Server {
    Server::start(protocol, |request: Request<Incoming>| {
        let user = request.headers().get("remote-user").cloned();
        async move {
            answer(user.map_or_else(
                || "nobody".to_owned(),
                |user| user.to_str().unwrap().to_owned(),
            ))
        }
    })
    .await
}

fn with_auth(app: &Server, auth: &Server, upstream: &str) -> String {
    let name = &auth.name;
    let servers = std::slice::from_ref(&app.name);
    let route = routed("", servers, "");
    format!(
        "[upstream.auth]\nservers = [{name:?}]\n{upstream}\n{route}\
         forward_auth = {{ to = \"auth\", path = \"/verify\", copy_to_request = \"Remote-User\" }}\n"
    )
}

#[test]
fn clients_and_servers_of_both_versions_are_served() {
    for (client, server) in PAIRS {
        run(async {
            let ((auth, asked), app) = (auth(server, None).await, app(server).await);
            let weir = Weir::start(&with_auth(&app, &auth, ""));
            let mut client = Client::connect(client, weir.address).await;
            for _ in 0..3 {
                client.ready().await.unwrap();
                let cookie = request("POST", "/a?b").header("cookie", "a=b");
                let body = Body::of("x".repeat(100_000));
                let passed = client.ask(cookie.header("remote-user", "root").body(body).unwrap());
                let passed = passed.await;
                assert_eq!((passed.status, passed.text()), (200, "alice"));
            }
            client.ready().await.unwrap();
            let refused = client
                .ask(request("GET", "/a?b").body(Body::of("")).unwrap())
                .await;
            assert_eq!((refused.status, refused.text()), (401, "log in"));
            assert_eq!(refused.field("www-authenticate"), Some("Bearer"));
            let asked = asked.borrow();
            assert_eq!(asked.len(), 4);
            for (host, fields) in asked.iter() {
                assert_eq!(host, "weir.test");
                assert_eq!(fields["x-forwarded-uri"], "/a?b");
                assert!(!fields.contains_key("content-length"));
                assert!(!fields.contains_key("transfer-encoding"));
            }
            assert_eq!(auth.connections(), 1);
        });
    }
}

#[test]
fn servers_are_asked_over_tls_and_must_be_who_they_say() {
    for server in [Protocol::Http1, Protocol::Http2] {
        run(async {
            let (tls, dir) = (Tls::new(), Weir::dir());
            let ((auth, _), app) = (auth(server, Some(&tls)).await, app(Protocol::Http1).await);
            let (_, trusted) = tls.files(&dir);
            let weir = Weir::start_in(&dir, &with_auth(&app, &auth, &trusted));
            let mut client = Client::connect(Protocol::Http1, weir.address).await;
            let asked = request("GET", "/").header("cookie", "a=b");
            let passed = client.ask(asked.body(Body::of("")).unwrap()).await;
            assert_eq!((passed.status, passed.text()), (200, "alice"));

            // The system's authorities do not know the certificate.
            let name = &auth.name;
            let route = routed("", std::slice::from_ref(&app.name), "");
            let weir = Weir::start(&format!("{route}forward_auth = \"{name}/verify\"\n"));
            let mut client = Client::connect(Protocol::Http1, weir.address).await;
            let asked = request("GET", "/").header("cookie", "a=b");
            let failed = client.ask(asked.body(Body::of("")).unwrap()).await;
            assert_eq!(failed.status, 503);
            assert!(
                failed.text().contains("auth_unavailable"),
                "{}",
                failed.text()
            );
        });
    }
}

#[test]
fn the_name_of_a_server_is_looked_up() {
    run(async {
        let ((auth, asked), app) = (
            auth(Protocol::Http1, None).await,
            app(Protocol::Http1).await,
        );
        let (port, route) = (
            auth.address.port(),
            routed("", std::slice::from_ref(&app.name), ""),
        );
        let weir = Weir::start(&format!(
            "{route}forward_auth = \"http://localhost:{port}\"\n"
        ));
        let mut client = Client::connect(Protocol::Http1, weir.address).await;
        let ask = request("GET", "/").header("cookie", "a=b");
        let passed = client.ask(ask.body(Body::of("")).unwrap()).await;
        assert_eq!(passed.status, 200);
        assert_eq!(asked.borrow()[0].0, format!("localhost:{port}"));
    });
}

#[test]
fn a_refused_grpc_call_has_a_status_that_its_client_reads() {
    run(async {
        let ((auth, _), app) = (
            auth(Protocol::Http1, None).await,
            app(Protocol::Http2).await,
        );
        let weir = Weir::start(&with_auth(&app, &auth, ""));
        let mut client = Client::connect(Protocol::Http2, weir.address).await;
        let call = request("POST", "/test.Echo/Unary").header("content-type", "application/grpc");
        let call = call.header("te", "trailers").body(Body::of(vec![0; 5]));
        let refused = client.ask(call.unwrap()).await;
        assert_eq!((refused.status, refused.body.len()), (200, 0));
        assert_eq!(refused.field("content-type"), Some("application/grpc"));
        assert_eq!(refused.field("grpc-status"), Some("16"));
        assert_eq!(refused.field("www-authenticate"), Some("Bearer"));
        assert!(refused.trailers.is_empty());
        let entry = weir.entry("/test.Echo/Unary");
        assert_eq!(entry.number("grpc_status"), 16.0);
    });
}
