//! What control asks of the system: open files, memory, numbers about the process.

use std::path::Path;
use std::{fs, io};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use weir_config::Config;
use weir_config::limits::BACKLOG;

use super::{count, memory_limit};
use crate::obs::process;
use crate::plan::{EndpointSets, EndpointSpec, Grants, Plan, Protocol};

/// Raises the limit of open files to the hard limit. Returns the outcome in words.
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
            "open files: {}; the system refuses the hard limit: {error}",
            show(before.current)
        ),
    }
}

/// Raises the limit of locked memory as far as possible. Linux 6.13 and newer counts rings as locked memory unless root
/// made them: about 130 KiB a core, 520 KiB on monoio.
pub(super) fn raise_locked_memory() {
    let limit = |current, maximum| setrlimit(Resource::Memlock, Rlimit { current, maximum });
    let max = getrlimit(Resource::Memlock).maximum;
    let is_raised = rustix::process::geteuid().is_root() && limit(None, None).is_ok();
    if !is_raised {
        // If this fails and the rings need more, starting them says so.
        let _ = limit(max, max);
    }
}

/// What the system grants. A start raises the limit of open files to the maximum.
pub(super) fn grants() -> Grants {
    Grants {
        open_files: getrlimit(Resource::Nofile).maximum,
        memory_bytes: memory_limit::limit(Path::new("/")),
    }
}

/// Fits a plan to the machine and this number of cores.
pub(super) fn fit(plan: &mut Plan, endpoints: &EndpointSets, config: &Config, cores: usize) {
    plan.fit(config, endpoints, grants(), cores);
}

/// Remarks about what the system grants less of than the file asks for, and about too few connections for the cores.
pub(super) fn remarks(
    (plan, endpoints): (&Plan, &EndpointSets),
    config: &Config,
    cores: usize,
) -> Vec<String> {
    let somaxconn = fs::read_to_string("/proc/sys/net/core/somaxconn");
    let somaxconn = somaxconn.ok().and_then(|text| text.trim().parse().ok());
    let mut found = shortages(plan, config, somaxconn);
    found.extend(shared_by_cores(plan, endpoints, cores));
    found
}

/// Logs the [`remarks`] at start.
pub(super) fn warn_of_shortages(compiled: (&Plan, &EndpointSets), config: &Config, cores: usize) {
    remarks(compiled, config, cores)
        .iter()
        .for_each(process::warn);
}

/// Warns of upstreams that speak HTTP/2 and have fewer connections than there are cores.
fn shared_by_cores(
    plan: &Plan,
    endpoints: &EndpointSets,
    cores: usize,
) -> impl Iterator<Item = String> {
    let is_http2 = |endpoint: &EndpointSpec| {
        endpoint.protocol == Protocol::Http2 && endpoint.tls_name.is_none()
    };
    let upstreams = plan.upstreams.iter().zip(endpoints.iter());
    let short = upstreams.filter(move |(upstream, set)| {
        (upstream.connections_max as usize) < cores && set.endpoints.iter().any(is_http2)
    });
    short.map(move |(upstream, _)| {
        format!(
            "upstream `{}`: {} for {cores} cores. An HTTP/2 connection belongs to one core, so cores take turns and requests \
             wait; set `pool.connections` to {cores} or more",
            upstream.name,
            count(upstream.connections_max as usize, "connection"),
        )
    })
}

fn shortages(plan: &Plan, config: &Config, somaxconn: Option<u32>) -> Vec<String> {
    let mut found = Vec::new();
    let written = |each| config.connections_of(each).map(u64::from);
    let wanted: u64 = config.listeners.iter().filter_map(written).sum();
    if let Some(files) = plan.capacity.is_starved() {
        let most = plan.capacity.connections_max;
        found.push(format!(
            "open files: {files} are too few even for {most} connections at once, so some requests will fail with 503 \
             `no_descriptors`. Raise the hard limit (`ulimit -Hn`, systemd: LimitNOFILE=)"
        ));
    } else if let Some(files) = plan.capacity.is_below(wanted) {
        let most = plan.capacity.connections_max;
        found.push(format!(
            "open files: {files} allow {most} connections at once, fewer than the {wanted} of `connections`; more \
             clients wait to be accepted. Raise the hard limit (`ulimit -Hn`, systemd: LimitNOFILE=) or lower \
             `connections`"
        ));
    }
    // Don't warn if the kernel cuts the default: the file does not ask for it.
    let backlogs = config.listeners.iter().map(|listener| listener.backlog);
    let asked_for = backlogs.filter(|&backlog| backlog != BACKLOG.value).max();
    if let (Some(backlog), Some(max)) = (asked_for, somaxconn)
        && backlog > max
    {
        found.push(format!(
            "accept queue: the kernel cuts a backlog of {backlog} to {max}; \
             `sysctl net.core.somaxconn={backlog}` allows it"
        ));
    }
    found
}

