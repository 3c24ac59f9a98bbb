//! `weir run FILE`.

use std::path::PathBuf;

use lexopt::Parser;

use super::{CommandError, CommandResult, NextArgument, help, next, print, serve, unexpected};
use crate::control::{Options, Source};

pub(super) fn main(args: &mut Parser) -> CommandResult {
    let mut file = None;
    loop {
        match next(args)? {
            NextArgument::Help => return print(help::RUN),
            NextArgument::Value(value) if file.is_none() => file = Some(PathBuf::from(value)),
            NextArgument::Value(value) => return Err(unexpected(&value)),
            NextArgument::Long(name) => {
                return Err(CommandError::Usage(format!("`run` has no option --{name}")));
            }
            NextArgument::End => break,
        }
    }
    let file =
        file.ok_or_else(|| CommandError::Usage("`run` needs a file: weir run FILE".to_owned()))?;
    serve(Options {
        source: Source::File(file),
        demo: None,
        explain: super::explain::explain_for_api,
        ready: Box::new(|_| {}),
    })
}
