//! `weir check FILE`.

use std::fmt::Write as _;
use std::path::PathBuf;

use lexopt::Parser;

use weir_config::{Code, Diagnostic};

use super::{CommandError, CommandResult, NextArgument, help, next, print, unexpected};
use crate::control::{
    LoadError, LoadedConfig, MachineCheck, NameLookup, Resolver, Source, count, load,
};

pub(super) fn main(args: &mut Parser) -> CommandResult {
    let (mut file, mut json) = (None, false);
    let resolver = Resolver::default();
    let (mut names, mut machine) = (NameLookup::Resolve(&resolver), MachineCheck::Start);
    loop {
        match next(args)? {
            NextArgument::Help => return print(help::CHECK),
            NextArgument::Long(name) if name == "json" => json = true,
            NextArgument::Long(name) if name == "no-resolve" => names = NameLookup::Skip,
            NextArgument::Long(name) if name == "elsewhere" => {
                (names, machine) = (NameLookup::Skip, MachineCheck::Skip);
            }
            NextArgument::Value(value) if file.is_none() => file = Some(PathBuf::from(value)),
            NextArgument::Value(value) => return Err(unexpected(&value)),
            NextArgument::Long(name) => {
                return Err(CommandError::Usage(format!(
                    "`check` has no option --{name}"
                )));
            }
            NextArgument::End => break,
        }
    }
    let file = file
        .ok_or_else(|| CommandError::Usage("`check` needs a file: weir check FILE".to_owned()))?;
    match load(&Source::File(file.clone()), names, machine, None) {
        Ok(mut loaded) => {
            advise(&mut loaded.warnings);
            if json {
                return print(&(weir_config::to_json(&loaded.warnings) + "\n"));
            }
            let mut text = weir_config::to_text(&loaded.warnings);
            let summary = summary(&loaded, names);
            let _ = writeln!(text, "limits here: {}", loaded.plan.capacity);
            let _ = writeln!(text, "{}: ok; {summary}", file.display());
            print(&text)
        }
        Err(LoadError(mut diagnostics)) => {
            advise(&mut diagnostics);
            if !json {
                return Err(CommandError::Config(weir_config::to_text(&diagnostics)));
            }
            // Standard output has the findings, so standard error has nothing to add.
            print(&(weir_config::to_json(&diagnostics) + "\n"))?;
            Err(CommandError::Config(String::new()))
        }
    }
}

/// Adds a hint to the last of the names that were not found.
fn advise(diagnostics: &mut [Diagnostic]) {
    let mut unresolved = diagnostics.iter_mut().rev();
    if let Some(last) = unresolved.find(|each| each.code == Code::Unresolved) {
        let help = "on a machine that cannot resolve these names, use --no-resolve";
        last.help.push(help.to_owned());
    }
}

fn summary(loaded: &LoadedConfig, names: NameLookup<'_>) -> String {
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
    let names = match names {
        NameLookup::Resolve(_) => "",
        NameLookup::Skip => "; names were not resolved",
    };
    let missing = loaded.tls.files.iter().filter(|(_, stamp)| stamp.is_none());
    let missing = match missing.count() {
        0 => String::new(),
        n => format!(
            "; {} of certificates or keys not read",
            count(n, "missing file")
        ),
    };
    let missing_lists = match loaded.ip_lists.count_missing(&loaded.config) {
        0 => String::new(),
        n => format!("; {} of networks not read", count(n, "missing list")),
    };
    format!("{}{tests}{names}{missing}{missing_lists}", parts.join(", "))
}
