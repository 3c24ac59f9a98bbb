//! Finds what a start would fail at on this machine, without starting: for `weir check`, and for a reload, because the
//! running process may hold what its next start would not get.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::{fs, io::ErrorKind};

use weir_config::{Code, Config, ListenerTarget, LogTarget, Position};

use super::load::MachineCheck;
use super::occupants::Occupants;
use super::{cpus, listen, pid_file, system};
use crate::files;
use crate::io::Address;
use crate::plan::Problem;
use crate::serving::Cores;

/// Tries everything that a start asks of the machine. An address that a Weir uses counts as free, because that Weir may
/// run this very file. `read` are the files that make up the configuration.
pub(super) fn preflight<'f>(
    config: &Config,
    machine: MachineCheck<'_>,
    read: impl Iterator<Item = &'f Path>,
) -> Vec<Problem> {
    let inherited = match machine {
        MachineCheck::Reload(inherited) => inherited,
        MachineCheck::Start | MachineCheck::Skip => &[],
    };
    let mut trial = Trial {
        inherited,
        occupants: (machine == MachineCheck::Start).then(Occupants::default),
        // A start creates sockets as root before it becomes the user that this process is.
        starts_as_root: config.user.is_some() && !rustix::process::geteuid().is_root(),
        ..Trial::default()
    };
    for listener in &config.listeners {
        match listener.target {
            ListenerTarget::Udp(_) => trial.listen_udp(&listener.address, &listener.position),
            _ => trial.listen(&listener.address, "", &listener.position),
        }
    }
    if let Some(admin) = &config.admin {
        trial.listen(&admin.address, "admin: ", &config.key_positions.admin);
    }
    if let Some(log) = &config.access_log
        && let LogTarget::File(path) = &log.to
    {
        trial.log(path, read, &config.key_positions.access_log);
    }
    if let Some(file) = &config.pid_file {
        trial.pid_file(&file.path, config);
    }
    if let Err(why) = cpus::choose(&config.cores) {
        trial.refuse(why, &config.key_positions.cores);
    }
    if let Err(error) = Cores::probe(config.driver) {
        trial.refuse(system::explain_start(&error), &config.key_positions.driver);
    }
    trial.problems
}

#[derive(Default)]
struct Trial<'a> {
    /// Addresses whose sockets a start would inherit.
    inherited: &'a [Address],
    /// The next start has more rights than this process.
    starts_as_root: bool,
    /// Unix sockets by their canonical paths, with address and line.
    sockets: HashMap<PathBuf, (String, u32)>,
    /// Finds the programs that use addresses, if the caller wants to know.
    occupants: Option<Occupants>,
    problems: Vec<Problem>,
}

