//! `weir status`: what a running Weir runs, and whether it is ready.

use std::fmt::Write as _;

use lexopt::Parser;
use serde_json::{Value, json};

use super::diff::write_changes;
use super::instance::{items, number, pretty, read_arguments, text};
use super::{CommandError, CommandResult, FAILED, help, print};
use crate::control::count;

pub(super) fn main(args: &mut Parser) -> CommandResult {
    let mut file = None;
    let options = read_arguments(args, "status", super::file_argument(&mut file))?;
    let Some(mut options) = options else {
        return print(help::STATUS);
    };
    options.file = options.file.or(file);
    let instance = options.find()?;
    let plan = instance.get("/plan")?;
    let is_ready = instance.send("GET", "/readyz", None)?.is_success();
    // Without a token, health and plan can be seen all the same.
    let changes = instance.send("GET", "/api/changes", None)?;
    let changes = changes.is_success().then(|| changes.json()).transpose()?;
    if options.json {
        print(&pretty(
            &json!({ "ready": is_ready, "plan": plan, "changes": changes }),
        ))?;
    } else {
        print(&describe(&plan, is_ready, changes.as_ref()))?;
    }
    match is_ready {
        true => Ok(()),
        false => Err(CommandError::Said(FAILED)),
    }
}

fn describe(plan: &Value, is_ready: bool, changes: Option<&Value>) -> String {
    let list = |key: &str| plan.get(key).map_or(&[][..], items);
    let is_draining = plan.get("draining").and_then(Value::as_bool) == Some(true);
    let state = match (is_ready, is_draining) {
        (_, true) => "draining",
        (true, false) => "ready",
        (false, false) => "not ready: some core does not run the current plan",
    };
    let endpoints = list("upstreams").iter();
    let endpoints =
        endpoints.map(|upstream| upstream.get("endpoints").map_or(0, |it| items(it).len()));
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "weir {}: {state}", text(plan, "version"));
    let _ = writeln!(
        out,
        "plan {}: {}, {}, {} with {}, on {}",
        number(plan, "epoch"),
        count(list("listeners").len(), "listener"),
        count(list("routes").len(), "route"),
        count(list("upstreams").len(), "upstream"),
        count(endpoints.sum(), "endpoint"),
        count(number(plan, "cores") as usize, "core"),
    );
    let reloads = plan.get("reloads").unwrap_or(&Value::Null);
    let (done, failed) = (number(reloads, "done"), number(reloads, "failed"));
    let _ = writeln!(out, "reloads: {done} done, {failed} failed");
    let last = text(reloads, "last_error");
    if !last.is_empty() {
        let _ = writeln!(out, "the last reload failed:\n{}", last.trim_end());
    }
    if let Some(changes) = changes {
        write_changes(&mut out, changes);
    }
    out
}
