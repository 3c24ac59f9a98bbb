//! From a file to a plan, with everything that `weir check`, `weir run` and a reload do first.

use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::{fs, io};

use weir_config::{Config, Diagnostic};

use crate::cli::explain;
use crate::plan::Plan;
use crate::tls::{self, Tickets};

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, read again at every reload.
    File(PathBuf),
    /// The command line.
    Given(Box<Config>),
}

/// A configuration that has passed all checks.
#[derive(Debug)]
pub struct Loaded {
    /// What the file says.
    pub config: Config,
    /// What cores run; its epoch is still to be set.
    pub plan: Plan,
    /// What the files for TLS gave.
    pub tls: tls::Loaded,
    /// What is worth a second look.
    pub warnings: Vec<Diagnostic>,
}

/// Why a configuration cannot be used.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read.
    Unreadable(String),
    /// The file says something wrong; all of it.
    Invalid(Vec<Diagnostic>),
    /// It cannot be compiled, or does not meet its own tests.
    Refused(Vec<Finding>),
}

/// Something wrong with a configuration that its text alone does not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// `plan` or `test`.
    pub code: &'static str,
    /// The file; empty when there is none.
    pub file: String,
    /// The line, from 1; 0 when there is no file.
    pub line: u32,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
}

/// Reads, parses, compiles and runs the `[[test]]` blocks. Resolves host names, which may block. Without `tickets`, for
/// who only wants to know, listeners would resume no sessions.
///
/// # Errors
/// Everything that is wrong, as far as it can be known at once.
pub fn load(source: &Source, tickets: Option<&Tickets>) -> Result<Loaded, LoadError> {
    let (config, mut warnings) = match source {
        Source::File(path) => {
            let text = read(path).map_err(LoadError::Unreadable)?;
            weir_config::parse(&path.display().to_string(), &text).map_err(LoadError::Invalid)?
        }
        Source::Given(config) => ((**config).clone(), Vec::new()),
    };
    let finding = |code, line, message| {
        let file = match source {
            Source::File(path) => path.display().to_string(),
            Source::Given(_) => String::new(),
        };
        Finding {
            code,
            file,
            line,
            message,
        }
    };
    let name = match source {
        Source::File(path) => path.display().to_string(),
        Source::Given(_) => String::new(),
    };
    let (tls, more) = tls::load(&config, tickets, &name).map_err(LoadError::Invalid)?;
    warnings.extend(more);
    let mut plan = Plan::compile(&config, &resolve).map_err(|problems| {
        let problems = problems.into_iter();
        LoadError::Refused(
            problems
                .map(|each| finding("plan", each.line, each.message))
                .collect(),
        )
    })?;
    plan.equip(&tls);
    let failures = explain::run_tests(&config, &plan).into_iter();
    let failures: Vec<_> = failures
        .map(|each| finding("test", each.line, each.message))
        .collect();
    if !failures.is_empty() {
        return Err(LoadError::Refused(failures));
    }
    Ok(Loaded {
        config,
        plan,
        tls,
        warnings,
    })
}

/// The addresses of a host name: the system's resolver, hosts file included.
fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    (host, port).to_socket_addrs().map(Iterator::collect)
}

fn read(path: &Path) -> Result<String, String> {
    let cannot = |error: &dyn Display| format!("cannot read {}: {error}", path.display());
    let bytes = fs::metadata(path).map_err(|error| cannot(&error))?.len();
    if bytes > weir_config::limits::FILE_BYTES_MAX as u64 {
        let max = weir_config::limits::FILE_BYTES_MAX / (1024 * 1024);
        return Err(cannot(&format_args!("it is larger than {max} MiB")));
    }
    fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => cannot(&"it is not UTF-8 text"),
        _ => cannot(&error),
    })
}

impl Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(why) => writeln!(f, "error: {why}"),
            Self::Invalid(diagnostics) => f.write_str(&weir_config::to_text(diagnostics)),
            Self::Refused(findings) => findings.iter().try_for_each(|each| writeln!(f, "{each}")),
        }
    }
}

impl Display for Finding {
    /// Like the parser's findings: the message, then the place.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "error: {}", self.message)?;
        match (self.file.as_str(), self.line) {
            ("", _) => Ok(()),
            (file, 0) => writeln!(f, " --> {file}"),
            (file, line) => writeln!(f, " --> {file}:{line}"),
        }
    }
}
