//! How many connections and how much memory the cores may use, from the limits of the process and the machine.

use std::fmt::Write as _;

use weir_config::Config;
use weir_config::limits::{CONNECTIONS_MAX, MEMORY_MIN};

use crate::limits::{
    ACCEPTS_POSTED, CONNECTION_BYTES, CONNECTIONS_MIN, CONTROL_FILES, CORE_FILES,
    MEMORY_PER_CORE_MAX, PIPES_MAX,
};

/// The limits of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Open files; `None` if there is no limit.
    pub open_files: Option<u64>,
    /// The memory of the machine, or of the tightest cgroup around this process.
    pub memory_bytes: Option<u64>,
}

/// What the cores may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Concurrent client connections, over all cores and listeners, with the endpoints that were known when the plan
    /// was compiled. Weir accepts no more until others end.
    pub connections_max: u32,
    /// Bytes that connections and messages in transit may take on a core.
    pub memory_per_core_max: usize,
    /// Pipes that a core may have.
    pub pipes_per_core_max: usize,
    /// What limits `connections_max`.
    bottleneck: Bottleneck,
    /// Open files that are left for connections, if their number is limited.
    files_left: Option<u64>,
    /// Connections that memory allows, if its size is known and some listener has no limit in the file.
    connections_by_memory: Option<u64>,
    grants: Grants,
    /// How many cores share the memory; `None` if the file sets the memory of each.
    memory_shared_by: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bottleneck {
    OpenFiles,
    Memory,
    Nothing,
}

impl Capacity {
    /// The capacity that the file allows on a machine without limits.
    pub(super) fn unbounded(config: &Config) -> Self {
        Self {
            connections_max: u32::MAX,
            memory_per_core_max: written(config).unwrap_or(MEMORY_PER_CORE_MAX),
            pipes_per_core_max: PIPES_MAX,
            bottleneck: Bottleneck::Nothing,
            files_left: None,
            connections_by_memory: None,
            grants: Grants::default(),
            memory_shared_by: None,
        }
    }

    /// The capacity that `grants` allow this many cores if the pools allow `pooled` connections to endpoints.
    pub(super) fn of(config: &Config, pooled: u64, grants: Grants, cores: usize) -> Self {
        let mut capacity = Self::unbounded(config);
        capacity.grants = grants;
        let cores = cores.max(1) as u64;
        if let Some(files) = grants.open_files {
            // A pipe takes two files. A body that gets no pipe is copied.
            let pipes = (files / 16 / 2 / cores).min(PIPES_MAX as u64);
            capacity.pipes_per_core_max = pipes as usize;
            // Each core has its own listening sockets, and each posted accept may bring one more connection.
            let sockets = (config.listeners.len() * (1 + ACCEPTS_POSTED)) as u64 * cores;
            let own = CONTROL_FILES + cores * (CORE_FILES + 2 * pipes);
            let reserved = own + sockets.min(files / 8);
            capacity.files_left = Some(files.saturating_sub(reserved));
        }
        if let Some(memory) = grants.memory_bytes {
            if config.limits.memory_per_core.is_none() {
                let share = (memory / 2 / cores).max(MEMORY_MIN);
                let share = usize::try_from(share).unwrap_or(usize::MAX);
                capacity.memory_per_core_max = share.min(MEMORY_PER_CORE_MAX);
                capacity.memory_shared_by = Some(cores as usize);
            }
            // A limit in the file is the operator's choice, whatever the memory.
            let is_auto = |each| config.connections_of(each).is_none();
            if config.listeners.iter().any(is_auto) {
                capacity.connections_by_memory = Some(memory / CONNECTION_BYTES);
            }
        }
        (capacity.connections_max, capacity.bottleneck) = capacity.bound(pooled);
        capacity
    }

    /// How many connections clients may have if the pools allow `pooled` connections to endpoints.
    pub(super) fn connections_with(&self, pooled: u64) -> u32 {
        self.bound(pooled).0
    }

    fn bound(&self, pooled: u64) -> (u32, Bottleneck) {
        // Each client connection may need one to an endpoint, up to what the pools allow.
        let by_files = self
            .files_left
            .map(|left| (left / 2).max(left.saturating_sub(pooled)));
        let bounds = [
            (by_files, Bottleneck::OpenFiles),
            (self.connections_by_memory, Bottleneck::Memory),
        ];
        let mut tightest = (u32::MAX, Bottleneck::Nothing);
        for (connections, bottleneck) in bounds {
            let Some(connections) = connections else {
                continue;
            };
            let connections = connections.clamp(CONNECTIONS_MIN, u64::from(CONNECTIONS_MAX)) as u32;
            if connections < tightest.0 {
                tightest = (connections, bottleneck);
            }
        }
        tightest
    }

    /// Whether the limits of this machine are known.
    pub fn is_known(&self) -> bool {
        self.grants != Grants::default()
    }

    /// The limit of open files, if it allows fewer connections than [`CONNECTIONS_MIN`].
    pub fn is_starved(&self) -> Option<u64> {
        let is_least = u64::from(self.connections_max) == CONNECTIONS_MIN;
        let files = self.grants.open_files?;
        (self.bottleneck == Bottleneck::OpenFiles && is_least).then_some(files)
    }

    /// The limit of open files, if it allows fewer connections than these.
    pub fn is_below(&self, connections: u64) -> Option<u64> {
        let files = self.grants.open_files?;
        (self.bottleneck == Bottleneck::OpenFiles && u64::from(self.connections_max) < connections)
            .then_some(files)
    }
}

