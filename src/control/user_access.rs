//! Whether the user that Weir becomes can do what it will have to: a start reads files and binds sockets as root, but
//! reloads and renewals are this user's.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use weir_config::{Address, Code, Config, Diagnostic, Excerpt, LogTarget, NamedFile, Severity};

use super::load::Source;
use super::pid_file::{self, Owner};
use super::process_user::ProcessUser;
use crate::files;

/// Something that the user must be able to do.
struct UserNeed {
    what: NeedKind,
    path: PathBuf,
    excerpt: Option<Excerpt>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NeedKind {
    /// Read a file.
    Read,
    /// Append to a file, or make it.
    Append,
    /// Write the file with the process' number, and remove it.
    PidFile,
    /// Make and remove a Unix socket. A start does without, so that this is a warning.
    Socket,
}

/// Looks whether the user of a configuration is known and can do what it has to. Gives warnings.
///
/// # Errors
/// It is not, or cannot.
pub(super) fn look(config: &Config, source: &Source) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let file = match source {
        Source::File(path) => path.display().to_string(),
        Source::Given(_) => String::new(),
    };
    let say = |severity, code, message: String, excerpt: &Option<Excerpt>, help: &str| Diagnostic {
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
    let identity = match ProcessUser::of(config) {
        Ok(Some(identity)) => identity,
        Ok(None) => return Ok(Vec::new()),
        Err((account, why)) => {
            let help = "`adduser --system --group weir` makes one; \
                        to check a file for another machine: --elsewhere";
            let excerpt = &account.excerpt;
            return Err(vec![say(
                Severity::Error,
                Code::UnknownName,
                why,
                excerpt,
                help,
            )]);
        }
    };
    let needs = needs(config, source);
    let tried = identity.run(|| {
        let tried = needs.iter().map(|need| (need, need.attempt()));
        tried.collect::<Vec<_>>()
    });
    let Some(tried) = tried else {
        let name = &identity.name;
        let message = format!("whether user `{name}` can read keys and open logs was not tested");
        let help = "only root can test it: run `weir check` as root";
        let excerpt = &user.excerpt;
        return Ok(vec![say(
            Severity::Warning,
            Code::NamedFile,
            message,
            excerpt,
            help,
        )]);
    };
    let found = tried.into_iter().filter_map(|(need, outcome)| {
        let why = outcome.err()?;
        let path = need.path.display();
        let name = &identity.name;
        let (severity, message, help) = match need.what {
            NeedKind::Read => (
                Severity::Error,
                format!("user `{name}` cannot read {path}: {why}"),
                "reloads and renewals run as this user: let it or its group read the file, and enter every folder on \
                 the way",
            ),
            NeedKind::Append => (
                Severity::Error,
                format!("user `{name}` cannot write {path}: {why}"),
                "logs are opened as this user: give it the folder, or the file that is there",
            ),
            NeedKind::PidFile => (
                Severity::Error,
                format!("user `{name}` cannot write {path}: {why}"),
                "it is written as this user: give it a folder of its own, such as /run/weir (systemd: \
                 RuntimeDirectory=weir)",
            ),
            NeedKind::Socket => (
                Severity::Warning,
                format!("user `{name}` cannot make or remove {path}: {why}"),
                "the socket's file stays when Weir ends, and a reload cannot make it: give this user a folder of its \
                 own, such as /run/weir (systemd: RuntimeDirectory=weir)",
            ),
        };
        let excerpt = need.excerpt.as_ref().or(user.excerpt.as_ref()).cloned();
        Some(say(severity, Code::NamedFile, message, &excerpt, help))
    });
    let (errors, mut warnings): (Vec<_>, Vec<_>) =
        found.partition(|each| each.severity == Severity::Error);
    if !errors.is_empty() {
        return Err(errors);
    }
    if identity.is_root() {
        let message = "Weir stays root: this user has all rights".to_owned();
        let help =
            "name a user without any, such as one that `adduser --system --group weir` makes";
        warnings.push(say(
            Severity::Warning,
            Code::Unsafe,
            message,
            &user.excerpt,
            help,
        ));
    }
    Ok(warnings)
}

/// All that the user needs, in the order of the file, mostly.
fn needs(config: &Config, source: &Source) -> Vec<UserNeed> {
    let mut needs = Vec::new();
    let mut need = |what, path: &Path, excerpt: Option<&Excerpt>| {
        needs.push(UserNeed {
            what,
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
    for address in addresses.chain(&config.admin) {
        if let Address::Unix(path) = address {
            need(NeedKind::Socket, path, None);
        }
    }
    for file in named_files(config) {
        need(NeedKind::Read, &file.path, file.excerpt.as_ref());
    }
    needs
}

/// Every file of TLS that a configuration names.
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
    listeners.chain(upstreams).flatten()
}

impl UserNeed {
    /// Tries, without changing anything.
    fn attempt(&self) -> Result<(), String> {
        let outcome = match self.what {
            NeedKind::Read => may(&self.path, Access::READ_OK),
            NeedKind::Append => match may(&self.path, Access::WRITE_OK) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    files::may_be_made(&self.path)
                }
                outcome => outcome,
            },
            NeedKind::PidFile => {
                // NeedKind nobody could replace is said elsewhere.
                if pid_file::look(&self.path, Owner::Any).is_ok() {
                    pid_file::look(&self.path, Owner::Ours)?;
                }
                files::may_be_made(&self.path)
            }
            NeedKind::Socket => files::may_be_made(&self.path),
        };
        outcome.map_err(|error| match closed_folder(&self.path) {
            Some(closed) => format!("it may not enter {}", closed.display()),
            None => error.to_string(),
        })
    }
}

/// The first folder on the way to a file that may not be entered.
fn closed_folder(path: &Path) -> Option<&Path> {
    let mut folders: Vec<_> = path.ancestors().skip(1).collect();
    folders.reverse();
    let mut folders = folders
        .into_iter()
        .filter(|folder| !folder.as_os_str().is_empty());
    folders.find(|folder| may(folder, Access::EXEC_OK).is_err())
}

/// Asks the system, as whoever this thread is.
fn may(path: &Path, access: Access) -> io::Result<()> {
    Ok(accessat(CWD, path, access, AtFlags::EACCESS)?)
}
