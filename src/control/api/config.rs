//! `/api/config`: the file that runs.

use serde::Serialize;

use super::reply::Reply;
use crate::control::{Control, Source};

#[derive(Serialize)]
struct RunningFile<'a> {
    /// Its path; `None` for a configuration from the command line.
    file: Option<String>,
    /// Its text as it was loaded, without comments and secrets.
    text: &'a str,
}

/// The file that runs, which may differ from the one on disk.
pub(super) fn show(control: &Control) -> Reply {
    let file = match &control.source {
        Source::File(path) => Some(path.display().to_string()),
        Source::Given(_) => None,
    };
    let state = control.state.borrow();
    Reply::json(&RunningFile {
        file,
        text: &state.text,
    })
}
