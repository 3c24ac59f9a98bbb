//! Every default and every bound of the configuration, each with its source.
//!
//! Purpose: one place for numbers. The decoder, the JSON schema and the reference read the same
//! constants, so a default can never be documented as one thing and applied as another.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::model::{
    AccessLog, Balance, Cores, Driver, EncodedSlash, ForwardedHeader, LogFormat, Underscores,
};
use crate::tls::{ClientCert, TlsVersion, Verify};

/// A default value together with the reason for choosing it.
#[derive(Debug, Clone, Copy)]
pub struct Preset<T> {
    /// The value that applies when the key is absent.
    pub value: T,
    /// Where the value comes from: a clause, a peer's default, or a judgement.
    pub source: &'static str,
}

const fn preset<T>(value: T, source: &'static str) -> Preset<T> {
    Preset { value, source }
}

const KIB: u64 = 1024;

// The top level.

/// Which cores run the data path.
pub const CORES: Preset<Cores> = preset(Cores::Auto, "an edge box is there for its proxy");
/// What drives each core's io_uring.
pub const DRIVER: Preset<Driver> = preset(Driver::Auto, "the better one where the kernel has it");
/// Where a line about every exchange goes.
pub const ACCESS_LOG: Preset<Option<AccessLog>> =
    preset(None, "HAProxy, Envoy and Caddy log no requests unless told");
/// The form of a log line.
pub const LOG_FORMAT: Preset<LogFormat> = preset(LogFormat::Json, "Caddy: JSON");

/// The field in which trusted peers say who asked.
pub const FORWARDED_HEADER: Preset<ForwardedHeader> = preset(
    ForwardedHeader::XForwardedFor,
    "nginx, HAProxy and cloud load balancers set it",
);
/// What becomes of request fields with underscores in their names.
pub const UNDERSCORES: Preset<Underscores> =
    preset(Underscores::Drop, "nginx; RFC 9110 section 17.10");
/// Fields of a request, and of an answer, that lines of the access log may have.
pub const LOG_HEADERS_MAX: usize = 16;

// Timeouts.

/// Reading a whole request head, from the first moment a byte could come.
pub const HEAD: Preset<Duration> = preset(
    Duration::from_secs(10),
    "tighter than hyper's 30 s and nginx's 60 s; Traefik's whole request 60 s",
);
/// Silence between requests, and in an upgraded connection.
pub const IDLE: Preset<Duration> =
    preset(Duration::from_secs(75), "nginx `keepalive_timeout` 75 s");
/// Opening a connection to an endpoint.
pub const CONNECT: Preset<Duration> = preset(
    Duration::from_secs(2),
    "one lost SYN (1 s, RFC 6298) plus a second; Envoy 5 s, nginx 60 s",
);
/// Waiting for a free connection to an endpoint.
pub const QUEUE: Preset<Duration> = preset(
    Duration::from_secs(10),
    "between HAProxy, where it is `timeout connect` unless set, and nginx `queue` 60 s",
);
/// From the end of the request to the first byte of the answer.
pub const FIRST_BYTE: Preset<Duration> =
    preset(Duration::from_secs(60), "nginx `proxy_read_timeout` 60 s");
/// Silence in the middle of a body.
pub const BODY_STALL: Preset<Duration> = preset(
    Duration::from_secs(30),
    "half of nginx `client_body_timeout` 60 s",
);
/// Silence of a pooled connection to an endpoint.
pub const UPSTREAM_IDLE: Preset<Duration> = preset(
    Duration::from_secs(60),
    "nginx upstream `keepalive_timeout` 60 s",
);
/// A whole exchange.
pub const TOTAL: Preset<Option<Duration>> =
    preset(None, "long downloads and event streams are legitimate");
/// Serving on after a request to stop.
pub const DRAIN_DELAY: Preset<Duration> = preset(
    Duration::ZERO,
    "only who stands behind a load balancer needs it; Kubernetes probes every 10 s",
);
/// Finishing exchanges at shutdown.
pub const GRACE: Preset<Duration> = preset(
    Duration::from_secs(30),
    "Kubernetes' default termination grace of 30 s",
);
/// The longest duration a file may ask for.
pub const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

// Limits.

