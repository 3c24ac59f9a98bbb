//! `weir proxy LISTEN ENDPOINT...`.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use lexopt::{Parser, ValueExt};
use weir_config::limits::CORES_MAX;
use weir_config::{AccessLog, Address, Config, Cores, Endpoint, LogTarget};

use super::{CommandError, CommandResult, NextArgument, help, next, print, serve};
use crate::control::{Options, Source};

pub(super) fn main(args: &mut Parser) -> CommandResult {
    let (mut listen, mut endpoints) = (None, Vec::new());
    let (mut cores, mut admin, mut access_log) = (Cores::Auto, None, None);
    loop {
        match next(args)? {
            NextArgument::Help => return print(help::PROXY),
            NextArgument::Long(name) if name == "cores" => {
                cores = parse_cores(&args.value()?.string()?)?
            }
            NextArgument::Long(name) if name == "admin" => {
                admin = Some(parse("--admin", &args.value()?.string()?)?)
            }
            NextArgument::Long(name) if name == "access-log" => {
                access_log = parse_log(&args.value()?.string()?)?
            }
            NextArgument::Long(name) => {
                return Err(CommandError::Usage(format!(
                    "`proxy` has no option --{name}"
                )));
            }
            NextArgument::Value(value) if listen.is_none() => {
                listen = Some(parse::<Address>("LISTEN", &value.string()?)?)
            }
            NextArgument::Value(value) => {
                endpoints.push(parse::<Endpoint>("ENDPOINT", &value.string()?)?)
            }
            NextArgument::End => break,
        }
    }
    let missing = |what| {
        CommandError::Usage(format!(
            "`proxy` needs {what}: weir proxy 0.0.0.0:8080 10.0.0.11:8080"
        ))
    };
    let listen = listen.ok_or_else(|| missing("an address to listen on"))?;
    if endpoints.is_empty() {
        return Err(missing("at least one endpoint"));
    }
    let config = Config {
        cores,
        admin: admin.map(|address: Address| address.into()),
        access_log,
        ..Config::quick(listen, endpoints)
    };
    serve(Options {
        source: Source::Given(Box::new(config)),
        demo: None,
        explain: super::explain::explain_for_api,
        ready: Box::new(|_| {}),
    })
}

/// Parses the address or endpoint that the argument `what` gives.
pub(super) fn parse<T: FromStr<Err = weir_config::ValueError>>(
    what: &str,
    text: &str,
) -> Result<T, CommandError> {
    text.parse()
        .map_err(|error| CommandError::Usage(format!("{what} {text:?}: {error}")))
}

fn parse_log(text: &str) -> Result<Option<AccessLog>, CommandError> {
    let to = match text {
        "off" => return Ok(None),
        "stdout" => LogTarget::Stdout,
        path if path.starts_with('/') => LogTarget::File(PathBuf::from(path)),
        _ => {
            return Err(CommandError::Usage(format!(
                "--access-log {text:?}: write off, stdout, or an absolute path"
            )));
        }
    };
    Ok(Some(to.into()))
}

/// Parses `auto`, a number of cores, or processors such as `2-7,10`.
pub(super) fn parse_cores(text: &str) -> Result<Cores, CommandError> {
    let wrong = || {
        let hint = "write auto, a number such as 2, or processors such as 2-7,10 (0-0 for the first alone)";
        CommandError::Usage(format!("--cores {text:?}: {hint}"))
    };
    if text == "auto" {
        return Ok(Cores::Auto);
    }
    if let Ok(count) = text.parse::<u32>() {
        let count = NonZeroU32::new(count).filter(|count| count.get() <= CORES_MAX);
        return count.map(Cores::Count).ok_or_else(wrong);
    }
    let mut set = BTreeSet::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (Ok(from), Ok(to)) = (from.trim().parse::<u32>(), to.trim().parse::<u32>()) else {
            return Err(wrong());
        };
        if from > to || to >= CORES_MAX {
            return Err(wrong());
        }
        set.extend(from..=to);
    }
    Ok(Cores::Set(set.into_iter().collect()))
}
