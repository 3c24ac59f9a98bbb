//! What the API can do: one table, which the router and the OpenAPI description follow.

use hyper::{Method, StatusCode};

use super::reply::Reply;

/// The operation of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Describe,
    ShowPlan,
    ListRoutes,
    ShowConfig,
    ListChanges,
    Reload,
    Upgrade,
    Explain,
    ListUpstreams,
    ShowUpstream,
    ListEndpoints,
    ShowEndpoint,
    AddEndpoint,
    PatchEndpoint,
    RemoveEndpoint,
}

/// One operation on one resource.
pub(super) struct Operation {
    pub(super) method: Method,
    /// The path. `{address}` takes the rest of it, because addresses may have slashes.
    pub(super) path: &'static str,
    pub(super) action: Action,
    pub(super) summary: &'static str,
    /// The schema of the body, if the operation takes one.
    pub(super) body: Option<&'static str>,
    /// The status of success, and the schema of its body.
    pub(super) success: (u16, Option<&'static str>),
    /// Statuses of failure besides those that every operation has.
    pub(super) failures: &'static [u16],
}

/// All operations.
pub(super) const OPERATIONS: [Operation; 15] = [
    Operation {
        method: Method::GET,
        path: "/api/openapi.json",
        action: Action::Describe,
        summary: "This description.",
        body: None,
        success: (200, Some("Any")),
        failures: &[],
    },
    Operation {
        method: Method::GET,
        path: "/api/plan",
        action: Action::ShowPlan,
        summary: "The running plan.",
        body: None,
        success: (200, Some("Any")),
        failures: &[],
    },
    Operation {
        method: Method::GET,
        path: "/api/routes",
        action: Action::ListRoutes,
        summary: "The routes of the running plan, in the order of the file.",
        body: None,
        success: (200, Some("Routes")),
        failures: &[],
    },
    Operation {
        method: Method::GET,
        path: "/api/config",
        action: Action::ShowConfig,
        summary: "The file that runs, without comments and secrets.",
        body: None,
        success: (200, Some("RunningFile")),
        failures: &[],
    },
    Operation {
        method: Method::GET,
        path: "/api/changes",
        action: Action::ListChanges,
        summary: "What was changed at run time.",
        body: None,
        success: (200, Some("Changes")),
        failures: &[],
    },
    Operation {
        method: Method::POST,
        path: "/api/reload",
        action: Action::Reload,
        summary: "Reads the file again. If that fails, the old plan stays.",
        body: None,
        success: (200, Some("Reloaded")),
        failures: &[409, 422, 503],
    },
    Operation {
        method: Method::POST,
        path: "/api/upgrade",
        action: Action::Upgrade,
        summary: "Replaces the process by a new one of the program at its path. If that fails, the old process goes on.",
        body: None,
        success: (200, Some("Upgraded")),
        failures: &[409, 422, 503],
    },
    Operation {
        method: Method::POST,
        path: "/api/explain",
        action: Action::Explain,
        summary: "What the running plan would do with a request.",
        body: Some("ExplainRequest"),
        success: (200, Some("Explanation")),
        failures: &[400, 408, 413, 415, 422],
    },
    Operation {
        method: Method::GET,
        path: "/api/upstreams",
        action: Action::ListUpstreams,
        summary: "All upstreams with their endpoints.",
        body: None,
        success: (200, Some("Upstreams")),
        failures: &[],
    },
    Operation {
        method: Method::GET,
        path: "/api/upstreams/{upstream}",
        action: Action::ShowUpstream,
        summary: "One upstream.",
        body: None,
        success: (200, Some("Upstream")),
        failures: &[404],
    },
    Operation {
        method: Method::GET,
        path: "/api/upstreams/{upstream}/endpoints",
        action: Action::ListEndpoints,
        summary: "The endpoints of an upstream.",
        body: None,
        success: (200, Some("Endpoints")),
        failures: &[404],
    },
    Operation {
        method: Method::POST,
        path: "/api/upstreams/{upstream}/endpoints",
        action: Action::AddEndpoint,
        summary: "Adds an endpoint. The answer comes when all cores use it.",
        body: Some("NewEndpoint"),
        success: (201, Some("Endpoint")),
        failures: &[400, 404, 408, 409, 413, 415, 422, 503],
    },
    Operation {
        method: Method::GET,
        path: "/api/upstreams/{upstream}/endpoints/{address}",
        action: Action::ShowEndpoint,
        summary: "One endpoint.",
        body: None,
        success: (200, Some("Endpoint")),
        failures: &[404],
    },
    Operation {
        method: Method::PATCH,
        path: "/api/upstreams/{upstream}/endpoints/{address}",
        action: Action::PatchEndpoint,
        summary: "Changes state or weight of an endpoint. The answer comes when all cores obey.",
        body: Some("EndpointPatch"),
        success: (200, Some("Endpoint")),
        failures: &[400, 404, 408, 413, 415, 422, 503],
    },
    Operation {
        method: Method::DELETE,
        path: "/api/upstreams/{upstream}/endpoints/{address}",
        action: Action::RemoveEndpoint,
        summary: "Removes an endpoint. Requests under way finish. `?persist=true` keeps the removal over reloads.",
        body: None,
        success: (204, None),
        failures: &[404, 422, 503],
    },
];

/// The names in a path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) upstream: String,
    pub(super) address: String,
}