/// A request or response head, bytes.
pub const HEAD_BYTES: Preset<u64> = preset(16 * KIB, "HAProxy `tune.bufsize` 16 KiB");
/// The largest head limit a file may set, bytes.
pub const HEAD_BYTES_MAX: u64 = 64 * KIB;
/// The smallest head limit a file may set, bytes.
pub const HEAD_BYTES_MIN: u64 = KIB;
/// Fields in one head.
pub const FIELDS: Preset<u32> = preset(100, "Envoy `max_headers_count` 100; hyper 100");
/// The largest field limit a file may set.
pub const FIELDS_MAX: u32 = 1_000;
/// A request target, bytes.
pub const TARGET_BYTES: Preset<u64> = preset(
    8 * KIB,
    "RFC 9110 section 4.1 asks for at least 8,000 octets; nginx's 8k line buffer",
);
/// A request body, bytes.
pub const BODY_BYTES: Preset<Option<u64>> = preset(
    None,
    "bodies stream, so their length costs no memory; HAProxy and Envoy have none",
);
/// The slowest upload that is still served, bytes a second.
pub const BODY_RATE: Preset<Option<u64>> =
    preset(Some(240), "Kestrel `MinRequestBodyDataRate` 240 B/s");
/// Connections of one listener, all cores together.
pub const CONNECTIONS: Preset<Option<u32>> = preset(
    None,
    "open files, with a reserve for endpoints; memory, at 64 KiB for each. nginx and HAProxy have you count yourself",
);
/// Connections from one client address to one listener.
pub const CONNECTIONS_PER_CLIENT: Preset<u32> =
    preset(16_384, "a quarter of 65,536; no more than `connections`");
/// Bytes of messages on their way, by core.
pub const MEMORY_PER_CORE: Preset<Option<u64>> = preset(
    None,
    "half of the memory, at most 1 GiB a core: the rest is the kernel's, for sockets, and everybody else's",
);
/// The least memory for messages: what a few busy connections hold.
pub const MEMORY_MIN: u64 = 1024 * KIB;
/// The largest connection count a file may set.
pub const CONNECTIONS_MAX: u32 = 10_000_000;
/// Pending connections in the kernel's accept queue.
pub const BACKLOG: Preset<u32> = preset(4_096, "Linux `net.core.somaxconn` 4,096");
/// The largest accept queue a file may ask for.
pub const BACKLOG_MAX: u32 = 65_535;

// HTTP/2.

/// Whether a listener speaks HTTP/2 with clients that do.
pub const LISTEN_HTTP2: Preset<bool> =
    preset(true, "HAProxy, Envoy and Caddy speak both; clients choose");
/// Whether answers carry the request id.
pub const LISTEN_REQUEST_ID: Preset<bool> = preset(
    true,
    "who reports an error can name the line of the log; GitHub and Stripe do so",
);
/// Requests at once on one connection.
pub const H2_STREAMS: Preset<u32> = preset(
    100,
    "the least that RFC 9113 section 6.5.2 advises; HAProxy 100",
);
/// The most streams a file may allow.
pub const H2_STREAMS_MAX: u32 = 10_000;
/// Bytes on one stream.
pub const H2_STREAM_WINDOW: Preset<u64> = preset(64 * KIB, "RFC 9113's own 65,535; grows with use");
/// Bytes on one connection.
pub const H2_CONNECTION_WINDOW: Preset<u64> =
    preset(KIB * KIB, "sixteen streams' worth; hyper 1 MiB");
/// The smallest window a file may ask for: clients may use so much before they know better.
pub const H2_WINDOW_MIN: u64 = 65_535;
/// The largest window a file may ask for.
pub const H2_WINDOW_MAX: u64 = 1 << 30;
/// Requests given up in ten seconds.
pub const H2_RESETS: Preset<u32> = preset(
    100,
    "as many as streams may be open; Envoy and Go reset the connection at like figures",
);
/// SETTINGS frames in ten seconds.
pub const H2_SETTINGS: Preset<u32> = preset(50, "a client changes them once or twice");
/// PING frames in ten seconds.
pub const H2_PINGS: Preset<u32> = preset(100, "gRPC clients ask once in ten seconds");
/// Empty DATA frames in ten seconds.
pub const H2_EMPTY_DATA: Preset<u32> = preset(100, "no client needs one that ends nothing");
/// CONTINUATION frames of one head.
pub const H2_CONTINUATIONS: Preset<u32> = preset(
    20,
    "a head of 16 KiB needs none; Envoy has limits by size alone",
);
/// The most frames of a kind a file may allow.
pub const H2_FRAMES_MAX: u32 = 1_000_000;

// Upstreams.

/// Connections kept open for reuse, by endpoint and core.
pub const POOL_IDLE_PER_CORE: Preset<u32> = preset(
    1_024,
    "as many as there may be: Envoy and HAProxy close none before its time either",
);
/// Connections to one endpoint, all cores together.
pub const POOL_CONNECTIONS: Preset<u32> =
    preset(1_024, "Envoy circuit breaker `max_connections` 1,024");
