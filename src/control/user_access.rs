//! Checks whether the user that Weir becomes can do what it must. A start reads files and binds sockets as root, but
//! reloads and certificate renewals run as this user.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use weir_config::{Address, Code, Config, Diagnostic, Excerpt, LogTarget, NamedFile, Severity};

use super::key_files::named_key_files;
use super::load::Source;
use super::pid_file::{self, Owner};
use super::process_user::ProcessUser;
use crate::files;

/// Something that the user must be able to do with a file.
struct UserNeed {
    kind: NeedKind,
    path: PathBuf,
    excerpt: Option<Excerpt>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NeedKind {
    /// Read a file.
    Read,
    /// Read a file that may appear later. Weir starts without, so this is a warning.
    ReadLater,
    /// Append to a file, or create it.
    Append,
    /// Write the pid file, and remove it.
    PidFile,
    /// Create and remove a Unix socket. A start succeeds without, so this is a warning.
    Socket,
}

/// Checks whether the configuration's user exists and can do what it must. Returns warnings.
///
/// # Errors
/// The user does not exist, or cannot do something.
pub(super) fn check(config: &Config, source: &Source) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let file = match source {
        Source::File(path) => path.display().to_string(),
        Source::Given(_) => String::new(),
    };
    let diagnose =
        |severity, code, message: String, excerpt: &Option<Excerpt>, help: &str| Diagnostic {
            severity,
            code,
            message,
            file: file.clone(),
            excerpt: excerpt.clone(),
            help: vec![help.to_owned()],
        };
    let Some(user) = &config.user else {
        return Ok(Vec::new());
    };
    let process_user = match ProcessUser::of(config) {
        Ok(Some(found)) => found,
        Ok(None) => return Ok(Vec::new()),
        Err((account, why)) => {
            let help = "`adduser --system --group weir` creates one; \
                        to check a file for another machine, use --elsewhere";
            let excerpt = &account.excerpt;
            return Err(vec![diagnose(
                Severity::Error,
                Code::UnknownName,
                why,
                excerpt,
                help,
            )]);
        }
    };
    let needs = needs(config, source);
    let tried = process_user.run_as(|| {
        let tried = needs.iter().map(|need| (need, need.attempt()));
        tried.collect::<Vec<_>>()
    });
    let Some(tried) = tried else {
        let name = &process_user.name;
        let message =
            format!("Weir did not test whether user `{name}` can read keys and open logs");
        let help = "only root can test it: run `weir check` as root";
        let excerpt = &user.excerpt;
        return Ok(vec![diagnose(
            Severity::Warning,
            Code::NamedFile,
            message,
            excerpt,
            help,
        )]);
    };
    let found = tried.into_iter().filter_map(|(need, outcome)| {
        let why = outcome.err()?;
        let (severity, message, help) = need.failure(&process_user.name, &why);
        let excerpt = need.excerpt.as_ref().or(user.excerpt.as_ref()).cloned();
        Some(diagnose(severity, Code::NamedFile, message, &excerpt, help))
    });
    let (errors, mut warnings): (Vec<_>, Vec<_>) =
        found.partition(|each| each.severity == Severity::Error);
    if !errors.is_empty() {
        return Err(errors);
    }
    if process_user.is_root() {
        let message = "Weir stays root: this user has all rights".to_owned();
        let help =
            "name a user without rights, such as one that `adduser --system --group weir` creates";
        warnings.push(diagnose(
            Severity::Warning,
            Code::Unsafe,
            message,
            &user.excerpt,
            help,
        ));
    }
    Ok(warnings)
}

/// All that the user needs, mostly in the order of the file.
fn needs(config: &Config, source: &Source) -> Vec<UserNeed> {
    let mut needs = Vec::new();
    let mut need = |kind, path: &Path, excerpt: Option<&Excerpt>| {
        needs.push(UserNeed {
            kind,
            path: path.to_owned(),
            excerpt: excerpt.cloned(),
        });
    };
    if let Source::File(path) = source {
        need(NeedKind::Read, path, None);
    }
    if let Some(file) = &config.pid_file {
        need(NeedKind::PidFile, &file.path, file.excerpt.as_ref());
    }
    if let Some(LogTarget::File(path)) = config.access_log.as_ref().map(|log| &log.to) {
        need(NeedKind::Append, path, None);
    }
    let addresses = config.listeners.iter().map(|listener| &listener.address);
    let admin = config.admin.as_ref().map(|admin| &admin.address);
    for address in addresses.chain(admin) {
        if let Address::Unix(path) = address {
            need(NeedKind::Socket, path, None);
        }
    }
    for file in named_files(config)
        .chain(config.ip_lists())
        .chain(config.error_files())
        .chain(
            config
                .admin
                .as_ref()
                .and_then(|admin| admin.token_file.as_ref()),
        )
    {
        need(NeedKind::Read, &file.path, file.excerpt.as_ref());
    }
    for file in config.source_files() {
        need(NeedKind::ReadLater, &file.path, file.excerpt.as_ref());
    }
    needs
}

