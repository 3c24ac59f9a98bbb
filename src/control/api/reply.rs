//! Answers of the API. An error has a code that programs can compare, and a message for people.

use hyper::StatusCode;
use hyper::body::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    /// JSON; empty for 204.
    pub(super) body: Bytes,
    /// The methods that the resource has, for 405.
    pub(super) allow: Option<String>,
}

impl Reply {
    /// 200 with a value.
    pub(super) fn json(value: &impl Serialize) -> Self {
        Self::with(StatusCode::OK, value)
    }

    /// 200 with text that is JSON.
    pub(super) fn text(text: String) -> Self {
        Self::page(text.into())
    }

    /// 200 with a page that is JSON.
    pub(super) fn page(body: Bytes) -> Self {
        Self {
            status: StatusCode::OK,
            body,
            allow: None,
        }
    }

    /// A value with a status.
    pub(super) fn with(status: StatusCode, value: &impl Serialize) -> Self {
        // What the API answers with has string keys only, so this cannot fail.
        let mut body = serde_json::to_vec(value).unwrap_or_default();
        body.push(b'\n');
        Self {
            status,
            body: body.into(),
            allow: None,
        }
    }

    /// 204.
    pub(super) fn done() -> Self {
        Self {
            status: StatusCode::NO_CONTENT,
            body: Bytes::new(),
            allow: None,
        }
    }

    /// An error.
    pub(super) fn error(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self::error_with(status, code, message, None)
    }

    /// An error with the diagnostics that led to it.
    pub(super) fn error_with(
        status: StatusCode,
        code: &str,
        message: impl Into<String>,
        diagnostics: Option<Value>,
    ) -> Self {
        let mut error = json!({ "code": code, "message": message.into() });
        if let (Some(diagnostics), Some(error)) = (diagnostics, error.as_object_mut()) {
            error.insert("diagnostics".to_owned(), diagnostics);
        }
        Self::with(status, &json!({ "error": error }))
    }

    /// 404 for a thing of this kind and name.
    pub(super) fn not_found(kind: &str, name: &str) -> Self {
        let message = format!("there is no {kind} `{name}`");
        Self::error(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 404 for an endpoint that its upstream does not have.
    pub(super) fn no_endpoint(upstream: &str, address: &str) -> Self {
        let message = format!(
            "upstream `{upstream}` has no endpoint `{address}`; `weir upstream list {upstream}` lists those that it has"
        );
        Self::error(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 422: the request is well formed, but asks for something impossible.
    pub(super) fn impossible(message: impl Into<String>) -> Self {
        Self::error(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message)
    }
}