impl std::fmt::Display for Capacity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        let Grants {
            open_files,
            memory_bytes,
        } = self.grants;
        let connections = self.connections_max;
        let _ = match (self.bottleneck, open_files, memory_bytes) {
            (Bottleneck::OpenFiles, Some(files), _) => write!(
                text,
                "{connections} connections, limited by {files} open files"
            ),
            (Bottleneck::Memory, _, Some(memory)) => write!(
                text,
                "{connections} connections, limited by {} of memory",
                show(memory)
            ),
            _ => write!(text, "as many connections as the listeners allow"),
        };
        let per_core = show(self.memory_per_core_max as u64);
        let _ = write!(text, "; {per_core} of memory per core");
        if let (Some(cores), Some(memory)) = (self.memory_shared_by, memory_bytes) {
            let memory = show(memory);
            let _ = match cores {
                1 => write!(text, " (1 core, {memory} in all)"),
                _ => write!(text, " ({cores} cores share {memory})"),
            };
        }
        f.write_str(&text)
    }
}

/// A size in whole MiB.
fn show(bytes: u64) -> String {
    weir_config::show_size(bytes >> 20 << 20)
}

fn written(config: &Config) -> Option<usize> {
    let bytes = config.limits.memory_per_core?;
    Some(usize::try_from(bytes).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use weir_config::limits::CONNECTIONS_PER_CLIENT;

    use super::*;
    use crate::plan::{EndpointSets, Plan};

    const MIB: u64 = 1 << 20;

    fn capacity(text: &str, files: u64, memory: u64, cores: usize) -> (Capacity, Plan) {
        let text = format!("[[route]]\nmatch = \"/*\"\nrespond = \"here\"\n{text}");
        let config = weir_config::parse("test.toml", &text).unwrap().0;
        let mut plan = Plan::compile(&config).unwrap();
        let endpoints = EndpointSets::compile(&config, &|_, _| Ok(Vec::new())).unwrap();
        let grants = Grants {
            open_files: Some(files),
            memory_bytes: Some(memory),
        };
        plan.fit(&config, &endpoints, grants, cores);
        (plan.capacity.clone(), plan)
    }

    const LISTEN: &str = "[listen.\"127.0.0.1:80\"]\n";

    #[test]
    fn descriptors_are_reserved_for_endpoints() {
        let with = |endpoints: usize, files| {
            let servers: Vec<_> = (0..endpoints).map(|n| format!("10.0.0.{n}:80")).collect();
            let text = format!("{LISTEN}[upstream.a]\nservers = {servers:?}\n");
            let text = if endpoints > 0 {
                text
            } else {
                LISTEN.to_owned()
            };
            u64::from(capacity(&text, files, u64::MAX, 4).0.connections_max)
        };
        for files in [1_024, 4_096, 20_000, 65_536, 1 << 20] {
            let [none, one, many] = [0, 1, 100].map(|endpoints| with(endpoints, files));
            assert!(none < files && none > files / 2, "{none} of {files}");
            // One endpoint has no more than 1,024 connections.
            assert!(
                one >= none.saturating_sub(1_024).max(none / 2),
                "{one} of {files}"
            );
            assert!(many >= none / 2 && many <= one, "{many} of {files}");
        }
        assert_eq!(
            with(0, 10),
            CONNECTIONS_MIN,
            "a few are served all the same"
        );
    }

    #[test]
    fn cores_share_memory_and_memory_limits_connections() {
        let (small, plan) = capacity(LISTEN, 1 << 20, 100 * MIB, 2);
        assert_eq!(small.memory_per_core_max as u64, 25 * MIB);
        assert_eq!(small.connections_max, 1_600);
        assert_eq!(
            plan.listeners[0].connections_max,
            u32::MAX,
            "none of its own"
        );
        assert_eq!(
            plan.listeners[0].connections_per_client_max, CONNECTIONS_PER_CLIENT.value,
            "who is all of the clients waits like them, and is not refused"
        );
        assert!(
            small
                .to_string()
                .contains("1600 connections, limited by 100MiB")
        );
        assert!(small.to_string().ends_with(" (2 cores share 100MiB)"));
        let (single, _) = capacity(LISTEN, 1 << 20, 100 * MIB, 1);
        assert!(single.to_string().ends_with(" (1 core, 100MiB in all)"));
        let (large, _) = capacity(LISTEN, 1 << 20, 1 << 40, 2);
        assert_eq!(large.memory_per_core_max, MEMORY_PER_CORE_MAX);
        let (tiny, _) = capacity(LISTEN, 1 << 20, 8 * MIB, 64);
        assert_eq!(tiny.memory_per_core_max as u64, MEMORY_MIN);
    }

    #[test]
    fn limits_in_the_file_win_over_the_machine() {
        let text = format!("{LISTEN}connections = 5_000\n[limits]\nmemory_per_core = \"64MiB\"\n");
        let (capacity, plan) = capacity(&text, 1 << 20, 100 * MIB, 2);
        assert_eq!(plan.listeners[0].connections_max, 5_000);
        assert_eq!(capacity.memory_per_core_max as u64, 64 * MIB);
        assert!(capacity.connections_max > 5_000);
        assert_eq!(capacity.is_below(5_000), None);
    }
}
