//! The user that the process runs as. A process that starts as root becomes the configuration's user once its sockets
//! are bound.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;

use nix::unistd;
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::thread as this_thread;
use rustix::thread::{CapabilitySet, CapabilitySets};
use weir_config::{Account, Config};

/// The user and group of a configuration, as numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProcessUser {
    /// The user's name in the file.
    pub(super) name: String,
    uid: u32,
    gid: u32,
}

impl ProcessUser {
    /// Looks up the user and group that a configuration names, if it names any.
    ///
    /// # Errors
    /// The account that does not exist, and why Weir thinks so.
    pub(super) fn of(config: &Config) -> Result<Option<Self>, (&Account, String)> {
        let Some(user) = &config.user else {
            return Ok(None);
        };
        let (uid, own) = find_user(user).map_err(|why| (user, why))?;
        let gid = match (&config.group, own) {
            (Some(group), _) => find_group(group).map_err(|why| (group, why))?,
            (None, Some(own)) => own,
            (None, None) => {
                let why = "this user has no entry, so its group is unknown; add `group`";
                return Err((user, why.to_owned()));
            }
        };
        let name = user.name.clone();
        Ok(Some(Self { name, uid, gid }))
    }

    /// Whether the process already runs as this user and group.
    pub(super) fn is_current(&self) -> bool {
        (self.uid, self.gid) == (geteuid().as_raw(), getegid().as_raw())
    }

    /// Whether this user is root.
    pub(super) fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Becomes this user for good, in all threads. The process keeps no other groups and no way to gain rights; if
    /// `keeps_ports`, it keeps the capability to bind ports below 1024.
    ///
    /// # Errors
    /// The system refuses. The message says what to do.
    pub(super) fn assume(&self, keeps_ports: bool) -> Result<(), String> {
        let cannot = |error: &dyn std::fmt::Display| {
            format!(
                "cannot become user `{}`: {error}; only root can (with CAP_SETUID and CAP_SETGID), so start Weir as root, \
                 or start it as that user and leave `user` out (systemd: User=)",
                self.name
            )
        };
        if !self.is_current() || self.uid == 0 {
            let (uid, gid) = (self.uid.into(), self.gid.into());
            let is_kept = keeps_ports && self.uid != 0;
            this_thread::set_keep_capabilities(is_kept).map_err(|error| cannot(&error))?;
            unistd::setgroups(&[]).map_err(|error| cannot(&error))?;
            unistd::setresgid(gid, gid, gid).map_err(|error| cannot(&error))?;
            unistd::setresuid(uid, uid, uid).map_err(|error| cannot(&error))?;
            if self.uid != 0 {
                keep_capabilities(is_kept).map_err(|error| cannot(&error))?;
            }
        }
        this_thread::set_no_new_privs(true).map_err(|error| cannot(&error))
    }

    /// The user, its group and its rights, for the log.
    pub(super) fn describe(&self, keeps_ports: bool) -> String {
        let kept = match keeps_ports && !self.is_root() {
            true => "may still bind ports below 1024",
            false if self.is_root() => "keeps all rights",
            false => "has no rights beyond a user's",
        };
        format!(
            "runs as user `{}` ({}), group {}; {kept}",
            self.name, self.uid, self.gid
        )
    }

    /// Makes this user the owner of a file that the process created as root.
    pub(super) fn own(&self, path: &Path) -> Result<(), String> {
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid)).map_err(|error| {
            format!(
                "cannot give {} to user `{}`: {error}",
                path.display(),
                self.name
            )
        })
    }

    /// Runs `job` as this user, in a thread of its own. `None` if the process may not become this user.
    pub(super) fn run_as<T: Send>(&self, job: impl FnOnce() -> T + Send) -> Option<T> {
        if self.is_current() {
            return Some(job());
        }
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        // Linux keeps credentials by thread, so the rest of the process stays as it is.
        let as_user = || {
            this_thread::set_thread_groups(&[]).ok()?;
            this_thread::set_thread_res_gid(gid, gid, gid).ok()?;
            this_thread::set_thread_res_uid(uid, uid, uid).ok()?;
            Some(job())
        };
        thread::scope(|scope| scope.spawn(as_user).join().ok().flatten())
    }
}

