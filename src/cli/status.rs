//! `weir status`: what a running Weir runs, and whether it is ready.

use std::fmt::Write as _;

use lexopt::Parser;
use serde_json::{Value, json};

use super::diff::write_changes;
use super::instance::{items, number, pretty, read_arguments, text};
use super::upstream::{HEALTHY, health_of};
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
    let upstreams = instance.send("GET", "/api/upstreams", None)?;
    let upstreams = upstreams
        .is_success()
        .then(|| upstreams.json())
        .transpose()?;
    if options.json {
        let whole =
            json!({ "ready": is_ready, "plan": plan, "changes": changes, "upstreams": upstreams });
        print(&pretty(&whole))?;
    } else {
        let mut shown = describe(&plan, is_ready, changes.as_ref());
        if let Some(upstreams) = &upstreams {
            write_unhealthy(&mut shown, upstreams);
        }
        print(&shown)?;
    }
    match is_ready {
        true => Ok(()),
        false => Err(CommandError::Said(FAILED)),
    }
}

/// Endpoints that it names; it counts the others.
const NAMED_MAX: usize = 32;

/// Names the endpoints that fail their checks or are ejected, and why.
fn write_unhealthy(out: &mut String, upstreams: &Value) {
    let unhealthy: Vec<_> = items(upstreams)
        .iter()
        .flat_map(|upstream| {
            let endpoints = upstream.get("endpoints").map_or(&[][..], items).iter();
            endpoints.map(move |endpoint| (text(upstream, "name"), endpoint))
        })
        .map(|(upstream, endpoint)| (upstream, endpoint, health_of(endpoint)))
        .filter(|(_, _, health)| health != HEALTHY)
        .collect();
    // Writing to a string cannot fail.
    for (upstream, endpoint, health) in unhealthy.iter().take(NAMED_MAX) {
        let address = text(endpoint, "address");
        let _ = writeln!(out, "endpoint {address} of {upstream}: {health}");
    }
    if let Some(more) = unhealthy
        .len()
        .checked_sub(NAMED_MAX)
        .filter(|more| *more > 0)
    {
        let _ = writeln!(out, "and {more} more that are not healthy");
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