/// The limit of open files.
pub(super) fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Open files now.
pub(super) fn open_files() -> Option<u64> {
    // Listing the directory opens one more.
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

/// Says why the cores did not start, and what helps.
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
            "only privileged processes and one group may use io_uring: `sysctl kernel.io_uring_disabled=0` allows all, or \
             put Weir's group into kernel.io_uring_group"
        }
        (Some(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS), _) => {
            "io_uring is forbidden to this process. In a container, its seccomp profile must allow io_uring_setup, \
             io_uring_enter and io_uring_register"
        }
        (Some(rustix::io::Errno::INVAL), _) => {
            "this kernel lacks what Weir needs of io_uring, which is Linux 5.19 or newer"
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
    fn an_error_at_start_says_what_helps() {
        let of = |errno: rustix::io::Errno, disabled| explain(&errno.into(), disabled);
        assert!(of(rustix::io::Errno::PERM, "2").contains("sysctl kernel.io_uring_disabled=0"));
        assert!(of(rustix::io::Errno::PERM, "1").contains("io_uring_group"));
        assert!(of(rustix::io::Errno::PERM, "0").contains("seccomp"));
        assert!(of(rustix::io::Errno::NOSYS, "").contains("5.19"));
        assert!(of(rustix::io::Errno::NOMEM, "0").contains("ulimit -l"));
        assert!(of(rustix::io::Errno::INVAL, "0").contains("5.19"));
    }

    #[test]
    fn shortages_are_reported() {
        let text = "[listen.\"127.0.0.1:1\"]\nconnections = 1000\nbacklog = 9000\n\
                    [[route]]\nmatch = \"/*\"\nrespond = { status = 204 }\n";
        let config = weir_config::parse("test.toml", text).unwrap().0;
        let mut plan = Plan::compile(&config).unwrap();
        let mut found = |open_files, somaxconn| {
            let memory_bytes = Some(1 << 40);
            let grants = Grants {
                open_files,
                memory_bytes,
            };
            plan.fit(&config, &EndpointSets::default(), grants, 1);
            shortages(&plan, &config, somaxconn)
        };
        assert!(found(Some(2_000), Some(9_000)).is_empty());
        assert!(found(None, None).is_empty());
        assert!(found(Some(64), None)[0].contains("64 are too few"));
        let found = found(Some(1_000), Some(4_096));
        assert!(
            found[0].contains("1000 allow") && found[0].contains("the 1000 of"),
            "{found:?}"
        );
        assert!(found[1].contains("cuts a backlog of 9000 to 4096"));
    }

    #[test]
    fn fewer_shared_connections_than_cores_are_reported() {
        let text = "[listen.\"127.0.0.1:1\"]\n[upstream.a]\nservers = [\"h2c://127.0.0.1:2\"]\n\
                    pool = { connections = 4 }\n[upstream.b]\nservers = [\"127.0.0.1:3\"]\n\
                    pool = { connections = 1 }\n[[route]]\nmatch = \"/a\"\nto = \"a\"\n\
                    [[route]]\nmatch = \"/b\"\nto = \"b\"\n";
        let config = weir_config::parse("test.toml", text).unwrap().0;
        let plan = Plan::compile(&config).unwrap();
        let endpoints = EndpointSets::compile(&config, &|_, _| Ok(Vec::new())).unwrap();
        assert_eq!(shared_by_cores(&plan, &endpoints, 4).count(), 0);
        let found: Vec<_> = shared_by_cores(&plan, &endpoints, 5).collect();
        assert!(
            found.len() == 1 && found[0].starts_with("upstream `a`: 4 connections for 5 cores"),
            "{found:?}"
        );
    }

    #[test]
    fn the_process_knows_itself() {
        assert!(resident_bytes().unwrap() > 100_000);
        assert!(cpu_us().is_some());
        assert!(open_files().unwrap() >= 3);
        assert!(open_files_max().unwrap() >= open_files().unwrap());
    }
}
