//! `weir check FILE`.

use std::fmt::Write as _;
use std::path::PathBuf;

use lexopt::Parser;

use super::{Done, Exit, Next, help, next, print, unexpected};
use crate::control::{LoadError, Loaded, Source, count, load};

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
    let outcome = load(&Source::File(file.clone()));
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

/// Findings without a place, in the same form as those of the parser.
fn plain_json(error: &LoadError) -> String {
    let messages = match error {
        LoadError::Unreadable(why) => vec![why.clone()],
        LoadError::Refused(problems) => problems.clone(),
        LoadError::Invalid(_) => Vec::new(),
    };
    let mut out = String::from("[");
    for (at, message) in messages.iter().enumerate() {
        out.push_str(if at == 0 {
            "{\"severity\":\"error\",\"message\":"
        } else {
            ",{\"severity\":\"error\",\"message\":"
        });
        crate::obs::text::json(&mut out, message.as_bytes());
        out.push('}');
    }
    out.push_str("]\n");
    out
}

fn summary(loaded: &Loaded) -> String {
    let plan = &loaded.plan;
    format!(
        "{}, {}, {}; {} passed",
        count(plan.listeners.len(), "listener"),
        count(plan.routes.len(), "route"),
        count(plan.upstreams.len(), "upstream"),
        count(loaded.config.tests.len(), "test"),
    )
}
