//! The catalog of Consul: `/v1/health/service/NAME`.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use weir_config::{ConsulService, Endpoint, FetchUrl};

use super::server_list::bounded;
use crate::control::fetch::FetchRequest;
use crate::control::limits;
use crate::files;

/// One instance of a service, as Consul's answer has it. Weir ignores all other members.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Node,
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    /// Empty for that of the node.
    #[serde(default)]
    address: String,
    port: u16,
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
}

/// What a query gave.
pub(super) struct ConsulAnswer {
    pub(super) endpoints: Vec<Endpoint>,
    /// The number of this state of the catalog; 0 if Consul sends none.
    pub(super) index: u64,
}

/// Asks for the instances of a service whose checks pass. With the index of an earlier answer, Consul answers once
/// something has changed, or after [`limits::CONSUL_WAIT`].
///
/// # Errors
/// Consul does not answer, or the answer has no usable instance.
pub(super) async fn ask(service: &ConsulService, index: u64) -> Result<ConsulAnswer, String> {
    let token = match &service.token_file {
        Some(file) => Some(read_token(&file.path).await?),
        None => None,
    };
    let url = url(service, index);
    let wait = match index {
        0 => Duration::ZERO,
        // Consul adds up to a sixteenth, so that not all clients ask at once.
        _ => limits::CONSUL_WAIT.mul_f64(1.0 + 1.0 / 16.0),
    };
    let request = FetchRequest {
        url: &url,
        accept: "application/json",
        ca: None,
        field: token.as_deref().map(|token| ("x-consul-token", token)),
        patience: wait + limits::FETCH_PATIENCE,
        bytes_max: limits::CONSUL_BYTES_MAX,
        index: Some("x-consul-index"),
    };
    let document = request.send().await?;
    Ok(ConsulAnswer {
        endpoints: read(&document.body, service)?,
        index: next_index(index, document.index),
    })
}

/// The index for the next query. An index that goes back means that Consul has lost its state, and the next query must
/// not wait.
fn next_index(last: u64, answered: Option<u64>) -> u64 {
    answered.filter(|index| *index >= last).unwrap_or(0)
}

fn url(service: &ConsulService, index: u64) -> FetchUrl {
    let base = service.url.target.trim_end_matches('/');
    let mut target = format!("{base}/v1/health/service/");
    escape(&mut target, &service.service);
    target.push_str("?passing=1");
    if let Some(tag) = &service.tag {
        target.push_str("&tag=");
        escape(&mut target, tag);
    }
    if index > 0 {
        let wait = limits::CONSUL_WAIT.as_secs();
        target.push_str(&format!("&index={index}&wait={wait}s"));
    }
    FetchUrl {
        target,
        ..service.url.clone()
    }
}

/// Percent-encodes the bytes that are not unreserved (RFC 3986, section 2.3).
fn escape(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

async fn read_token(path: &Path) -> Result<String, String> {
    let (path, shown) = (path.to_owned(), path.display().to_string());
    let read = move || files::read(&path, limits::CONSUL_TOKEN_BYTES_MAX);
    let bytes = tokio::task::spawn_blocking(read).await;
    let bytes = bytes.map_err(|_| "reading the token has panicked")?;
    let bytes = bytes.map_err(|error| format!("cannot read {shown}: {error}"))?;
    let token = String::from_utf8_lossy(&bytes);
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("{shown} is not a token"));
    }
    Ok(token.to_owned())
}