/// Every file that a configuration names for TLS and for tokens.
fn named_files(config: &Config) -> impl Iterator<Item = &NamedFile> {
    let listeners = config.listeners.iter().filter_map(|each| each.tls.as_ref());
    let listeners = listeners.flat_map(|tls| {
        let pairs = tls.certs.iter();
        let pairs =
            pairs.flat_map(|files| [Some(&files.cert), Some(&files.key), files.ocsp.as_ref()]);
        pairs.chain([tls.client_ca.as_ref(), tls.client_crl.as_ref()])
    });
    let upstreams = config.upstreams.iter().flat_map(|upstream| {
        let pair = upstream.tls.cert.as_ref();
        let (cert, key) = pair.map(|(cert, key)| (cert, key)).unzip();
        [upstream.tls.ca.as_ref(), cert, key]
    });
    listeners
        .chain(upstreams)
        .flatten()
        .chain(named_key_files(config))
        .chain(config.sticky_key_files())
}

impl UserNeed {
    /// What to report if the user `name` cannot do it, and what helps.
    fn failure(&self, name: &str, why: &str) -> (Severity, String, &'static str) {
        let path = self.path.display();
        match self.kind {
            NeedKind::Read => (
                Severity::Error,
                format!("user `{name}` cannot read {path}: {why}"),
                "reloads and certificate renewals run as this user: let it or its group read the file, and enter every \
                 directory on the path",
            ),
            NeedKind::ReadLater => (
                Severity::Warning,
                format!("user `{name}` cannot read {path}: {why}"),
                "Weir reads endpoints as this user: let it or its group read the file, and enter every directory on \
                 the path",
            ),
            NeedKind::Append => (
                Severity::Error,
                format!("user `{name}` cannot write {path}: {why}"),
                "Weir opens logs as this user: make it the owner of the directory, or of the file if it exists",
            ),
            NeedKind::PidFile => (
                Severity::Error,
                format!("user `{name}` cannot write {path}: {why}"),
                "Weir writes it as this user: give the user a directory of its own, such as /run/weir (systemd: \
                 RuntimeDirectory=weir)",
            ),
            NeedKind::Socket => (
                Severity::Warning,
                format!("user `{name}` cannot make or remove {path}: {why}"),
                "the socket's file stays when Weir ends, and a reload cannot create it: give this user a directory of \
                 its own, such as /run/weir (systemd: RuntimeDirectory=weir)",
            ),
        }
    }

    /// Tries it without changing anything.
    fn attempt(&self) -> Result<(), String> {
        let outcome = match self.kind {
            NeedKind::Read => may(&self.path, Access::READ_OK),
            NeedKind::ReadLater => match may(&self.path, Access::READ_OK) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                outcome => outcome,
            },
            NeedKind::Append => match may(&self.path, Access::WRITE_OK) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    files::may_be_made(&self.path)
                }
                outcome => outcome,
            },
            NeedKind::PidFile => {
                // `preflight` reports a file that no user could replace.
                if pid_file::read(&self.path, Owner::Any).is_ok() {
                    pid_file::read(&self.path, Owner::Ours)?;
                }
                files::may_be_made(&self.path)
            }
            NeedKind::Socket => files::may_be_made(&self.path),
        };
        outcome.map_err(|error| match closed_directory(&self.path) {
            Some(closed) => format!("it may not enter {}", closed.display()),
            None => error.to_string(),
        })
    }
}

/// The first directory on the path that this thread may not enter.
fn closed_directory(path: &Path) -> Option<&Path> {
    let mut directories: Vec<_> = path.ancestors().skip(1).collect();
    directories.reverse();
    let mut directories = directories
        .into_iter()
        .filter(|directory| !directory.as_os_str().is_empty());
    directories.find(|directory| may(directory, Access::EXEC_OK).is_err())
}

/// Asks the system whether this thread's user has access.
fn may(path: &Path, access: Access) -> io::Result<()> {
    Ok(accessat(CWD, path, access, AtFlags::EACCESS)?)
}
