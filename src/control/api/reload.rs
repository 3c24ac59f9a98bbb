//! `/api/reload`: reads the file again, as SIGHUP does, and answers with the outcome.

use hyper::StatusCode;
use serde_json::{Value, json};

use super::ApiCall;
use super::reply::Reply;
use crate::control::reload::{ReloadFailure, ReloadOutcome};
use crate::obs::process;

/// Reloads, and waits until all cores run the new plan.
pub(super) async fn reload(call: &ApiCall<'_>) -> Result<Reply, Reply> {
    process::info(format_args!("admin API, {}: reload", call.peer));
    let control = call.control.clone();
    let reloaded = tokio::task::spawn_local(async move { control.reload().await }).await;
    let outcome = reloaded.map_err(|_| {
        let message = "the reload has panicked, which is a bug of Weir's";
        Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    })?;
    match outcome {
        ReloadOutcome::Done(done) => {
            let epoch = call.control.state.borrow().plan.epoch;
            Ok(Reply::json(&json!({ "epoch": epoch, "message": done })))
        }
        ReloadOutcome::NoFile => Err(Reply::error(
            StatusCode::CONFLICT,
            "no_file",
            "the configuration is from the command line, so there is no file to reload",
        )),
        ReloadOutcome::Draining => Err(draining()),
        ReloadOutcome::Failed(failure) => Err(failed(&failure)),
    }
}

/// 503: the process ends soon, and nothing changes any more.
pub(super) fn draining() -> Reply {
    Reply::error(
        StatusCode::SERVICE_UNAVAILABLE,
        "draining",
        "this Weir is draining, so nothing changes any more",
    )
}

fn failed(failure: &ReloadFailure) -> Reply {
    let message = "the reload failed, and nothing has changed";
    let diagnostics = match failure {
        ReloadFailure::Config(error) => {
            serde_json::from_str(&weir_config::to_json(&error.0)).unwrap_or(Value::Null)
        }
        ReloadFailure::Other(why) => json!([{ "severity": "error", "message": why }]),
    };
    Reply::error_with(
        StatusCode::UNPROCESSABLE_ENTITY,
        "reload_failed",
        message,
        Some(diagnostics),
    )
}
