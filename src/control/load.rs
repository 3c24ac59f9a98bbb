//! From a file to a plan, with everything that `weir check`, `weir run` and a reload do first.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use weir_config::{Code, Config, Diagnostic, EndpointAddress, Position, Severity, SourceFile};

use super::names::{self, Answers, Resolver};
use super::{access, cpus, preflight, system};
use crate::files;
use crate::io::Address;
use crate::plan::{EndpointSets, Plan, Problem};
use crate::tls::{self, TicketKeys};

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
    /// The endpoints of its upstreams; their epoch too.
    pub endpoints: EndpointSets,
    /// What the files for TLS gave.
    pub tls: tls::LoadedTls,
    /// What is worth a second look.
    pub warnings: Vec<Diagnostic>,
    /// What was found of the names of endpoints.
    pub names: Answers,
}

/// Why a configuration cannot be used: everything that is wrong, warnings among it.
#[derive(Debug)]
pub struct LoadError(pub Vec<Diagnostic>);

/// Whether host names are looked up.
#[derive(Clone, Copy)]
pub enum Names<'r> {
    /// They are. One without an address is a warning, and its endpoint is left out.
    Resolve(&'r Resolver),
    /// They are not: the plan has an address that leads nowhere in their place, and users are not looked up either. For
    /// checks only.
    Skip,
}

/// Whether this machine is asked for what a start would ask it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine<'a> {
    /// It is, and what it refuses is an error, other programs' addresses among that.
    Ask,
    /// The same for the process that runs, which hears of other programs when it binds. These addresses are not bound
    /// by a start, but passed on to it.
    AskToReload(&'a [Address]),
    /// It is not: whoever starts hears soon enough, and a file may be for another machine.
    Leave,
}

/// Reads, parses, compiles and runs the `[[test]]` blocks. Resolves host names, which blocks for five seconds at most. Without `tickets`, for
/// who only wants to know, listeners would resume no sessions.
///
/// # Errors
/// Everything that is wrong, as far as it can be known at once.
pub fn load(
    source: &Source,
    names: Names<'_>,
    machine: Machine<'_>,
    tickets: Option<&TicketKeys>,
) -> Result<Loaded, LoadError> {
    let is_here = matches!(names, Names::Resolve(_)) || machine != Machine::Leave;
    let files = match is_here {
        true => Files::All(tickets),
        false => Files::Here,
    };
    let (mut loaded, text) = compile(source, names, files)?;
    if machine == Machine::Ask {
        // A start says the same of itself.
        let remarks = system::remarks(
            (&loaded.plan, &loaded.endpoints),
            &loaded.config,
            cores(&loaded.config),
        );
        let warning = |message| Diagnostic {
            severity: Severity::Warning,
            code: Code::Machine,
            message,
            file: name(source),
            excerpt: None,
            help: Vec::new(),
        };
        loaded.warnings.extend(remarks.into_iter().map(warning));
    }
    let mut failures = loaded.plan.run_tests(&loaded.config);
    if machine != Machine::Leave {
        let files = loaded.tls.files.iter().map(|(path, _)| path.as_path());
        let own = match source {
            Source::File(path) => Some(path.as_path()),
            Source::Given(_) => None,
        };
        let files = files.chain(own);
        failures.extend(preflight::preflight(&loaded.config, machine, files));
    }
    if is_here {
        match access::look(&loaded.config, source) {
            Ok(warnings) => loaded.warnings.extend(warnings),
            Err(errors) => {
                loaded.warnings.extend(errors);
                return Err(refused(source, &text, loaded.warnings, failures));
            }
        }
    }
    if failures.is_empty() {
        return Ok(loaded);
    }
    Err(refused(source, &text, loaded.warnings, failures))
}

/// The same without the tests, since whoever asks why one fails needs the plan, and without certificates and keys,
/// which say nothing about where a request goes.
///
/// # Errors
/// As [`load`].
pub fn load_untested(source: &Source) -> Result<Loaded, LoadError> {
    let resolver = Resolver::default();
    compile(source, Names::Resolve(&resolver), Files::None).map(|(loaded, _)| loaded)
}

/// Which files of certificates and keys are read.
enum Files<'a> {
    /// All that the file names, and the tickets that listeners give out.
    All(Option<&'a TicketKeys>),
    /// Those that this machine has.
    Here,
    None,
}

