//! From a file to a plan, with everything that `weir check`, `weir run` and a reload do first.

use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::{fs, io};

use weir_config::{Config, Diagnostic};

use crate::cli::explain;
use crate::plan::Plan;

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
    /// It cannot be compiled, or its own tests fail: one line each.
    Refused(Vec<String>),
}

/// Reads, parses, compiles and runs the `[[test]]` blocks. Resolves host names, which may block.
///
/// # Errors
/// Everything that is wrong, as far as it can be known at once.
pub fn load(source: &Source) -> Result<Loaded, LoadError> {
    let (config, warnings) = match source {
        Source::File(path) => {
            let text = read(path).map_err(LoadError::Unreadable)?;
            weir_config::parse(&path.display().to_string(), &text).map_err(LoadError::Invalid)?
        }
        Source::Given(config) => ((**config).clone(), Vec::new()),
    };
    let plan = Plan::compile(&config, &resolve)
        .map_err(|problems| LoadError::Refused(lines(source, &problems)))?;
    let failures = explain::run_tests(&config, &plan);
    if !failures.is_empty() {
        return Err(LoadError::Refused(lines(source, &failures)));
    }
    Ok(Loaded {
        config,
        plan,
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

fn lines(source: &Source, problems: &[impl Display]) -> Vec<String> {
    let prefix = match source {
        Source::File(path) => format!("{}: ", path.display()),
        Source::Given(_) => String::new(),
    };
    problems
        .iter()
        .map(|problem| format!("{prefix}{problem}"))
        .collect()
}

impl Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreadable(why) => writeln!(f, "error: {why}"),
            Self::Invalid(diagnostics) => f.write_str(&weir_config::to_text(diagnostics)),
            Self::Refused(problems) => {
                for problem in problems {
                    writeln!(f, "error: {problem}")?;
                }
                Ok(())
            }
        }
    }
}
