//! `/api/explain`: what the running plan would do with a request. The command `weir explain` has the code, and hands it
//! to control as an [`ExplainHook`].

use std::net::IpAddr;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::reply::Reply;
use crate::control::Control;
use crate::plan::{EndpointSets, Plan};

/// A request to explain. The fields are those of `weir explain`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The method.
    pub method: String,
    /// `http://host[:port]/path?query`.
    pub url: String,
    /// Field lines: `name: value`.
    #[serde(default)]
    pub headers: Vec<String>,
    /// Subject and names of the client's certificate.
    #[serde(default)]
    pub client_cert: Vec<String>,
    /// The client's address.
    #[serde(default)]
    pub client_ip: Option<IpAddr>,
    /// Claims of the client's token as `NAME=VALUE`.
    #[serde(default)]
    pub claims: Vec<String>,
    /// Whether to list every route.
    #[serde(default)]
    pub all: bool,
}

/// Explains a request as `weir explain` does. The error is the message of a 422.
pub type ExplainHook = fn(&Plan, &EndpointSets, &ExplainRequest) -> Result<String, String>;

/// Explains a request.
pub(super) fn explain(control: &Control, asked: &ExplainRequest) -> Result<Reply, Reply> {
    let (plan, endpoints) = {
        let state = control.state.borrow();
        (state.plan.clone(), state.endpoints.clone())
    };
    let explained = (control.explain)(&plan, &endpoints, asked);
    let text =
        explained.map_err(|why| Reply::error(StatusCode::UNPROCESSABLE_ENTITY, "invalid", why))?;
    Ok(Reply::json(&json!({ "text": text })))
}