impl Names {
    /// Upstream and endpoint, for the log.
    pub(super) fn shown(&self) -> String {
        format!("{} of upstream {}", self.address, self.upstream)
    }
}

/// An operation that was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) action: Action,
    pub(super) names: Names,
}

/// Finds the operation of a request.
///
/// # Errors
/// 404 if no resource has the path, 405 if it has another method.
pub(super) fn find(method: &Method, path: &str) -> Result<Found, Reply> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let path = match path {
        super::ROOT => "/api/openapi.json",
        path => path,
    };
    // As for every resource, HEAD is GET without the body.
    let method = match *method {
        Method::HEAD => &Method::GET,
        _ => method,
    };
    let mut allowed = Vec::new();
    for operation in &OPERATIONS {
        let Some(names) = match_path(operation.path, path) else {
            continue;
        };
        if operation.method == *method {
            let action = operation.action;
            return Ok(Found { action, names });
        }
        allowed.push(operation.method.as_str());
    }
    if allowed.is_empty() {
        return Err(Reply::not_found("resource", path));
    }
    let allow = allowed.join(", ");
    let message = format!("this resource has {allow}");
    let mut reply = Reply::error(StatusCode::METHOD_NOT_ALLOWED, "method", message);
    reply.allow = Some(allow);
    Err(reply)
}

/// The names in `path`, if it fits `pattern`.
fn match_path(pattern: &str, path: &str) -> Option<Names> {
    let mut names = Names::default();
    let (mut pattern, mut path) = (pattern, path);
    while let Some((fixed, rest)) = pattern.split_once('{') {
        path = path.strip_prefix(fixed)?;
        let (name, after) = rest.split_once('}')?;
        let end = match name {
            "address" => path.len(),
            _ => path.find('/').unwrap_or(path.len()),
        };
        let (value, left) = path.split_at(end);
        let value = decode(value).filter(|value| !value.is_empty())?;
        match name {
            "upstream" => names.upstream = value,
            _ => names.address = value,
        }
        (pattern, path) = (after, left);
    }
    (pattern == path).then_some(names)
}

/// Decodes percent-encoding. `None` if that leaves no text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(rest.next())?, digit(rest.next())?);
                (16 * high + low) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: Method, path: &str) -> Result<(Action, String, String), u16> {
        find(&method, path)
            .map(|Found { action, names }| (action, names.upstream, names.address))
            .map_err(|reply| reply.status.as_u16())
    }

    #[test]
    fn paths_lead_to_operations() {
        let named = |action, upstream: &str, address: &str| {
            Ok((action, upstream.to_owned(), address.to_owned()))
        };
        for (path, wanted) in [
            ("/api", named(Action::Describe, "", "")),
            ("/api/", named(Action::Describe, "", "")),
            ("/api/plan", named(Action::ShowPlan, "", "")),
            ("/api/upstreams", named(Action::ListUpstreams, "", "")),
            ("/api/upstreams/", named(Action::ListUpstreams, "", "")),
            ("/api/upstreams/web", named(Action::ShowUpstream, "web", "")),
            (
                "/api/upstreams/http:%2F%2F10.0.0.1:80",
                named(Action::ShowUpstream, "http://10.0.0.1:80", ""),
            ),
            (
                "/api/upstreams/web/endpoints",
                named(Action::ListEndpoints, "web", ""),
            ),
            (
                "/api/upstreams/web/endpoints/10.0.0.1:80",
                named(Action::ShowEndpoint, "web", "10.0.0.1:80"),
            ),
            (
                "/api/upstreams/web/endpoints/unix:/run/a.sock",
                named(Action::ShowEndpoint, "web", "unix:/run/a.sock"),
            ),
            (
                "/api/upstreams/web/endpoints/https%3A%2F%2F10.0.0.1:443",
                named(Action::ShowEndpoint, "web", "https://10.0.0.1:443"),
            ),
            ("/api/nothing", Err(404)),
            ("/api/upstreams/web/other", Err(404)),
            ("/api/upstreams//endpoints", Err(404)),
            ("/api/upstreams/%zz", Err(404)),
            ("/api/upstreams/%ff", Err(404)),
            ("/api/reload", Err(405)),
        ] {
            assert_eq!(found(Method::GET, path), wanted, "{path}");
        }
        let path = "/api/upstreams/web/endpoints/10.0.0.1:80";
        for (method, action) in [
            (Method::HEAD, Action::ShowEndpoint),
            (Method::PATCH, Action::PatchEndpoint),
            (Method::DELETE, Action::RemoveEndpoint),
        ] {
            assert_eq!(found(method, path).map(|it| it.0), Ok(action));
        }
        let refused = find(&Method::PUT, path).expect_err("no such method");
        assert_eq!(refused.allow.as_deref(), Some("GET, PATCH, DELETE"));
    }
}
