//! `weir reload`: makes a running Weir read its file again, and says how that went.

use std::fmt::Write as _;

use lexopt::Parser;
use serde_json::Value;

use super::instance::{Answer, items, pretty, read_arguments, text};
use super::{CommandError, CommandResult, help, print};

pub(super) fn main(args: &mut Parser) -> CommandResult {
    let mut file = None;
    let options = read_arguments(args, "reload", super::file_argument(&mut file))?;
    let Some(mut options) = options else {
        return print(help::RELOAD);
    };
    options.file = options.file.or(file);
    let answer = options.find()?.send("POST", "/api/reload", None)?;
    if options.json && matches!(answer.status, 200 | 422) {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        print(&pretty(&body))?;
        return match answer.is_success() {
            true => Ok(()),
            // Standard output has the findings.
            false => Err(CommandError::Config(String::new())),
        };
    }
    match answer.status {
        422 => Err(CommandError::Config(describe(&answer))),
        _ => print(&format!("{}\n", text(&answer.json()?, "message"))),
    }
}

/// The diagnostics of a reload that failed.
fn describe(answer: &Answer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let error = body.get("error").unwrap_or(&Value::Null);
    let mut out = String::new();
    for diagnostic in error.get("diagnostics").map_or(&[][..], items) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{}: {}",
            text(diagnostic, "severity"),
            text(diagnostic, "message").trim_end()
        );
        let line = diagnostic.get("line").and_then(Value::as_u64);
        if let Some(line) = line {
            let _ = writeln!(out, "  at {}:{line}", text(diagnostic, "file"));
        }
        for help in diagnostic.get("help").map_or(&[][..], items) {
            let _ = writeln!(out, "  help: {}", help.as_str().unwrap_or_default());
        }
    }
    let _ = writeln!(out, "{}", text(error, "message"));
    out
}