/// Reads, parses and compiles; gives the text too.
fn compile(
    source: &Source,
    names: Names<'_>,
    files: Files<'_>,
) -> Result<(Loaded, String), LoadError> {
    let (config, mut warnings, text) = match source {
        Source::File(path) => {
            let text = read(path)?;
            let parsed = weir_config::parse(&path.display().to_string(), &text);
            let (config, warnings) = parsed.map_err(LoadError)?;
            (config, warnings, text)
        }
        Source::Given(config) => ((**config).clone(), Vec::new(), String::new()),
    };
    let tls = match files {
        Files::All(tickets) => tls::load(&config, tickets, &name(source)),
        Files::Here => tls::load_available(&config, &name(source)),
        Files::None => Ok(Default::default()),
    };
    let (tls, more) = tls.map_err(LoadError)?;
    warnings.extend(more);
    let (endpoints, names) = match names {
        Names::Resolve(resolver) => {
            let names = resolver.look_up(&names::hosts(&config));
            (names.endpoints(&config), names)
        }
        Names::Skip => (EndpointSets::compile(&config, &nowhere), Answers::default()),
    };
    match (Plan::compile(&config), endpoints) {
        (Ok(mut plan), Ok(endpoints)) => {
            plan.equip(&tls);
            // How many cores there are to be is said again at a start; here it is for whoever asks.
            system::fit(&mut plan, &endpoints, &config, cores(&config));
            warnings.extend(unresolved(source, &text, (&config, &endpoints), &names));
            let loaded = Loaded {
                config,
                plan,
                endpoints,
                tls,
                warnings,
                names,
            };
            Ok((loaded, text))
        }
        (plan, endpoints) => {
            let problems = [endpoints.err(), plan.err()]
                .into_iter()
                .flatten()
                .flatten();
            Err(refused(source, &text, warnings, problems.collect()))
        }
    }
}

/// How many cores there would be here.
fn cores(config: &Config) -> usize {
    cpus::choose(&config.cores).map_or(1, |choice| choice.cpus.len())
}

/// What messages call the source.
fn name(source: &Source) -> String {
    match source {
        Source::File(path) => path.display().to_string(),
        Source::Given(_) => String::new(),
    }
}

/// What is wrong with a file whose text is right, in the order of the file.
fn refused(
    source: &Source,
    text: &str,
    warnings: Vec<Diagnostic>,
    problems: Vec<Problem>,
) -> LoadError {
    let name = name(source);
    let source = SourceFile::new(&name, text);
    let mut all = warnings;
    all.extend(
        problems
            .into_iter()
            .map(|each| source.error(&each.position, each.code, each.message)),
    );
    // What is about the file as a whole comes last.
    all.sort_by_key(|each| {
        each.excerpt
            .as_ref()
            .map_or(u32::MAX, |excerpt| excerpt.line)
    });
    LoadError(weir_config::bounded(all))
}

/// Says which names were not found. Nothing waits for them: they are looked up again.
fn unresolved(
    source: &Source,
    text: &str,
    (config, endpoints): (&Config, &EndpointSets),
    names: &Answers,
) -> Vec<Diagnostic> {
    let name = name(source);
    let source = SourceFile::new(&name, text);
    let warn = |position: &Position, message| source.warning(position, Code::Unresolved, message);
    let mut warnings = Vec::new();
    for (upstream, set) in config.upstreams.iter().zip(endpoints.iter()) {
        let called = &upstream.name;
        warnings.extend(set.unresolved.iter().map(|endpoint| {
            let (name, why) = (&endpoint.name, &endpoint.why);
            let message = format!(
                "endpoint `{name}` of upstream `{called}` has no address: {why}; it is left out until its name is found"
            );
            warn(&endpoint.position, message)
        }));
        warnings.extend(upstream.endpoints.iter().filter_map(|endpoint| {
            let EndpointAddress::Name { host, .. } = &endpoint.address else {
                return None;
            };
            let (why, kept) = names.kept(host)?;
            let kept: Vec<_> = kept.iter().map(IpAddr::to_string).collect();
            let message = format!(
                "endpoint `{endpoint}` of upstream `{called}` is not found now: {why}; it keeps {}",
                kept.join(", ")
            );
            Some(warn(&endpoint.position, message))
        }));
    }
    warnings
}

/// What stands for the addresses of a name that is not looked up.
fn nowhere(_: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(vec![(Ipv4Addr::UNSPECIFIED, port).into()])
}

fn read(path: &Path) -> Result<String, LoadError> {
    let cannot = |error: &dyn Display| {
        let name = path.display().to_string();
        let message = format!("cannot read {name}: {error}");
        let unread = SourceFile::new(&name, "").error(&Position::default(), Code::File, message);
        LoadError(vec![unread])
    };
    let bytes = files::read(path, weir_config::limits::FILE_BYTES_MAX as u64);
    String::from_utf8(bytes.map_err(|error| cannot(&error))?)
        .map_err(|_| cannot(&"it is not UTF-8 text"))
}

impl Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&weir_config::to_text(&self.0))
    }
}
