//! Bounds of the control thread and its admin listener.

use std::time::Duration;

/// Connections to the admin listener at once; one more ends the one that has been still for longest.
pub(super) const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Copies of a large page of the admin listener that clients may still read while another one is made.
pub(super) const PAGES_KEPT: usize = 3;

/// Bytes of a page that is made anew for each client.
pub(super) const PAGE_BYTES_UNSHARED: usize = 256 * 1024;

/// Bytes of a page that are handed to a connection at once.
pub(super) const PAGE_BYTES_AT_ONCE: usize = 64 * 1024;

/// A large page serves for so many times as long as it took to make: making it takes a twentieth of control's time.
pub(super) const PAGE_COST_SHARE: u32 = 20;

/// How long a client of the admin listener may take for a request's head.
pub(super) const ADMIN_HEAD: Duration = Duration::from_secs(5);

/// How long one connection to the admin listener may live, reading slowly included. Scrapers come back.
pub(super) const ADMIN_CONNECTION: Duration = Duration::from_secs(60);

/// Pending connections in the kernel's queue of the admin listener.
pub(super) const ADMIN_BACKLOG: u32 = 64;

/// Bytes of a request head that the admin listener and the demo endpoints read.
pub(super) const ADMIN_HEAD_BYTES_MAX: usize = 16 * 1024;

/// How often control looks whether the cores have ended.
pub(super) const WATCH: Duration = Duration::from_millis(20);

/// How often files of certificates and keys are looked at. A look is a system call a file.
pub(super) const CERTIFICATES_WATCH: Duration = Duration::from_secs(2);

/// How long a start or a reload waits for the addresses of names, all together. One whose servers are silent for longer
/// (resolv.conf waits 5 s for each by default) is looked up again later.
pub(super) const NAMES_PATIENCE: Duration = Duration::from_secs(5);

/// Names that are looked up at a time, each by a thread.
pub(super) const NAMES_AT_ONCE_MAX: usize = 16;

/// How often names that were not found are looked through for those that are due.
pub(super) const NAMES_WATCH: Duration = Duration::from_millis(250);

/// The wait before a name is looked up again; it doubles each time.
pub(super) const NAMES_RETRY: Duration = Duration::from_secs(1);

/// How long that wait becomes.
pub(super) const NAMES_RETRY_MAX: Duration = Duration::from_secs(60);

/// Names that `/healthz?verbose` shows; the rest is counted.
pub(super) const NAMES_SHOWN_MAX: usize = 32;

/// How often control looks which endpoints fail. A look reads two counters an endpoint and core.
pub(super) const TROUBLE_WATCH: Duration = Duration::from_secs(1);

/// How long control waits before it offers a command again to a core whose mailbox is full.
pub(super) const MAILBOX_RETRY: Duration = Duration::from_millis(5);

/// How long a core may leave its mailbox full before that is said.
pub(super) const MAILBOX_PATIENCE: Duration = Duration::from_secs(1);

/// How long a change waits for cores to take it before it is told as done all the same.
pub(super) const OBEY_PATIENCE: Duration = Duration::from_secs(5);

/// How long a core may take to answer the watchdog before that is said.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Notices that wait for the service manager at most.
pub(super) const NOTICES_MAX: usize = 32;

/// How long cores may take to end once the grace period is over, before the process ends without them.
pub(super) const STOP: Duration = Duration::from_secs(3);

/// Listeners that are named in the log when Weir starts or reloads; the rest is counted.
pub(super) const LISTENERS_NAMED_MAX: usize = 16;

/// Connections to a demo endpoint at once.
pub(super) const DEMO_CONNECTIONS_MAX: usize = 1_024;

/// The largest body of the demo's `/big`, bytes.
pub(super) const DEMO_BODY_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// The longest wait of the demo's `/slow`.
pub(super) const DEMO_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long control waits for a file system to open or look at a file.
pub(super) const FILE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a reload may read, resolve and compile before it has failed.
pub(super) const RELOAD_PATIENCE: Duration = Duration::from_secs(120);
