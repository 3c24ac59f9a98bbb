//! `limits`, at the top level and of routes.

use toml::de::DeTable;

use crate::decode::amounts::{ByteRateText, SizeText};
use crate::decode::decoder::Decoder;
use crate::decode::kinds::{Count, OrAuto, OrOff};
use crate::decode::preset::{Preset, preset};
use crate::decode::reader::find;
use crate::decode::table::{frame, layer, table};
use crate::text::diagnostic::Code;
use crate::text::source::Span;

pub(crate) const KIB: u64 = 1024;

/// A request or response head, bytes.
const HEAD_BYTES: Preset<u64> = preset(16 * KIB, "HAProxy `tune.bufsize` 16 KiB");

/// The largest head limit a file may set, bytes.
const HEAD_BYTES_MAX: u64 = 64 * KIB;

/// The smallest head limit a file may set, bytes.
const HEAD_BYTES_MIN: u64 = KIB;

/// Fields in one head.
const FIELDS: Preset<u32> = preset(100, "Envoy `max_headers_count` 100; hyper 100");

/// The largest field limit a file may set.
const FIELDS_MAX: u32 = 1_000;

/// A request target, bytes.
const TARGET_BYTES: Preset<u64> = preset(
    8 * KIB,
    "RFC 9110 section 4.1 asks for at least 8,000 octets; nginx's 8k line buffer",
);

/// A request body, bytes.
const BODY_BYTES: Preset<Option<u64>> = preset(
    None,
    "bodies stream, so their length costs no memory; HAProxy and Envoy have none",
);

/// The slowest upload that is still served, bytes a second.
const BODY_RATE: Preset<Option<u64>> =
    preset(Some(240), "Kestrel `MinRequestBodyDataRate` 240 B/s");

/// Connections of one listener, all cores together.
const CONNECTIONS: Preset<Option<u32>> = preset(
    None,
    "open files, with a reserve for endpoints; memory, at 64 KiB for each. nginx and HAProxy have you count yourself",
);

/// Connections from one client address to one listener.
pub const CONNECTIONS_PER_CLIENT: Preset<u32> =
    preset(16_384, "a quarter of 65,536; no more than `connections`");

/// Bytes of messages on their way, by core.
const MEMORY_PER_CORE: Preset<Option<u64>> = preset(
    None,
    "half of the memory, at most 1 GiB a core: the rest is the kernel's, for sockets, and everybody else's",
);

/// The least memory for messages: what a few busy connections hold.
pub const MEMORY_MIN: u64 = 1024 * KIB;

/// The largest connection count a file may set.
pub const CONNECTIONS_MAX: u32 = 10_000_000;

const BYTES_MAX: u64 = i64::MAX as u64;

layer! {
    /// Limits of size, number and rate.
    Limits, LimitsPatch, "limits", "[limits]" {
        /// A request or response head, bytes.
        head_bytes: u64 = "head" as SizeText<HEAD_BYTES_MIN, HEAD_BYTES_MAX>, HEAD_BYTES;
        /// Fields in one head.
        fields: u32 = "fields" as Count<1, FIELDS_MAX>, FIELDS;
        /// A request target, bytes.
        target_bytes: u64 = "target" as SizeText<1, HEAD_BYTES_MAX>, TARGET_BYTES;
        /// A request body, bytes; unlimited when off.
        body_bytes: Option<u64> = "body" as OrOff<SizeText<0, BYTES_MAX>>, BODY_BYTES;
        /// The slowest upload that is served while its answer has not begun, and the slowest reading of an answer, bytes a
        /// second; any when off.
        body_rate: Option<u64> = "body_rate" as OrOff<ByteRateText>, BODY_RATE;
        /// Connections of one listener, all cores together; one more gets 503. With "auto", as many as open files and
        /// memory allow: then clients wait in the kernel's accept queue.
        connections: Option<u32> = "connections" as OrAuto<Count<1, CONNECTIONS_MAX>>, CONNECTIONS;
        /// Connections from one client address to one listener, all cores together.
        connections_per_client: u32 = "connections_per_client" as Count<1, CONNECTIONS_MAX>, CONNECTIONS_PER_CLIENT;
        /// Memory of connections and of messages on their way, by core. Beyond, the connections that hold most are
        /// ended. With "auto", half of what the machine and the cgroup allow, divided by the cores.
        memory_per_core: Option<u64> = "memory_per_core" as OrAuto<SizeText<MEMORY_MIN, BYTES_MAX>>, MEMORY_PER_CORE;
    }
}

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
        let span = find(root, &["limits", "target"]).unwrap_or_default();
        cx.error(
            Code::Unreachable,
            span,
            "the target is a part of the head, whose limit is lower",
        )
        .help("raise `limits.head`, or lower `limits.target`");
    }
    let Some(connections) = limits.connections else {
        return limits;
    };
    if patch.connections_per_client.is_none() {
        limits.connections_per_client = limits.connections_per_client.min(connections);
    }
    if limits.connections_per_client > connections {
        let span = find(root, &["limits", "connections_per_client"]).unwrap_or_default();
        per_client_unreachable(span, connections, cx);
    }
    limits
}

pub(crate) fn per_client_unreachable(span: Span, connections: u32, cx: &mut Decoder<'_>) {
    let message = format!("never reached: the listener stops at {connections} connections");
    cx.error(Code::Unreachable, span, message)
        .help("lower `connections_per_client`, or raise `connections`");
}

const _: () = {
    assert!(TARGET_BYTES.value < HEAD_BYTES.value);
    assert!(HEAD_BYTES.value <= HEAD_BYTES_MAX && HEAD_BYTES_MIN < HEAD_BYTES.value);
    assert!(FIELDS.value <= FIELDS_MAX);
    assert!(CONNECTIONS_PER_CLIENT.value <= CONNECTIONS_MAX);
};
