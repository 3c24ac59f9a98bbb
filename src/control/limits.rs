//! Limits of the control thread and its admin listener.

use std::time::Duration;

/// Connections to the admin listener at once. One more evicts the connection that has been still for longest.
pub(super) const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Copies of a large page of the admin listener that clients may still read when Weir makes another.
pub(super) const PAGES_KEPT: usize = 3;

/// Pages up to this size are made for each client.
pub(super) const PAGE_BYTES_UNSHARED: usize = 256 * 1024;

/// Bytes of a page that a connection gets at once.
pub(super) const PAGE_BYTES_AT_ONCE: usize = 64 * 1024;

/// A copy of a large page is current for this many times as long as making it took, so that making pages takes a
/// twentieth of control's time.
pub(super) const PAGE_COST_SHARE: u32 = 20;

/// How long a client of the admin listener may take to send a request's head.
pub(super) const ADMIN_HEAD: Duration = Duration::from_secs(5);

/// How long one connection to the admin listener may live, also if it reads slowly. Scrapers connect again.
pub(super) const ADMIN_CONNECTION: Duration = Duration::from_secs(60);

/// Pending connections in the kernel's queue of the admin listener.
pub(super) const ADMIN_BACKLOG: u32 = 64;

/// Bytes of a request head that the admin listener and the demo endpoints read.
pub(super) const ADMIN_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a file with the token of the admin API.
pub(super) const ADMIN_TOKEN_BYTES_MAX: u64 = 4 * 1024;

/// Bytes of a request body that the admin API reads.
pub(super) const ADMIN_BODY_BYTES_MAX: usize = 64 * 1024;

/// How long a client of the admin API may take to send a request's body.
pub(super) const ADMIN_BODY: Duration = Duration::from_secs(5);

/// How often the log says that clients of the admin API showed a wrong token.
pub(super) const ADMIN_REFUSALS_LOG: Duration = Duration::from_secs(10);

/// How often control checks whether the cores have ended.
pub(super) const WATCH: Duration = Duration::from_millis(20);

/// How often control checks certificate and key files, and lists of networks. A check is one system call for each file.
pub(super) const CERTIFICATES_WATCH: Duration = Duration::from_secs(2);

/// How long a start or a reload waits for the addresses of all names together. Control looks up a name whose servers are
/// silent for longer again later (resolv.conf waits 5 s for each server by default).
pub(super) const NAMES_PATIENCE: Duration = Duration::from_secs(5);

/// How often control checks which names are due for a lookup, and which sources of endpoints to ask.
pub(super) const NAMES_WATCH: Duration = Duration::from_millis(250);

/// The wait before the first lookup of a missing name. It doubles each time.
pub(super) const NAMES_RETRY: Duration = Duration::from_secs(1);

/// The longest wait between lookups of a missing name.
pub(super) const NAMES_RETRY_MAX: Duration = Duration::from_secs(60);

/// Missing names that `/healthz?verbose` lists; it counts the others.
pub(super) const NAMES_SHOWN_MAX: usize = 32;

/// How often control reads which endpoints fail: two counters for each endpoint and core.
pub(super) const TROUBLE_WATCH: Duration = Duration::from_secs(1);

/// Checks at once of endpoints that are not down. Each that runs has a connection, and memory for an answer.
pub(super) const CHECKS_AT_ONCE_MAX: usize = 1_024;

/// Checks at once of endpoints that are down.
pub(super) const CHECKS_OF_DOWN_AT_ONCE_MAX: usize = 256;

/// How much longer than a check a start waits for the first checks, so that those that time out decide too.
pub(super) const FIRST_CHECKS_GRACE: Duration = Duration::from_millis(50);

/// How often control reads what cores report about endpoints, and ends ejections.
pub(super) const HEALTH_WATCH: Duration = Duration::from_millis(100);

/// Over which time shares of good answers are taken (Envoy `interval` 10 s).
pub(super) const SUCCESS_RATE_WINDOW: Duration = Duration::from_secs(10);

/// The longest ejection, if the first is not longer (Envoy `max_ejection_time` 300 s).
pub(super) const EJECTION_MAX: Duration = Duration::from_secs(300);

/// How long control waits before it sends a command again to a core whose mailbox was full.
pub(super) const MAILBOX_RETRY: Duration = Duration::from_millis(5);

/// How long a core's mailbox may be full before control logs it.
pub(super) const MAILBOX_PATIENCE: Duration = Duration::from_secs(1);

/// How long control waits for cores to obey before it goes on without them.
pub(super) const OBEY_PATIENCE: Duration = Duration::from_secs(5);

/// How long a core may take to answer the watchdog before control logs it.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Notices that may wait for the service manager.
pub(super) const NOTICES_MAX: usize = 32;

/// How long cores may take to end after the grace period before the process ends without them.
pub(super) const STOP: Duration = Duration::from_secs(3);

