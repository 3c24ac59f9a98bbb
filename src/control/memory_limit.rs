//! How much memory this process may use: the machine's, or the limit of a cgroup.

use std::fs;
use std::path::{Path, PathBuf};

/// The tightest limit in bytes. `root` is `/`, except in tests.
pub(super) fn limit(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let total = meminfo.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?;
        kib.trim().parse::<u64>().ok()
    })?;
    let cgroups = cgroups(root).unwrap_or_default();
    let limits = cgroups.iter().flat_map(|(dir, files)| {
        let read = |file| fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok();
        files.iter().filter_map(read)
    });
    // A cgroup without a limit says "max", or a number larger than all memory.
    Some(limits.fold(total * 1024, u64::min))
}

/// The files with memory limits, by version of cgroups.
const FILES_V2: &[&str] = &["memory.max", "memory.high"];
const FILES_V1: &[&str] = &["memory.limit_in_bytes"];

/// The directories of this process's cgroups and of all their parents, with the files to read in each.
fn cgroups(root: &Path) -> Option<Vec<(PathBuf, &'static [&'static str])>> {
    let own = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    let mut found = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let is_v2 = controllers.is_empty();
        if !is_v2 && !controllers.split(',').any(|name| name == "memory") {
            continue;
        }
        for mount in mounts
            .lines()
            .filter_map(|line| CgroupMount::of(line, is_v2))
        {
            let files = if is_v2 { FILES_V2 } else { FILES_V1 };
            let dirs = mount.dirs(root, path);
            found.extend(dirs.into_iter().map(|dir| (dir, files)));
        }
    }
    Some(found)
}

/// A mounted hierarchy of cgroups.
struct CgroupMount<'a> {
    /// The cgroup that the mount point shows.
    top: &'a str,
    /// The mount point.
    at: &'a str,
}

impl<'a> CgroupMount<'a> {
    /// Reads a line of mountinfo. `None` if it is not a cgroup hierarchy of this version with a memory controller.
    fn of(line: &'a str, is_v2: bool) -> Option<Self> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let is_it = match kind.next()? {
            "cgroup2" => is_v2,
            "cgroup" => !is_v2 && kind.nth(1)?.split(',').any(|name| name == "memory"),
            _ => false,
        };
        let mut fields = mount.split(' ').skip(3);
        let (top, at) = (fields.next()?, fields.next()?);
        is_it.then_some(Self { top, at })
    }

    /// The directories of the cgroup with this path and of its parents, as far as the mount shows them.
    fn dirs(&self, root: &Path, path: &str) -> Vec<PathBuf> {
        let mounted = root.join(self.at.trim_start_matches('/'));
        // In a container the path may begin above the mounted cgroup, or outside.
        let below = path.strip_prefix(self.top.trim_end_matches('/'));
        let names = below.unwrap_or_default().split('/');
        let mut dirs = vec![mounted];
        for name in names.filter(|name| !matches!(*name, "" | "." | "..")) {
            let last = dirs.last().map(|dir| dir.join(name));
            dirs.extend(last);
        }
        dirs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// A machine of 8 GiB with these files.
    fn limit_with(name: &str, files: &[(&str, &str)]) -> Option<u64> {
        let root = std::env::temp_dir().join(format!("weir-memory-{}-{name}", std::process::id()));
        let all = [(
            "proc/meminfo",
            "MemTotal:        8388608 kB\nMemFree: 1 kB\n",
        )];
        for (path, text) in all.iter().chain(files) {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = limit(&root);
        fs::remove_dir_all(&root).unwrap();
        found
    }

    const MOUNT_V2: &str = "30 1 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw\n";
    const MOUNT_V1: &str = "29 1 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
        31 29 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 29 0:31 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n";

    #[test]
    fn without_cgroups_the_machine_is_the_limit() {
        assert_eq!(limit_with("none", &[]), Some(8 * GIB));
    }

    #[test]
    fn version_2_takes_the_tightest_limit_of_all_parents() {
        let files = |max: &'static str, high: &'static str, above: &'static str| {
            [
                ("proc/self/mountinfo", MOUNT_V2),
                ("proc/self/cgroup", "0::/system.slice/weir.service\n"),
                ("sys/fs/cgroup/cgroup.procs", ""),
                ("sys/fs/cgroup/system.slice/memory.max", above),
                ("sys/fs/cgroup/system.slice/weir.service/memory.max", max),
                ("sys/fs/cgroup/system.slice/weir.service/memory.high", high),
            ]
        };
        let limit = |name, max, high, above| limit_with(name, &files(max, high, above));
        assert_eq!(limit("v2-none", "max\n", "max\n", "max\n"), Some(8 * GIB));
        assert_eq!(limit("v2-max", "1073741824\n", "max\n", "max\n"), Some(GIB));
        assert_eq!(
            limit("v2-high", "max\n", "536870912\n", "max\n"),
            Some(GIB / 2)
        );
        assert_eq!(
            limit("v2-above", "max\n", "max\n", "2147483648\n"),
            Some(2 * GIB)
        );
    }

    #[test]
    fn version_1_beside_version_2_limits_too() {
        let found = limit_with(
            "v1",
            &[
                ("proc/self/mountinfo", &format!("{MOUNT_V1}{MOUNT_V2}")),
                (
                    "proc/self/cgroup",
                    "4:memory:/docker/abc\n1:cpu:/docker/abc\n0::/\n",
                ),
                (
                    "sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n",
                ),
                (
                    "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes",
                    "104857600\n",
                ),
            ],
        );
        assert_eq!(found, Some(100 << 20));
    }

    #[test]
    fn a_container_may_see_its_own_cgroup_as_the_root() {
        let mount = "30 1 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        for (name, path) in [
            ("inside", "0::/docker/abc\n"),
            ("namespace", "0::/\n"),
            ("outside", "0::/../x\n"),
        ] {
            let files = [
                ("proc/self/mountinfo", mount),
                ("proc/self/cgroup", path),
                ("sys/fs/cgroup/memory.max", "104857600\n"),
            ];
            assert_eq!(limit_with(name, &files), Some(100 << 20), "{name}");
        }
    }

    #[test]
    fn this_machine_has_a_limit() {
        assert!(limit(Path::new("/")).unwrap() > 1 << 20);
    }
}
