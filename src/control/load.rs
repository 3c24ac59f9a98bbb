//! From a file to a plan: what `weir check`, `weir run` and a reload do first.

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use weir_config::{Code, Config, Diagnostic, EndpointAddress, Position, Severity, SourceFile};

use super::admin_token::AdminToken;
use super::discovery::{FoundEndpoints, Resolver};
use super::ip_lists::{IpLists, MissingLists};
use super::key_files::KeyFiles;
use super::{count, cpus, error_files, preflight, sticky_keys, system, user_access};
use crate::files;
use crate::io::Address;
use crate::obs::process;
use crate::plan::{EndpointSets, Plan, Problem, UnresolvedEndpoint};
use crate::tls::{self, TicketKeys};

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, which every reload reads again.
    File(PathBuf),
    /// The command line.
    Given(Box<Config>),
}

/// A configuration that has passed all checks, and what it compiles to.
#[derive(Debug)]
pub struct LoadedConfig {
    /// What the file says.
    pub config: Config,
    /// The text of the file without its secrets and comments; empty without a file.
    pub text: String,
    /// The plan; the caller sets its epoch.
    pub plan: Plan,
    /// The endpoints of its upstreams; the caller sets their epoch.
    pub endpoints: EndpointSets,
    /// What was read from the files for TLS.
    pub tls: tls::LoadedTls,
    /// The lists of networks that `ip` rules name.
    pub ip_lists: IpLists,
    /// The key files of token issuers.
    pub key_files: KeyFiles,
    /// The token of the admin API.
    pub admin_token: Option<AdminToken>,
    /// Warnings.
    pub warnings: Vec<Diagnostic>,
    /// What was found of host names and sources of endpoints.
    pub found: FoundEndpoints,
}

/// Why a configuration is invalid: all errors and warnings.
#[derive(Debug)]
pub struct LoadError(pub Vec<Diagnostic>);

/// Whether to look up host names.
#[derive(Clone, Copy)]
pub enum NameLookup<'r> {
    /// Look them up. Warn about a name without an address and leave its endpoint out.
    Resolve(&'r Resolver),
    /// Don't, and don't look up users. Every name gets an address that leads nowhere. For checks only.
    Skip,
}

/// Whether to try what a start would ask of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineCheck<'a> {
    /// Try. Refusals are errors; so is an address that another program listens on.
    Start,
    /// Try, for the running process, which meets other programs when it binds. A start would inherit the sockets of
    /// these addresses.
    Reload(&'a [Address]),
    /// Open none: a start reports what is missing, and a file may be for another machine.
    Skip,
}

