//! `forward_auth`: how the levels of a file combine, and which upstreams its URLs make.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::time::Duration;

use weir_config::{AuthMethod, Config, EndpointAddress, ForwardAuth, OnAuthError, parse};

fn config(text: &str) -> Config {
    let text = format!(
        "{text}\n[listen.\"0.0.0.0:80\"]\n[upstream]\na = [\"10.0.0.1:80\"]\nb = [\"10.0.0.2:80\"]\n"
    );
    match parse("/etc/weir/test.toml", &text) {
        Ok((config, warnings)) => {
            assert!(warnings.is_empty(), "{}", weir_config::to_text(&warnings));
            config
        }
        Err(errors) => panic!("{}", weir_config::to_text(&errors)),
    }
}

fn route(keys: &str) -> String {
    let other = "[[route]]\nmatch = \"/b\"\nto = \"b\"\n";
    format!("[[route]]\nmatch = \"/\"\nto = \"a\"\n{keys}\n{other}")
}

fn auth_of(config: &Config) -> &ForwardAuth {
    let auth = &config.routes[0].policies.forward_auth;
    auth.as_ref().expect("the route has it")
}

#[test]
fn a_url_makes_an_upstream_of_its_own() {
    let text = "forward_auth = \"https://Auth.Internal/verify?rd=x\"\n".to_owned()
        + "[[route]]\nmatch = \"/\"\nto = \"a\"\n[[route]]\nmatch = \"/b\"\nto = \"b\"\n"
        + "forward_auth = { path = \"/other\", to = \"https://auth.internal:443\" }\n"
        + "[[route]]\nmatch = \"/c\"\nto = \"b\"\nforward_auth = \"http://[::1]:9091\"\n";
    let config = config(&text);
    let names: Vec<_> = config.upstreams.iter().map(|one| &*one.name).collect();
    assert_eq!(
        names,
        ["a", "b", "https://auth.internal", "http://[::1]:9091"]
    );
    let endpoint = &config.upstreams[2].endpoints[0];
    assert!(endpoint.tls);
    let host = "auth.internal".to_owned();
    assert_eq!(endpoint.address, EndpointAddress::Name { host, port: 443 });
    assert_eq!(config.upstreams[2].position.line, 1);
    let auths = config.routes.iter().map(|route| {
        let auth = route.policies.forward_auth.as_ref().expect("each has it");
        (auth.upstream, auth.authority.as_deref(), &*auth.target)
    });
    let want = [
        (2, Some("auth.internal"), "/verify?rd=x"),
        (2, Some("auth.internal"), "/other"),
        (3, Some("[::1]:9091"), "/"),
    ];
    assert_eq!(auths.collect::<Vec<_>>(), want);
}

#[test]
fn an_upstream_of_the_file_may_be_the_server() {
    let config = config(&route("forward_auth = { to = \"b\", path = \"/verify\" }"));
    let auth = auth_of(&config);
    assert_eq!(
        (auth.upstream, &auth.authority, &*auth.target),
        (1, &None, "/verify")
    );
    assert_eq!(config.upstreams.len(), 2);
}

#[test]
fn the_defaults_ask_for_each_request_and_deny() {
    let config = config(&route("forward_auth = \"b\""));
    let auth = auth_of(&config);
    assert_eq!(auth.method, AuthMethod::Get);
    assert_eq!(auth.timeout, Duration::from_secs(5));
    assert_eq!(auth.on_error, OnAuthError::Deny);
    assert_eq!((auth.cache, &auth.request_headers), (None, &None));
    assert!(auth.copy_to_request.is_empty() && auth.copy_to_response.is_empty());
}

#[test]
fn tables_of_several_levels_merge_by_key() {
    let text = r#"
forward_auth = { timeout = "1s", cache = "30s", copy_to_request = ["Remote-User", "Remote-Groups"] }
[policy.login]
forward_auth = { to = "b", path = "/verify", on_error = "allow", cache = "off" }
"#;
    let own = "use = \"login\"\nforward_auth = { on_error = \"deny\", method = \"HEAD\", request_headers = \"Cookie\" }";
    let config = config(&format!("{text}{}forward_auth = \"off\"\n", route(own)));
    let auth = auth_of(&config);
    assert_eq!((auth.upstream, &*auth.target), (1, "/verify"));
    assert_eq!(auth.timeout, Duration::from_secs(1));
    assert_eq!(
        (auth.on_error, auth.method),
        (OnAuthError::Deny, AuthMethod::Head)
    );
    assert_eq!(auth.cache, None);
    assert_eq!(auth.copy_to_request, ["Remote-User", "Remote-Groups"]);
    assert_eq!(auth.request_headers, Some(vec!["cookie".to_owned()]));
    assert!(
        config.policies.forward_auth.is_none(),
        "the top level names no server"
    );
    assert!(config.routes[1].policies.forward_auth.is_none(), "off");
}
