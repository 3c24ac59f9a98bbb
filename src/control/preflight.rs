//! What a start would refuse on this machine, found without starting: for `weir check`, and for a reload, because the
//! process that runs may have got what its next start would not.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::{fs, io::ErrorKind};

use weir_config::{Code, Config, LogTarget, Spot};

use super::{cpus, listen, system};
use crate::core::Cores;
use crate::files;
use crate::io::Address;
use crate::plan::Problem;

/// Tries everything that a start asks of the machine. An address that is in use is no refusal: it may be this file's
/// own process that uses it. `read` are the files that the configuration is made of.
pub(super) fn preflight<'f>(
    config: &Config,
    inherited: &[Address],
    read: impl Iterator<Item = &'f Path>,
) -> Vec<Problem> {
    let mut trial = Trial {
        inherited,
        // A start makes sockets as root, before it becomes the user that this process is.
        starts_as_root: config.user.is_some() && !rustix::process::geteuid().is_root(),
        ..Trial::default()
    };
    for listener in &config.listeners {
        trial.listen(&listener.address, "", &listener.spot);
    }
    if let Some(admin) = &config.admin {
        trial.listen(admin, "admin: ", &config.spots.admin);
    }
    if let Some(log) = &config.access_log
        && let LogTarget::File(path) = &log.to
    {
        trial.log(path, read, &config.spots.access_log);
    }
    if let Err(why) = cpus::choose(&config.cores) {
        trial.refuse(why, &config.spots.cores);
    }
    if let Err(error) = Cores::probe(config.driver) {
        trial.refuse(system::explain_start(&error), &config.spots.driver);
    }
    trial.problems
}

#[derive(Default)]
struct Trial<'a> {
    /// Addresses whose sockets are passed on to a start.
    inherited: &'a [Address],
    /// This process can do less than the next start.
    starts_as_root: bool,
    /// Unix sockets, by where they are in truth.
    sockets: HashMap<PathBuf, (String, u32)>,
    problems: Vec<Problem>,
}

impl Trial<'_> {
    fn listen(&mut self, address: &weir_config::Address, whose: &str, spot: &Spot) {
        let address = match address {
            weir_config::Address::Tcp(ip) => Address::Ip(*ip),
            weir_config::Address::Unix(path) => Address::Unix(path.clone().into()),
        };
        let outcome = match &address {
            _ if self.inherited.contains(&address) => Ok(()),
            Address::Ip(ip) => try_tcp(*ip),
            Address::Unix(path) => {
                self.note_socket(path, &address, spot);
                match try_unix(path) {
                    Err(error) if self.starts_as_root && is_denied(&error) => Ok(()),
                    outcome => outcome,
                }
            }
        };
        if let Err(error) = outcome {
            let why = listen::explain(&address, &error);
            self.refuse(format!("{whose}{why}"), spot);
        }
    }

    /// Two names may be one file: a folder on the way is a symbolic link.
    fn note_socket(&mut self, path: &Path, address: &Address, spot: &Spot) {
        let Some(in_truth) = in_truth(path) else {
            return;
        };
        let own = (address.to_string(), spot.line);
        if let Some((other, line)) = self.sockets.get(&in_truth) {
            let message = format!("`{address}` is the same file as `{other}` in line {line}");
            self.refuse(message, spot);
        } else {
            self.sockets.insert(in_truth, own);
        }
    }

    fn log<'f>(&mut self, path: &Path, read: impl Iterator<Item = &'f Path>, spot: &Spot) {
        let cannot = |why: &str| format!("cannot open the access log {}: {why}", path.display());
        if let Err(error) = files::try_log(path) {
            return self.refuse(cannot(&error.to_string()), spot);
        }
        if let Some((address, _)) = in_truth(path).and_then(|path| self.sockets.get(&path)) {
            let why = format!("`{address}` listens there");
            return self.refuse(cannot(&why), spot);
        }
        let inode = |path: &Path| {
            let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
            Some((found.dev(), found.ino()))
        };
        let Some(log) = inode(path) else { return };
        let mut read = read;
        if let Some(same) = read.find(|file| inode(file) == Some(log)) {
            let why = format!("it is {}, which is read", same.display());
            self.refuse(cannot(&why), spot);
        }
    }

    fn refuse(&mut self, message: String, spot: &Spot) {
        self.problems.push(Problem {
            code: Code::Machine,
            spot: spot.clone(),
            message,
        });
    }
}

/// Binds, which shows whether the machine has the address and this process may use the port, and goes away again.
fn try_tcp(address: SocketAddr) -> io::Result<()> {
    match listen::bind_shared(address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(()),
        outcome => outcome.map(drop),
    }
}

fn try_unix(path: &Path) -> io::Result<()> {
    if let Ok(found) = fs::symlink_metadata(path)
        && !found.file_type().is_socket()
    {
        return Err(listen::no_socket());
    }
    files::may_be_made(path)
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied
}

/// The path without symbolic links on the way to the file.
fn in_truth(path: &Path) -> Option<PathBuf> {
    let folder = fs::canonicalize(path.parent()?).ok()?;
    Some(folder.join(path.file_name()?))
}