/// Reads, parses and compiles a configuration, and runs its `[[test]]` blocks. Resolving host names blocks for five
/// seconds at most. Callers that only check pass no `tickets`; listeners would then resume no sessions.
///
/// # Errors
/// All errors that can be found at once.
pub fn load(
    source: &Source,
    names: NameLookup<'_>,
    machine: MachineCheck<'_>,
    tickets: Option<&TicketKeys>,
) -> Result<LoadedConfig, LoadError> {
    let is_here = matches!(names, NameLookup::Resolve(_)) || machine != MachineCheck::Skip;
    let files = match is_here {
        true => Files::All(tickets),
        false => Files::Here,
    };
    let (mut loaded, text) = compile(source, names, files)?;
    if machine == MachineCheck::Start {
        // A start logs the same remarks.
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
    if machine != MachineCheck::Skip {
        let files = loaded.tls.files.iter().map(|(path, _)| path.as_path());
        let pages = loaded.config.error_files().map(|file| file.path.as_path());
        let marks = loaded.config.sticky_key_files();
        let marks = marks.map(|file| file.path.as_path());
        let files = files
            .chain(loaded.ip_lists.paths())
            .chain(pages)
            .chain(marks);
        let own = match source {
            Source::File(path) => Some(path.as_path()),
            Source::Given(_) => None,
        };
        let admin = loaded.config.admin.as_ref();
        let token = admin.and_then(|admin| admin.token_file.as_ref());
        let token = token.map(|file| file.path.as_path());
        let files = files
            .chain(loaded.key_files.paths())
            .chain(token)
            .chain(own);
        failures.extend(preflight::preflight(&loaded.config, machine, files));
    }
    if is_here {
        match user_access::check(&loaded.config, source) {
            Ok(warnings) => loaded.warnings.extend(warnings),
            Err(errors) => {
                loaded.warnings.extend(errors);
                return Err(refused(source, &text, loaded.warnings, failures));
            }
        }
    }
    if failures.is_empty() {
        loaded.text = weir_config::redact(&text);
        return Ok(loaded);
    }
    Err(refused(source, &text, loaded.warnings, failures))
}

/// The same without the `[[test]]` blocks, because `weir explain` must work while one fails, and without certificates
/// and keys, because they do not route requests.
///
/// # Errors
/// Those of [`load`].
pub fn load_untested(source: &Source) -> Result<LoadedConfig, LoadError> {
    let resolver = Resolver::default();
    compile(source, NameLookup::Resolve(&resolver), Files::None).map(|(loaded, _)| loaded)
}

/// Which files of certificates and keys to read.
enum Files<'a> {
    /// All files that the configuration names. Listeners issue session tickets with these keys.
    All(Option<&'a TicketKeys>),
    /// The files that exist on this machine.
    Here,
    None,
}

/// Reads, parses and compiles. Returns the text too.
fn compile(
    source: &Source,
    names: NameLookup<'_>,
    files: Files<'_>,
) -> Result<(LoadedConfig, String), LoadError> {
    let (config, mut warnings, text) = match source {
        Source::File(path) => {
            let text = read(path)?;
            let parsed = weir_config::parse(&path.display().to_string(), &text);
            let (config, warnings) = parsed.map_err(LoadError)?;
            (config, warnings, text)
        }
        Source::Given(config) => ((**config).clone(), Vec::new(), String::new()),
    };
    let tls = match &files {
        Files::All(tickets) => tls::load(&config, *tickets, &name(source)),
        Files::Here => tls::load_available(&config, &name(source)),
        Files::None => Ok(Default::default()),
    };
    let key_files = match files {
        Files::All(_) => KeyFiles::load(&config, false, &name(source)),
        Files::Here => KeyFiles::load(&config, true, &name(source)),
        Files::None => Ok(KeyFiles::default()),
    };
    let admin_token = match files {
        Files::All(_) => AdminToken::load(&config, false, &name(source)),
        Files::Here => AdminToken::load(&config, true, &name(source)),
        Files::None => Ok(None),
    };
    let (tls, key_files, admin_token, more) = match (tls, key_files, admin_token) {
        (Ok((tls, more)), Ok(key_files), Ok(token)) => (tls, key_files, token, more),
        (tls, key_files, token) => {
            let errors = [tls.err(), key_files.err(), token.err()];
            let errors = errors.into_iter().flatten().flatten();
            return Err(LoadError(weir_config::bounded(errors.collect())));
        }
    };
    warnings.extend(more);
    let missing = match files {
        Files::All(_) => MissingLists::Refuse,
        Files::Here | Files::None => MissingLists::Skip,
    };
    let is_elsewhere = missing == MissingLists::Skip;
    let error_files = error_files::read(&config, &name(source), is_elsewhere).map_err(LoadError)?;
    let sticky_keys = match files {
        Files::All(_) | Files::Here => sticky_keys::read(&config, &name(source), is_elsewhere),
        Files::None => Ok(Default::default()),
    };
    let sticky_keys = sticky_keys.map_err(LoadError)?;
    let ip_lists = IpLists::read(&config, &name(source), missing).map_err(LoadError)?;
    let (endpoints, found) = match names {
        NameLookup::Resolve(resolver) => {
            let found = resolver.look_up(&config);
            (found.endpoints(&config), found)
        }
        NameLookup::Skip => (
            EndpointSets::compile(&config, &nowhere),
            FoundEndpoints::default(),
        ),
    };
    match (Plan::compile(&config), endpoints) {
        (Ok(mut plan), Ok(endpoints)) => {
            plan.equip(&tls);
            plan.take_error_files(&error_files);
            plan.take_sticky_keys(&sticky_keys);
            ip_lists.give_to(&plan);
            // A start fits the plan again, to the cores it starts. This is for `weir check` and `weir explain`.
            system::fit(&mut plan, &endpoints, &config, cores(&config));
            warnings.extend(unresolved(source, &text, (&config, &endpoints), &found));
            let loaded = LoadedConfig {
                config,
                text: String::new(),
                plan,
                endpoints,
                tls,
                ip_lists,
                key_files,
                admin_token,
                warnings,
                found,
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

/// The number of cores that a start would use here.
fn cores(config: &Config) -> usize {
    cpus::choose(&config.cores).map_or(1, |choice| choice.cpus.len())
}

/// The source's name in messages.
fn name(source: &Source) -> String {
    match source {
        Source::File(path) => path.display().to_string(),
        Source::Given(_) => String::new(),
    }
}

/// The errors in a file that parses, in the order of the file.
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
    // Errors about the file as a whole come last.
    all.sort_by_key(|each| {
        each.excerpt
            .as_ref()
            .map_or(u32::MAX, |excerpt| excerpt.line)
    });
    LoadError(weir_config::bounded(all))
}

/// The warning for an endpoint that a source gave and no listener without HTTP can use.
pub(super) fn unfit_message(upstream: &str, endpoint: &UnresolvedEndpoint) -> String {
    let UnresolvedEndpoint { name, why, .. } = endpoint;
    format!("endpoint `{name}` that a source gave for upstream `{upstream}` is left out: {why}")
}

/// Warns of names that were not found. Weir starts without their endpoints and looks them up again.
fn unresolved(
    source: &Source,
    text: &str,
    (config, endpoints): (&Config, &EndpointSets),
    found: &FoundEndpoints,
) -> Vec<Diagnostic> {
    let name = name(source);
    let source = SourceFile::new(&name, text);
    let warn = |position: &Position, message| source.warning(position, Code::Unresolved, message);
    let mut warnings = Vec::new();
    for (upstream, set) in config.upstreams.iter().zip(endpoints.iter()) {
        let called = &upstream.name;
        let sources: Vec<_> = upstream.sources.iter().map(|it| &it.position).collect();
        let missing = set.unresolved.iter();
        let missing = missing.filter(|endpoint| !sources.contains(&&endpoint.position));
        warnings.extend(missing.map(|endpoint| {
            let (name, why) = (&endpoint.name, &endpoint.why);
            let message = format!(
                "endpoint `{name}` of upstream `{called}` has no address: {why}; it is left out until its name is found"
            );
            warn(&endpoint.position, message)
        }));
        warnings.extend(set.unfit.iter().map(|endpoint| {
            let message = unfit_message(called, endpoint);
            warn(&endpoint.position, message)
        }));
        warnings.extend(upstream.endpoints.iter().filter_map(|endpoint| {
            let EndpointAddress::Name { host, .. } = &endpoint.address else {
                return None;
            };
            let (why, kept) = found.kept(host)?;
            let kept: Vec<_> = kept.iter().map(IpAddr::to_string).collect();
            let message = format!(
                "endpoint `{endpoint}` of upstream `{called}` is not found now: {why}; it keeps {}",
                kept.join(", ")
            );
            Some(warn(&endpoint.position, message))
        }));
        warnings.extend(upstream.sources.iter().filter_map(|source| {
            let (why, kept) = found.failing(source)?;
            let stay = match kept {
                0 => "Weir asks again and again".to_owned(),
                kept => format!("the former {} stay", count(kept, "endpoint")),
            };
            let message = format!(
                "`{}` of upstream `{called}` gives no endpoints: {why}; {stay}",
                source.kind
            );
            Some(warn(&source.position, message))
        }));
    }
    warnings
}

/// Stands in for the addresses of a name that is not looked up.
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

impl LoadedConfig {
    /// Writes the warnings to the process log.
    pub(super) fn log_warnings(&self) {
        for warning in &self.warnings {
            process::warn(warning.to_log());
        }
    }
}

impl Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&weir_config::to_text(&self.0))
    }
}
