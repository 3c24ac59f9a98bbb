//! `/api/upgrade`: replaces the process by a new one, as SIGUSR2 does, and answers with the outcome.

use hyper::StatusCode;
use serde_json::json;

use super::ApiCall;
use super::reload::draining;
use super::reply::Reply;
use crate::control::upgrade::UpgradeOutcome;
use crate::obs::process;

/// Upgrades, and waits until the new process serves. The old one then answers its last requests.
pub(super) async fn upgrade(call: &ApiCall<'_>) -> Result<Reply, Reply> {
    process::info(format_args!("admin API, {}: upgrade", call.peer));
    let control = call.control.clone();
    let upgraded = tokio::task::spawn_local(async move { control.upgrade().await }).await;
    let outcome = upgraded.map_err(|_| {
        let message = "the upgrade has panicked, which is a bug of Weir's";
        Reply::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    })?;
    match outcome {
        UpgradeOutcome::Done { pid, message } => {
            Ok(Reply::json(&json!({ "pid": pid, "message": message })))
        }
        UpgradeOutcome::Impossible(why) => {
            Err(Reply::error(StatusCode::CONFLICT, "impossible", why))
        }
        UpgradeOutcome::Draining => Err(draining()),
        UpgradeOutcome::Failed(why) => Err(Reply::error(
            StatusCode::UNPROCESSABLE_ENTITY,
            "upgrade_failed",
            format!("the upgrade failed, and the old process goes on: {why}"),
        )),
    }
}
