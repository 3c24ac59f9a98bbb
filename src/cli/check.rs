//! `weir check FILE`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use lexopt::Parser;

use weir_config::{Code, Diagnostic};

use super::{CommandError, CommandResult, NextArgument, help, next, print, unexpected};
use crate::control::{
    LoadError, LoadedConfig, MachineCheck, NameLookup, Resolver, Source, count, load,
    named_key_files,
};

/// Missing files that are named.
const MISSING_NAMED_MAX: usize = 10;

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
            text.push_str(&name_sources(&loaded));
            text.push_str(&name_missing(&loaded));
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
    let missing = missing_files(loaded);
    let missing = missing.iter().map(|(noun, of, paths)| match paths.len() {
        0 => String::new(),
        n => format!("; {} of {of} not read", count(n, noun)),
    });
    let missing = missing.collect::<String>();
    format!("{}{tests}{names}{missing}", parts.join(", "))
}

/// The files that the configuration names and this machine does not have, by what they hold.
fn missing_files(loaded: &LoadedConfig) -> [(&'static str, &'static str, BTreeSet<&Path>); 5] {
    let certificates = loaded.tls.files.iter();
    let certificates = certificates.filter(|(_, stamp)| stamp.is_none());
    let keys = named_key_files(&loaded.config).map(|file| file.path.as_path());
    let lists = loaded.config.ip_lists().map(|file| file.path.as_path());
    let pages = loaded.config.error_files().map(|file| file.path.as_path());
    let marks = loaded.config.sticky_key_files();
    let marks = marks.map(|file| file.path.as_path());
    let absent = |path: &&Path| !path.exists();
    [
        (
            "missing file",
            "certificates or keys",
            certificates.map(|(path, _)| path.as_path()).collect(),
        ),
        ("missing file", "token keys", keys.filter(absent).collect()),
        (
            "missing file",
            "`sticky` keys",
            marks.filter(absent).collect(),
        ),
        ("missing list", "networks", lists.filter(absent).collect()),
        ("missing page", "`errors`", pages.filter(absent).collect()),
    ]
}

/// Names the sources of endpoints that answered, a line each.
fn name_sources(loaded: &LoadedConfig) -> String {
    let mut text = String::new();
    for (upstream, set) in loaded.config.upstreams.iter().zip(loaded.endpoints.iter()) {
        for source in &set.sources {
            let (upstream, name) = (&upstream.name, &source.name);
            let found = count(source.endpoints, "endpoint");
            let _ = writeln!(text, "upstream {upstream}: {name} gives {found}");
        }
    }
    text
}

/// Names the missing files, in a line of its own; empty without any.
fn name_missing(loaded: &LoadedConfig) -> String {
    let missing = missing_files(loaded);
    let paths = missing.iter().flat_map(|(_, _, paths)| paths);
    let shown = paths.clone().take(MISSING_NAMED_MAX);
    let shown: Vec<_> = shown.map(|path| path.display().to_string()).collect();
    match paths.count().saturating_sub(MISSING_NAMED_MAX) {
        0 if shown.is_empty() => String::new(),
        0 => format!("missing here: {}\n", shown.join(", ")),
        more => format!("missing here: {} and {more} more\n", shown.join(", ")),
    }
}