/// Listeners that the log names at a start or a reload; it counts the others.
pub(super) const LISTENERS_NAMED_MAX: usize = 16;

/// Connections to a demo endpoint at once.
pub(super) const DEMO_CONNECTIONS_MAX: usize = 1_024;

/// The largest body of the demo's `/big`, bytes.
pub(super) const DEMO_BODY_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// The longest wait of the demo's `/slow`.
pub(super) const DEMO_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long control waits for a file system to open or look at a file.
pub(super) const FILE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a reload may take to read, resolve and compile before it fails.
pub(super) const RELOAD_PATIENCE: Duration = Duration::from_secs(120);

/// How long an upgrade waits for the new process to serve, which may have to resolve names and fetch keys first.
pub(super) const UPGRADE_PATIENCE: Duration = Duration::from_secs(60);

/// How long the old process of an upgrade serves its connections before it drains, unless `drain_delay` is longer. Clients
/// over HTTP/1.1 learn of the end from their next answer, so that few send a request on a connection that closes.
pub(super) const UPGRADE_SETTLE: Duration = Duration::from_secs(5);

/// How long control waits until the service manager's socket has taken a notice.
pub(super) const NOTICE_PATIENCE: Duration = Duration::from_secs(1);

/// How long control waits for a document that it fetches, connection and handshake included.
pub(super) const FETCH_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a document that control fetches, and of a file with keys. ALB reads 150 KB of a key set.
pub(super) const FETCH_BYTES_MAX: usize = 256 * 1024;

/// How often control checks whether keys of token issuers are old or wanted.
pub(super) const KEYS_WATCH: Duration = Duration::from_secs(1);

/// How long a start or a reload waits for the keys of issuers that it has none of. They may follow later.
pub(super) const KEYS_PATIENCE: Duration = Duration::from_secs(2);

/// When control fetches keys again whose server does not say how long they stay. Envoy's `cache_duration` of a remote
/// key set is the same.
pub(super) const KEYS_AGE: Duration = Duration::from_secs(600);

/// Bounds of what the server says: often enough for rotation, and no burden for the issuer.
pub(super) const KEYS_AGE_MIN: Duration = Duration::from_secs(60);
/// See [`KEYS_AGE_MIN`].
pub(super) const KEYS_AGE_MAX: Duration = Duration::from_secs(3600);

/// The first wait after keys could not be fetched. It doubles.
pub(super) const KEYS_RETRY: Duration = Duration::from_secs(1);

/// The longest wait after keys could not be fetched.
pub(super) const KEYS_RETRY_MAX: Duration = Duration::from_secs(60);

/// Tokens with unknown keys make control fetch keys at most this often.
pub(super) const KEYS_WANTED_INTERVAL: Duration = Duration::from_secs(10);

/// How often the log repeats that keys cannot be fetched.
pub(super) const KEYS_LOG_INTERVAL: Duration = Duration::from_secs(300);

/// Lookups of names, and requests to sources of endpoints, at a time.
pub(super) const LOOKUPS_AT_ONCE_MAX: usize = 64;

/// Bytes of `/etc/hosts` that Weir reads.
pub(super) const HOSTS_FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// When control looks at the hosts file again for a name that is in it.
pub(super) const HOSTS_FILE_AGE: Duration = Duration::from_secs(5);

/// How often the log repeats that a name or a source of endpoints fails.
pub(super) const DISCOVERY_LOG_INTERVAL: Duration = Duration::from_secs(3600);

/// Bytes of a list of endpoints, in a file or at a URL.
pub(super) const SERVER_LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How often control looks whether a file with endpoints has changed. A look is one system call.
pub(super) const SERVER_FILES_WATCH: Duration = Duration::from_secs(1);

/// How long Consul may wait for a change before it answers. Its own default is five minutes; a reload ends the wait
/// sooner for what the file no longer has.
pub(super) const CONSUL_WAIT: Duration = Duration::from_secs(30);

/// The pause between two queries to Consul, so that a service that changes all the time costs little.
pub(super) const CONSUL_PAUSE: Duration = Duration::from_millis(250);

/// Bytes of Consul's answer. An instance takes one to three KiB.
pub(super) const CONSUL_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of a file with Consul's token.
pub(super) const CONSUL_TOKEN_BYTES_MAX: u64 = 4096;

/// Bytes of a file with the key that marks endpoints in cookies. HMAC-SHA-256 takes 32 bytes as they are, and hashes longer
/// keys (RFC 2104).
pub(super) const STICKY_KEY_BYTES_MIN: usize = 32;
pub(super) const STICKY_KEY_BYTES_MAX: u64 = 4096;

/// How long the lookup of one name may take with all its queries.
pub(super) const LOOKUP_PATIENCE: Duration = Duration::from_secs(30);
