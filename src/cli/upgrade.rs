//! `weir upgrade`: replaces a running Weir by the program that is at its path now.

use lexopt::Parser;

use super::instance::{pretty, read_arguments, text};
use super::{CommandResult, help, print};

pub(super) fn main(args: &mut Parser) -> CommandResult {
    let mut file = None;
    let options = read_arguments(args, "upgrade", super::file_argument(&mut file))?;
    let Some(mut options) = options else {
        return print(help::UPGRADE);
    };
    options.file = options.file.or(file);
    let answer = options.find()?.send("POST", "/api/upgrade", None)?;
    let body = answer.json()?;
    match options.json {
        true => print(&pretty(&body)),
        false => print(&format!("{}\n", text(&body, "message"))),
    }
}
