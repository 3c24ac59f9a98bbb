//! `limits`: at the top level and of a route.

use toml::de::DeTable;

use crate::decode::amounts::{ByteRateText, SizeText};
use crate::decode::decoder::Decoder;
use crate::decode::kinds::{Count, OrAuto, OrOff, TableScope};
use crate::decode::preset::{Preset, preset};
use crate::decode::reader::find_span;
use crate::decode::table::{frame, layer, table};
use crate::text::diagnostic::Code;
use crate::text::source::Span;

const KIB: u64 = 1024;
const HEAD_BYTES_MIN: u64 = KIB;
const HEAD_BYTES_MAX: u64 = 64 * KIB;
const FIELDS_MAX: u32 = 1_000;
const BYTES_MAX: u64 = i64::MAX as u64;

/// The most connections that a file may allow.
pub const CONNECTIONS_MAX: u32 = 10_000_000;
/// The least memory that a file may allow a core: what a few busy connections hold.
pub const MEMORY_MIN: u64 = 1024 * KIB;
const KEYS_MIN: u32 = 1_000;
const KEYS_MAX: u32 = 100_000_000;
/// Connections from one client address to one listener.
pub const CONNECTIONS_PER_CLIENT: Preset<u32> =
    preset(16_384, "a quarter of 65,536; no more than `connections`");

layer! {
    /// Limits of size, number and rate.
    Limits, LimitsPatch, "limits", "[limits]" {
        /// Size of a request head or a response head. Raise it for clients with large cookies or tokens.
        head_bytes: u64 = "head" as SizeText<HEAD_BYTES_MIN, HEAD_BYTES_MAX>,
            preset(16 * KIB, "HAProxy `tune.bufsize` 16 KiB");
        /// Number of fields in one head.
        fields: u32 = "fields" as Count<1, FIELDS_MAX>,
            preset(100, "Envoy `max_headers_count` 100; hyper 100");
        /// Length of a request target, which is a part of the head. Raise it for long queries.
        target_bytes: u64 = "target" as SizeText<1, HEAD_BYTES_MAX>,
            preset(
                8 * KIB,
                "RFC 9110 section 4.1 asks for at least 8,000 octets; nginx's 8k line buffer",
            );
        /// Size of a request body; `"off"` for no limit. Set it to protect endpoints that buffer bodies: Weir does not.
        body_bytes: Option<u64> = "body" as OrOff<SizeText<0, BYTES_MAX>>,
            preset(
                None,
                "bodies stream, so their length costs no memory; HAProxy and Envoy have none",
            );
        /// The lowest rate at which a client may send a request body before the answer begins, and read an answer that
        /// waits for it; `"off"` for any. Lower it for clients on very slow links.
        body_rate: Option<u64> = "body_rate" as OrOff<ByteRateText>,
            preset(Some(240), "Kestrel `MinRequestBodyDataRate` 240 B/s");
        /// Connections of one listener, over all cores; one more gets 503. `"auto"` allows as many as open files and
        /// memory do, and further clients wait in the kernel's accept queue. Set it to turn clients away earlier.
        connections: Option<u32> = "connections" as OrAuto<Count<1, CONNECTIONS_MAX>>,
            preset(
                None,
                "open files, with a reserve for endpoints; memory, at 64 KiB for each. nginx and HAProxy leave the counting to you",
            );
        /// Connections from one client address to one listener, over all cores; one more gets 429. Raise it if many
        /// clients come from one address (NAT, a load balancer).
        connections_per_client: u32 = "connections_per_client" as Count<1, CONNECTIONS_MAX>,
            CONNECTIONS_PER_CLIENT;
        /// Memory of one core for connections and for messages in transit. Above it, the core ends the connections that
        /// hold most. `"auto"` is half of what the machine and the cgroup allow, divided by the cores.
        memory_per_core: Option<u64> = "memory_per_core" as OrAuto<SizeText<MEMORY_MIN, BYTES_MAX>>,
            preset(
                None,
                "half of the memory, at most 1 GiB a core: the rest is for the kernel's sockets and for other programs",
            );
        /// Keys that all `limit` and `concurrency` together count at once. If there are more, new keys share one bucket
        /// of their limit. Each takes at most 96 bytes, once it is used. A change takes effect at the next start.
        keys: u32 = "keys" as Count<KEYS_MIN, KEYS_MAX>,
            preset(1_000_000, "96 MB at most, if there are limits at all");
    }
}

/// Limits of a route.
pub(crate) struct InRoute;

impl TableScope for InRoute {
    const NO_EFFECT: &'static [(&'static str, &'static str)] = &[
        ("head", HEAD_BEFORE_ROUTE),
        ("fields", HEAD_BEFORE_ROUTE),
        ("target", HEAD_BEFORE_ROUTE),
        ("connections", OF_LISTENERS),
        ("connections_per_client", OF_LISTENERS),
        (
            "keys",
            "all limits share one table: set it at the top level",
        ),
        (
            "memory_per_core",
            "all routes of a core share its memory: set it at the top level",
        ),
    ];
}

const HEAD_BEFORE_ROUTE: &str =
    "Weir reads the head before it knows the route: set it at the top level";
const OF_LISTENERS: &str = "connections belong to the listener: set it there or at the top level";

/// The top level's limits. Reports each limit that another one makes unreachable.
pub(crate) fn check_limits(
    patch: &LimitsPatch,
    root: &DeTable<'_>,
    cx: &mut Decoder<'_>,
) -> Limits {
    let mut limits = Limits::default().patched(patch);
    if patch.target_bytes.is_none() {
        limits.target_bytes = limits.target_bytes.min(limits.head_bytes);
    }
    if limits.target_bytes > limits.head_bytes {
        let span = find_span(root, &["limits", "target"]).unwrap_or_default();
        let message =
            "`limits.target` is never reached: `limits.head`, which includes it, is lower";
        cx.error(Code::Unreachable, span, message)
            .help("raise `limits.head`, or lower `limits.target`");
    }
    let Some(connections) = limits.connections else {
        return limits;
    };
    if patch.connections_per_client.is_none() {
        limits.connections_per_client = limits.connections_per_client.min(connections);
    }
    if limits.connections_per_client > connections {
        let span = find_span(root, &["limits", "connections_per_client"]).unwrap_or_default();
        report_unreachable_per_client(span, connections, cx);
    }
    limits
}

/// Reports a `connections_per_client`, at `span`, above the `connections` of the listener.
pub(crate) fn report_unreachable_per_client(span: Span, connections: u32, cx: &mut Decoder<'_>) {
    let message = format!(
        "`connections_per_client` is never reached: the listener stops at {connections} connections"
    );
    cx.error(Code::Unreachable, span, message)
        .help("lower `connections_per_client`, or raise `connections`");
}