/// The endpoints in Consul's answer.
fn read(body: &[u8], service: &ConsulService) -> Result<Vec<Endpoint>, String> {
    let instances = serde_json::from_slice::<Vec<Instance>>(body);
    let instances = instances.map_err(|error| format!("the answer is not Consul's: {error}"))?;
    if instances.is_empty() {
        return Err("no instance passes its checks".to_owned());
    }
    let mut endpoints = Vec::<Endpoint>::with_capacity(instances.len());
    let mut known = std::collections::HashSet::with_capacity(instances.len());
    for Instance { node, service: of } in instances {
        let host = match of.address.is_empty() {
            true => node.address,
            false => of.address,
        };
        let host = match host.parse::<std::net::Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]"),
            Err(_) => host,
        };
        let address = format!("{host}:{}", of.port);
        let endpoint = address.parse::<Endpoint>();
        let endpoint = endpoint.map_err(|error| format!("instance {address}: {error}"))?;
        let weight = of.weights.map_or(1, |weights| weights.passing);
        let weight = weight.clamp(1, u16::MAX.into());
        let endpoint = Endpoint {
            weight,
            ..service.scheme.applied_to(endpoint)
        };
        // Two instances may share an address, for example with other tags.
        if known.insert(endpoint.address.clone()) {
            endpoints.push(endpoint);
        }
    }
    // Consul's order is that of its nodes' names; a stable one is enough.
    endpoints.sort_by_key(|endpoint| endpoint.address.to_string());
    bounded(endpoints)
}

#[cfg(test)]
mod tests {
    use weir_config::Scheme;

    use super::*;

    fn service() -> ConsulService {
        ConsulService {
            url: FetchUrl::parse("http://127.0.0.1:8500/consul/").unwrap(),
            service: "web shop/1".to_owned(),
            tag: Some("a&b".to_owned()),
            token_file: None,
            scheme: Scheme::H2c,
        }
    }

    #[test]
    fn a_query_names_service_tag_and_index() {
        assert_eq!(
            url(&service(), 0).to_string(),
            "http://127.0.0.1:8500/consul/v1/health/service/web%20shop%2F1?passing=1&tag=a%26b"
        );
        let blocking = url(&service(), 7).to_string();
        assert!(blocking.ends_with("&index=7&wait=30s"), "{blocking}");
    }

    #[test]
    fn an_index_that_goes_back_begins_again() {
        assert_eq!(next_index(0, Some(5)), 5);
        assert_eq!(next_index(5, Some(5)), 5);
        assert_eq!(next_index(5, Some(4)), 0);
        assert_eq!(next_index(5, None), 0);
    }

    #[test]
    fn instances_become_endpoints() {
        let body = br#"[
            {"Node": {"Address": "10.0.0.2", "ID": "x"}, "Service": {"Address": "", "Port": 80, "Weights": {"Passing": 3, "Warning": 1}}, "Checks": []},
            {"Node": {"Address": "10.0.0.1"}, "Service": {"Address": "app.internal", "Port": 81}},
            {"Node": {"Address": "10.0.0.1"}, "Service": {"Address": "2001:db8::1", "Port": 82, "Weights": null}},
            {"Node": {"Address": "10.0.0.2"}, "Service": {"Port": 80}}
        ]"#;
        let endpoints = read(body, &service()).unwrap();
        let shown: Vec<_> = endpoints
            .iter()
            .map(|endpoint| format!("{endpoint} {}", endpoint.weight))
            .collect();
        assert_eq!(
            shown,
            [
                "h2c://10.0.0.2:80 3",
                "h2c://[2001:db8::1]:82 1",
                "h2c://app.internal:81 1"
            ]
        );
    }

    #[test]
    fn an_answer_that_is_not_consuls_changes_nothing() {
        for (body, why) in [
            ("[]", "no instance passes"),
            ("", "not Consul's"),
            ("{}", "not Consul's"),
            ("null", "not Consul's"),
            (r#"[{"Node": {"Address": "10.0.0.1"}}]"#, "not Consul's"),
            (
                r#"[{"Node": {"Address": "10.0.0.1"}, "Service": {"Port": 70000}}]"#,
                "not Consul's",
            ),
            (
                r#"[{"Node": {"Address": "10.0.0.1"}, "Service": {"Port": 0}}]"#,
                "port 0",
            ),
            (
                r#"[{"Node": {"Address": ""}, "Service": {"Port": 1}}]"#,
                "instance :1",
            ),
            (
                r#"[{"Node": {"Address": "a b"}, "Service": {"Port": 1}}]"#,
                "not a host",
            ),
        ] {
            let error = read(body.as_bytes(), &service()).unwrap_err();
            assert!(error.contains(why), "{body}: {error}");
        }
    }
}
