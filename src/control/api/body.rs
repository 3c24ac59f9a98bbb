//! Bodies of requests: JSON, and little of it.

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use hyper::{Request, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::time::timeout;

use super::reply::Reply;
use crate::control::limits::{ADMIN_BODY, ADMIN_BODY_BYTES_MAX};

/// Reads a body.
///
/// # Errors
/// 400 for a body that is not JSON, 408 for one that takes too long, 413 for one that is too large, 415 for another media
/// type, 422 for JSON that does not fit the resource.
pub(super) async fn read<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Reply> {
    if !is_json(request.headers()) {
        return Err(Reply::error(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media_type",
            "send JSON with `Content-Type: application/json`",
        ));
    }
    let body = Limited::new(request.into_body(), ADMIN_BODY_BYTES_MAX);
    let body = timeout(ADMIN_BODY, body.collect()).await;
    let body = body.map_err(|_| {
        let message = "the body did not arrive in time";
        Reply::error(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
    })?;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => Reply::error(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("a body has at most {ADMIN_BODY_BYTES_MAX} bytes"),
        ),
        false => bad(format!("the body is broken: {error}")),
    })?;
    parse(&body.to_bytes())
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Reply> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        Category::Data => Reply::impossible(error.to_string()),
        Category::Syntax | Category::Eof | Category::Io => {
            bad(format!("the body is no JSON: {error}"))
        }
    })
}

fn bad(message: String) -> Reply {
    Reply::error(StatusCode::BAD_REQUEST, "bad_json", message)
}

fn is_json(headers: &HeaderMap) -> bool {
    let media = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media = media.and_then(|media| media.split(';').next());
    media.is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}