/// Requests of one upstream that wait for a connection, all cores together.
pub const POOL_PENDING: Preset<u32> =
    preset(1_024, "Envoy circuit breaker `max_pending_requests` 1,024");
/// The weight of an endpoint that does not name one.
pub const WEIGHT: Preset<NonZeroU32> = preset(NonZeroU32::MIN, "nginx and HAProxy: 1");
/// The largest weight, so that sums of weights stay in 32 bits.
pub const WEIGHT_MAX: u32 = 65_535;
/// Further attempts after a failed one; none at all, not even at the next endpoint, when off.
pub const RETRIES: Preset<Option<u32>> = preset(Some(1), "Envoy `num_retries` 1");
/// The largest number of further attempts.
pub const RETRIES_MAX: u32 = 10;
/// Share of live exchanges that may be retries, percent.
pub const RETRY_BUDGET_PERCENT: Preset<u32> = preset(20, "Envoy and Finagle retry budget 20 %");
/// Retries that the budget always allows at once.
pub const RETRY_BUDGET_FLOOR: Preset<u32> = preset(3, "Envoy `min_retry_concurrency` 3");
/// The mean wait before a retry.
pub const RETRY_BACKOFF: Preset<Duration> =
    preset(Duration::from_millis(25), "Envoy base interval 25 ms");
/// The deadline of one attempt.
pub const RETRY_PER_TRY: Preset<Option<Duration>> =
    preset(None, "`connect` and `first_byte` bound an attempt already");

// TLS.

/// The lowest version that is spoken.
pub const TLS_MIN_VERSION: Preset<TlsVersion> = preset(
    TlsVersion::V12,
    "RFC 9325 section 3.1.1; nginx, HAProxy and Envoy: 1.2",
);
/// Whether clients must show a certificate, where they may.
pub const CLIENT_CERT: Preset<ClientCert> = preset(
    ClientCert::Required,
    "who names an authority for clients wants their certificates",
);
/// Whether endpoints' certificates are looked at.
pub const TLS_VERIFY: Preset<Verify> = preset(
    Verify::On,
    "TLS that is not verified protects from nobody on the way; nginx `proxy_ssl_verify off`",
);
/// Where plain requests are sent: no redirect.
pub const REDIRECT_HTTPS: Preset<Option<u16>> = preset(None, "a listener does what its routes say");

/// How an endpoint is chosen.
pub const BALANCE: Preset<Balance> = preset(Balance::RoundRobin, "nginx, Envoy and Traefik");

/// What becomes of encoded slashes.
pub const ENCODED_SLASH: Preset<EncodedSlash> = preset(
    EncodedSlash::Auto,
    "npm, GitLab and S3 need them; endpoints that decode them must not see another route's path",
);

// Answers of Weir itself.

/// The status of a redirect.
pub const REDIRECT_STATUS: Preset<u16> = preset(
    307,
    "RFC 9110 section 15.4.8: keeps the method, and a mistake is not cached for ever",
);
/// The status of a fixed answer.
pub const RESPOND_STATUS: Preset<u32> = preset(200, "nginx `return`, Caddy `respond`");
/// The media type of a fixed answer's body.
pub const RESPOND_CONTENT_TYPE: Preset<Cow<'static, str>> = preset(
    Cow::Borrowed("text/plain; charset=utf-8"),
    "the only type that needs no guess",
);

// Sizes of the file itself. They bound what a bad or hostile file can cost.

/// The largest file, bytes.
pub const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Diagnostics kept; the rest is counted.
pub const DIAGNOSTICS_MAX: usize = 100;
/// A fixed answer's body, bytes.
pub const RESPOND_BODY_BYTES_MAX: usize = 64 * 1024;
/// A unix socket path, bytes: `sun_path` of unix(7) with its terminating NUL.
pub const UNIX_PATH_BYTES_MAX: usize = 107;
/// Host patterns of one route, and path patterns.
pub const PATTERNS_MAX: usize = 256;
/// Endpoints of one upstream.
pub const ENDPOINTS_MAX: usize = 4_096;
/// Data cores.
pub const CORES_MAX: u32 = 1_024;

const _: () = {
    assert!(TARGET_BYTES.value < HEAD_BYTES.value);
    assert!(HEAD_BYTES.value <= HEAD_BYTES_MAX && HEAD_BYTES_MIN < HEAD_BYTES.value);
    assert!(FIELDS.value <= FIELDS_MAX);
    assert!(CONNECTIONS_PER_CLIENT.value <= CONNECTIONS_MAX);
    assert!(BACKLOG.value <= BACKLOG_MAX);
    assert!(matches!(RETRIES.value, Some(0..=RETRIES_MAX)));
};
