//! `weir check FILE`.

use std::fmt::Write as _;
use std::path::PathBuf;

use lexopt::Parser;

use super::{Done, Exit, Next, help, next, print, unexpected};
use crate::control::{Finding, LoadError, Loaded, Source, count, load};
use crate::obs::text;

pub(super) fn main(args: &mut Parser) -> Done {
    let (mut file, mut json) = (None, false);
    loop {
        match next(args)? {
            Next::Help => return print(help::CHECK),
            Next::Long(name) if name == "json" => json = true,
            Next::Value(value) if file.is_none() => file = Some(PathBuf::from(value)),
            Next::Value(value) => return Err(unexpected(&value)),
            Next::Long(name) => return Err(Exit::Usage(format!("`check` has no option --{name}"))),
            Next::End => break,
        }
    }
    let file =
        file.ok_or_else(|| Exit::Usage("`check` needs a file: weir check FILE".to_owned()))?;
    let outcome = load(&Source::File(file.clone()), None);
    if json {
        return check_json(outcome);
    }
    let loaded = outcome.map_err(|error| Exit::Config(error.to_string()))?;
    let mut text = weir_config::to_text(&loaded.warnings);
    let _ = writeln!(text, "{}: ok; {}", file.display(), summary(&loaded));
    print(&text)
}

/// Everything in one JSON array on standard output; the exit code says whether the file can be used.
fn check_json(outcome: Result<Loaded, LoadError>) -> Done {
    let failed = |text: &str| {
        print(text)?;
        Err(Exit::Config(String::new()))
    };
    match outcome {
        Ok(loaded) => print(&(weir_config::to_json(&loaded.warnings) + "\n")),
        Err(LoadError::Invalid(diagnostics)) => {
            failed(&(weir_config::to_json(&diagnostics) + "\n"))
        }
        Err(error) => failed(&plain_json(&error)),
    }
}

/// Findings that are not the parser's, in the same form.
fn plain_json(error: &LoadError) -> String {
    let findings = match error {
        LoadError::Unreadable(why) => vec![Finding {
            code: "file",
            file: String::new(),
            line: 0,
            message: why.clone(),
        }],
        LoadError::Refused(findings) => findings.clone(),
        LoadError::Invalid(_) => Vec::new(),
    };
    let mut out = String::from("[");
    for (at, finding) in findings.iter().enumerate() {
        let lead = if at == 0 { "" } else { "," };
        let code = finding.code;
        let _ = write!(
            out,
            "{lead}\n  {{\"severity\": \"error\", \"code\": \"{code}\", \"message\": "
        );
        text::json(&mut out, finding.message.as_bytes());
        out.push_str(", \"file\": ");
        text::json(&mut out, finding.file.as_bytes());
        if finding.line > 0 {
            let _ = write!(out, ", \"line\": {}", finding.line);
        }
        out.push_str(", \"help\": []}");
    }
    out.push_str("\n]\n");
    out
}

fn summary(loaded: &Loaded) -> String {
    let plan = &loaded.plan;
    let parts = [
        count(plan.listeners.len(), "listener"),
        count(plan.routes.len(), "route"),
        count(plan.upstreams.len(), "upstream"),
    ];
    let tests = match loaded.config.tests.len() {
        0 => String::new(),
        n => format!("; {} passed", count(n, "test")),
    };
    format!("{}{tests}", parts.join(", "))
}
