//! The command line. Each command has a file, which parses the arguments and runs the command.
#![forbid(unsafe_code)]

mod check;
mod demo;
mod diff;
pub mod explain;
mod help;
mod instance;
mod man;
mod proxy;
mod question;
mod reload;
mod run;
mod status;
mod upgrade;
mod upstream;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::{Arg, Parser, ValueExt};

use crate::control::{self, Failure, Options};
use crate::obs::process;

/// Exit code: Weir could not start or failed while running.
pub const FAILED: u8 = 1;
/// Exit code: wrong arguments.
pub const USAGE: u8 = 2;
/// Exit code: the configuration has a mistake.
pub const CONFIG: u8 = 3;

/// Why a command failed.
#[derive(Debug)]
pub enum CommandError {
    /// Wrong arguments. The text says what to do.
    Usage(String),
    /// A mistake in the configuration. The text says which, and ends with a line break.
    Config(String),
    /// Any other failure. The text says why.
    Failed(String),
    /// The command has already printed why. Has the exit code.
    Said(u8),
}

type CommandResult = Result<(), CommandError>;

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let mut args = Parser::from_env();
    let outcome = dispatch(&mut args);
    let (code, text) = match outcome {
        Ok(()) => return ExitCode::SUCCESS,
        Err(CommandError::Usage(why)) => (USAGE, format!("error: {why}\nTry `weir help`.\n")),
        Err(CommandError::Config(why)) => (CONFIG, why),
        Err(CommandError::Failed(why)) => (FAILED, format!("error: {why}\n")),
        Err(CommandError::Said(code)) => return ExitCode::from(code),
    };
    // If standard error is closed, the exit code still tells.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(code)
}

fn dispatch(args: &mut Parser) -> CommandResult {
    match args.next()? {
        None => Err(CommandError::Usage("a command is missing".to_owned())),
        Some(Arg::Short('h') | Arg::Long("help")) => print(help::MAIN),
        Some(Arg::Short('V') | Arg::Long("version")) => version(args),
        Some(Arg::Value(command)) => {
            let command = command.string()?;
            match command.as_str() {
                "demo" => demo::main(args),
                "proxy" => proxy::main(args),
                "run" => run::main(args),
                "check" => check::main(args),
                "explain" => question::main(args),
                "status" => status::main(args),
                "upstream" => upstream::main(args),
                "reload" => reload::main(args),
                "upgrade" => upgrade::main(args),
                "diff" => diff::main(args),
                "schema" => text(args, help::SCHEMA, weir_config::schema),
                "reference" => text(args, help::REFERENCE, weir_config::reference),
                "man" => text(args, help::MAN, man::page),
                "version" => version(args),
                "help" => more(args),
                _ => Err(CommandError::Usage(unknown(&command))),
            }
        }
        Some(other) => Err(other.unexpected().into()),
    }
}

/// The next argument of a command.
enum NextArgument {
    Value(OsString),
    Long(String),
    Help,
    End,
}

fn next(args: &mut Parser) -> Result<NextArgument, CommandError> {
    match args.next()? {
        None => Ok(NextArgument::End),
        Some(Arg::Value(value)) => Ok(NextArgument::Value(value)),
        Some(Arg::Short('h') | Arg::Long("help")) => Ok(NextArgument::Help),
        Some(Arg::Long(name)) => Ok(NextArgument::Long(name.to_owned())),
        Some(other) => Err(other.unexpected().into()),
    }
}

/// Runs a command without arguments that prints a text.
fn text(args: &mut Parser, help: &str, make: impl FnOnce() -> String) -> CommandResult {
    match next(args)? {
        NextArgument::End => print(&make()),
        NextArgument::Help => print(help),
        NextArgument::Value(value) => Err(unexpected(&value)),
        NextArgument::Long(name) => Err(CommandError::Usage(format!(
            "there is no option --{name} here"
        ))),
    }
}

fn version(args: &mut Parser) -> CommandResult {
    let text_of = || format!("weir {}\n", env!("CARGO_PKG_VERSION"));
    text(args, "Usage: weir --version\n", text_of)
}

fn more(args: &mut Parser) -> CommandResult {
    let NextArgument::Value(command) = next(args)? else {
        return print(help::MAIN);
    };
    let command = command.string()?;
    if matches!(command.as_str(), "help" | "version") {
        return print(help::MAIN);
    }
    let found = help::COMMANDS.iter().find(|(name, _)| *name == command);
    match found {
        Some((_, text)) => print(text),
        None => Err(CommandError::Usage(unknown(&command))),
    }
}

/// Prints to standard output. A closed pipe (`weir schema | head`) is not an error.
fn print(text: &str) -> CommandResult {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CommandError::Failed(error.to_string()))
        }
        _ => Ok(()),
    }
}

/// Serves until a signal stops Weir. The last message of a serving process must not wait for a reader of standard
/// error.
fn serve(options: Options) -> CommandResult {
    control::run(options).map_err(|failure| {
        process::say_last(failure.to_string());
        CommandError::Said(match failure {
            Failure::Config(_) => CONFIG,
            Failure::Run(_) => FAILED,
        })
    })
}

/// Takes one argument, the file.
fn file_argument(
    file: &mut Option<PathBuf>,
) -> impl FnMut(NextArgument, &mut Parser) -> Result<bool, CommandError> {
    move |argument, _| match argument {
        NextArgument::Value(value) if file.is_none() => {
            *file = Some(value.into());
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn unexpected(value: &OsString) -> CommandError {
    CommandError::Usage(format!("unexpected argument {:?}", value.to_string_lossy()))
}

fn unknown(command: &str) -> String {
    let elsewhere = match command {
        "start" | "serve" | "server" | "up" => Some("write \"run\""),
        "test" | "validate" | "verify" | "lint" | "configtest" => Some("write \"check\""),
        "restart" => Some(
            "`weir reload` makes a running Weir read its file again, and `weir upgrade` replaces its process",
        ),
        "drain" | "add" | "remove" | "upstreams" => Some("write \"upstream\""),
        "stop" | "quit" | "shutdown" => {
            Some("a running Weir drains and ends on SIGTERM (`systemctl stop weir`)")
        }
        _ => None,
    };
    if let Some(hint) = elsewhere {
        return format!("there is no command {command:?}; {hint}");
    }
    let first = command.chars().next();
    let known = help::COMMANDS.iter().map(|(name, _)| *name).chain(["help"]);
    let mut near = known.filter(|known| first.is_some() && known.chars().next() == first);
    let hint = near
        .next()
        .map_or(String::new(), |known| format!("; did you mean {known:?}?"));
    format!("there is no command {command:?}{hint}")
}

impl From<lexopt::Error> for CommandError {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

#[cfg(test)]
mod tests;
