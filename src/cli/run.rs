//! `weir run FILE`.

use std::path::PathBuf;

use lexopt::Parser;

use super::{Done, Exit, Next, help, next, print, serve, unexpected};
use crate::control::{Options, Source};

pub(super) fn main(args: &mut Parser) -> Done {
    let mut file = None;
    loop {
        match next(args)? {
            Next::Help => return print(help::RUN),
            Next::Value(value) if file.is_none() => file = Some(PathBuf::from(value)),
            Next::Value(value) => return Err(unexpected(&value)),
            Next::Long(name) => return Err(Exit::Usage(format!("`run` has no option --{name}"))),
            Next::End => break,
        }
    }
    let file = file.ok_or_else(|| Exit::Usage("`run` needs a file: weir run FILE".to_owned()))?;
    serve(Options {
        source: Source::File(file),
        demo: None,
        ready: Box::new(|_| {}),
    })
}
