//! What control asks of the system: open files, memory, and why it says no.

use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit of open files to the hard limit; says what came of it.
pub(super) fn raise_open_files() -> String {
    let before = getrlimit(Resource::Nofile);
    let show = |limit: Option<u64>| {
        limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
    };
    if before.current == before.maximum {
        return format!("open files: {}, the hard limit", show(before.current));
    }
    match setrlimit(
        Resource::Nofile,
        Rlimit {
            current: before.maximum,
            maximum: before.maximum,
        },
    ) {
        Ok(()) => format!(
            "open files: raised from {} to the hard limit {}",
            show(before.current),
            show(before.maximum)
        ),
        Err(error) => format!(
            "open files: {}; the hard limit is refused: {error}",
            show(before.current)
        ),
    }
}

/// The limit of open files.
pub(super) fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Open files now.
pub(super) fn open_files() -> Option<u64> {
    // The listing has itself open as well.
    fs::read_dir("/proc/self/fd")
        .ok()
        .map(|files| (files.count() as u64).saturating_sub(1))
}

/// Memory in use, bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// CPU time spent, microseconds.
pub(super) fn cpu_us() -> Option<u64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name in parentheses, which may hold anything.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) * 1_000_000 / rustix::param::clock_ticks_per_second())
}

/// Why the cores did not start, and what helps.
pub(super) fn explain_start(error: &io::Error) -> String {
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = disabled.as_deref().map_or("", str::trim);
    explain(error, disabled)
}

fn explain(error: &io::Error, disabled: &str) -> String {
    let why = match (
        error
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error),
        disabled,
    ) {
        (Some(rustix::io::Errno::NOSYS), _) => {
            "this kernel has no io_uring, or a sandbox hides it. Weir needs Linux 5.19 or newer; in a container, its \
             seccomp profile must allow io_uring_setup, io_uring_enter and io_uring_register"
        }
        (Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS), "2") => {
            "io_uring is switched off: `sysctl kernel.io_uring_disabled=0` switches it on"
        }
        (Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS), "1") => {
            "io_uring is for privileged processes and one group only: `sysctl kernel.io_uring_disabled=0`, or put \
             Weir's group into kernel.io_uring_group"
        }
        (Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS), _) => {
            "io_uring is forbidden to this process. In a container, its seccomp profile must allow io_uring_setup, \
             io_uring_enter and io_uring_register"
        }
        (Some(rustix::io::Errno::NOMEM), _) => {
            "no memory for the rings: raise the limit of locked memory (`ulimit -l`, systemd: LimitMEMLOCK=)"
        }
        (Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE), _) => {
            "out of file descriptors: raise the limit of open files (`ulimit -n`, systemd: LimitNOFILE=)"
        }
        _ => return format!("cannot start the cores: {error}"),
    };
    format!("cannot start the cores: {why} ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_helps() {
        let of = |errno: rustix::io::Errno, disabled| explain(&errno.into(), disabled);
        assert!(of(rustix::io::Errno::PERM, "2").contains("sysctl kernel.io_uring_disabled=0"));
        assert!(of(rustix::io::Errno::PERM, "1").contains("io_uring_group"));
        assert!(of(rustix::io::Errno::PERM, "0").contains("seccomp"));
        assert!(of(rustix::io::Errno::NOSYS, "").contains("5.19"));
        assert!(of(rustix::io::Errno::NOMEM, "0").contains("ulimit -l"));
    }

    #[test]
    fn the_process_knows_itself() {
        assert!(resident_bytes().unwrap() > 100_000);
        assert!(cpu_us().is_some());
        assert!(open_files().unwrap() >= 3);
        assert!(open_files_max().unwrap() >= open_files().unwrap());
    }
}