/// Drops the capabilities of this thread and of threads that it starts, except the one to bind low ports if
/// `keeps_ports`.
fn keep_capabilities(keeps_ports: bool) -> rustix::io::Result<()> {
    let kept = match keeps_ports {
        true => CapabilitySet::NET_BIND_SERVICE,
        false => CapabilitySet::empty(),
    };
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    this_thread::set_capabilities(None, sets)?;
    this_thread::set_keep_capabilities(false)
}

/// Whether binding one of these addresses needs a capability.
pub(super) fn needs_ports<'a>(addresses: impl IntoIterator<Item = &'a SocketAddr>) -> bool {
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first = first.ok().and_then(|text| text.trim().parse().ok());
    let first: u16 = first.unwrap_or(1024);
    let mut ports = addresses.into_iter().map(SocketAddr::port);
    ports.any(|port| port > 0 && port < first)
}

/// The number of a user, and of its group if the user has an entry.
fn find_user(user: &Account) -> Result<(u32, Option<u32>), String> {
    let found = match user.number() {
        Some(number) => unistd::User::from_uid(number.into()),
        None => unistd::User::from_name(&user.name),
    };
    match (found, user.number()) {
        (Ok(Some(found)), _) => Ok((found.uid.as_raw(), Some(found.gid.as_raw()))),
        (Ok(None), Some(number)) => Ok((number, None)),
        (Ok(None), None) => Err(format!("there is no user `{}` here", user.name)),
        (Err(error), _) => Err(format!("cannot look up user `{}`: {error}", user.name)),
    }
}

fn find_group(group: &Account) -> Result<u32, String> {
    if let Some(number) = group.number() {
        return Ok(number);
    }
    match unistd::Group::from_name(&group.name) {
        Ok(Some(found)) => Ok(found.gid.as_raw()),
        Ok(None) => Err(format!("there is no group `{}` here", group.name)),
        Err(error) => Err(format!("cannot look up group `{}`: {error}", group.name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process_user(keys: &str) -> Result<Option<ProcessUser>, String> {
        let text = format!(
            "{keys}[listen.\"127.0.0.1:0\"]\n[[route]]\nmatch = \"/*\"\nrespond = {{ status = 204 }}\n"
        );
        let config = weir_config::parse("test.toml", &text).unwrap().0;
        ProcessUser::of(&config).map_err(|(account, why)| format!("{}: {why}", account.name))
    }

    #[test]
    fn users_and_groups_have_names_or_numbers() {
        let of = |keys| {
            let found = process_user(keys).unwrap().unwrap();
            (found.uid, found.gid)
        };
        assert_eq!(process_user(""), Ok(None));
        assert_eq!(of("user = \"root\"\n"), (0, 0));
        assert_eq!(of("user = \"0\"\n"), (0, 0));
        assert_eq!(of("user = \"root\"\ngroup = \"7\"\n"), (0, 7));
        assert_eq!(of("user = \"4123456\"\ngroup = \"7\"\n"), (4_123_456, 7));
        let error = process_user("user = \"4123456\"\n").unwrap_err();
        assert!(error.contains("add `group`"), "{error}");
        let error = process_user("user = \"nosuchuser\"\n").unwrap_err();
        assert_eq!(error, "nosuchuser: there is no user `nosuchuser` here");
        let error = process_user("user = \"root\"\ngroup = \"nosuchgroup\"\n").unwrap_err();
        assert_eq!(error, "nosuchgroup: there is no group `nosuchgroup` here");
    }

    #[test]
    fn run_as_changes_the_user_of_one_thread() {
        let nobody = process_user("user = \"65534\"\ngroup = \"65534\"\n")
            .unwrap()
            .unwrap();
        let before = geteuid();
        let ran = nobody.run_as(|| {
            let is_refused = fs::File::open("/proc/1/environ").is_err();
            (geteuid().as_raw(), getegid().as_raw(), is_refused)
        });
        match before.is_root() {
            true => assert_eq!(ran, Some((65_534, 65_534, true))),
            false => assert_eq!(ran, None),
        }
        assert_eq!(geteuid(), before);
    }

    #[test]
    fn ports_below_the_first_free_one_need_a_capability() {
        let needs = |texts: &[&str]| {
            let addresses: Vec<SocketAddr> =
                texts.iter().map(|text| text.parse().unwrap()).collect();
            needs_ports(&addresses)
        };
        assert!(!needs(&["127.0.0.1:0", "[::]:8080"]));
        let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
        if first.is_ok_and(|first| first.trim() == "1024") {
            assert!(needs(&["127.0.0.1:8080", "[::]:443"]));
        }
    }
}