impl Trial<'_> {
    fn listen(&mut self, address: &weir_config::Address, whose: &str, position: &Position) {
        let address = match address {
            weir_config::Address::Tcp(ip) => Address::Ip(*ip),
            weir_config::Address::Unix(path) => Address::Unix(path.clone().into()),
        };
        let outcome = match &address {
            _ if self.inherited.contains(&address) => Ok(()),
            Address::Ip(ip) => self.try_tcp(*ip),
            Address::Unix(path) => {
                self.note_socket(path, &address, position);
                match self.try_unix(path) {
                    Err(error) if self.starts_as_root && is_denied(&error) => Ok(()),
                    outcome => outcome,
                }
            }
        };
        if let Err(error) = outcome {
            let why = listen::explain(&address, &error);
            self.refuse(format!("{whose}{why}"), position);
        }
    }

    /// Tries an address for datagrams. One that is in use may be a running Weir's.
    fn listen_udp(&mut self, address: &weir_config::Address, position: &Position) {
        let weir_config::Address::Tcp(ip) = address else {
            return;
        };
        let Err(error) = listen::probe_udp(*ip, &[]) else {
            return;
        };
        let is_accepted =
            error.kind() == ErrorKind::AddrInUse || self.starts_as_root && is_denied(&error);
        if !is_accepted {
            let why = listen::explain(&Address::Ip(*ip), &error);
            self.refuse(why, position);
        }
    }

    /// Binds and closes. This shows whether the machine has the address and this process may use the port.
    fn try_tcp(&mut self, address: SocketAddr) -> io::Result<()> {
        match listen::probe(address, &[]) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                let occupants = self.occupants.as_mut();
                refuse_occupant(occupants.and_then(|all| all.of_tcp(address)))
            }
            outcome => outcome,
        }
    }

    fn try_unix(&mut self, path: &Path) -> io::Result<()> {
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(listen::no_socket());
            }
            let occupants = self.occupants.as_mut();
            refuse_occupant(occupants.and_then(|all| all.of_unix(path)))?;
        }
        files::may_be_made(path)
    }

    /// Finds two paths that name one file through a symbolic link.
    fn note_socket(&mut self, path: &Path, address: &Address, position: &Position) {
        let Some(canonical) = canonical(path) else {
            return;
        };
        let own = (address.to_string(), position.line);
        if let Some((other, line)) = self.sockets.get(&canonical) {
            let message = format!("`{address}` is the same file as `{other}` in line {line}");
            self.refuse(message, position);
        } else {
            self.sockets.insert(canonical, own);
        }
    }

    fn log<'f>(&mut self, path: &Path, read: impl Iterator<Item = &'f Path>, position: &Position) {
        let cannot = |why: &str| format!("cannot open the access log {}: {why}", path.display());
        if let Err(error) = files::try_log(path) {
            return self.refuse(cannot(&error.to_string()), position);
        }
        if let Some((address, _)) = canonical(path).and_then(|path| self.sockets.get(&path)) {
            let why = format!("`{address}` listens there");
            return self.refuse(cannot(&why), position);
        }
        let inode = |path: &Path| {
            let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
            Some((found.dev(), found.ino()))
        };
        let Some(log) = inode(path) else { return };
        let mut read = read;
        if let Some(same) = read.find(|file| inode(file) == Some(log)) {
            let why = format!("it is {}, which Weir reads", same.display());
            self.refuse(cannot(&why), position);
        }
    }

    /// Tries the pid file. That of a running process counts as free, for the same reason as an address.
    fn pid_file(&mut self, path: &Path, config: &Config) {
        let log = config.access_log.as_ref().and_then(|log| match &log.to {
            LogTarget::File(log) => canonical(log),
            LogTarget::Stdout => None,
        });
        let own = canonical(path);
        let why = match own.as_ref().and_then(|own| self.sockets.get(own)) {
            Some((address, _)) => Some(format!("`{address}` listens there")),
            None if own.is_some() && own == log => Some("the access log is there".to_owned()),
            None => {
                let made = files::may_be_made(path).map_err(|error| error.to_string());
                let made = if self.starts_as_root { Ok(()) } else { made };
                // Another user than this one may start Weir.
                let left = pid_file::read(path, pid_file::Owner::Any);
                left.and(made).err()
            }
        };
        if let Some(why) = why {
            // A named file has an excerpt and no position.
            self.refuse(pid_file::cannot(path, &why), &Position::default());
        }
    }

    fn refuse(&mut self, message: String, position: &Position) {
        self.problems.push(Problem {
            code: Code::Machine,
            position: position.clone(),
            message,
        });
    }
}

/// Fails if another program than Weir uses the address.
fn refuse_occupant(occupant: Option<String>) -> io::Result<()> {
    match occupant {
        Some(program) => Err(io::Error::other(format!("{program} listens there"))),
        None => Ok(()),
    }
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == ErrorKind::PermissionDenied
}

/// The path with symbolic links resolved, except the file itself.
fn canonical(path: &Path) -> Option<PathBuf> {
    let directory = fs::canonicalize(path.parent()?).ok()?;
    Some(directory.join(path.file_name()?))
}
