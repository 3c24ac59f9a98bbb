//! `timeouts`, at the top level, of listeners, upstreams and routes.

use std::time::Duration;

use crate::decode::amounts::{DurationText, PauseText};
use crate::decode::decoder::Decoder;
use crate::decode::kinds::{OrOff, TableScope};
use crate::decode::preset::{Preset, preset};
use crate::decode::shape::ForeignName;
use crate::decode::table::{frame, layer, table};
use crate::text::diagnostic::Code;
use crate::text::source::Span;

/// Reading a whole request head, from the first moment a byte could come.
pub(crate) const HEAD: Preset<Duration> = preset(
    Duration::from_secs(10),
    "tighter than hyper's 30 s and nginx's 60 s; Traefik's whole request 60 s",
);

/// Silence between requests, and in an upgraded connection.
const IDLE: Preset<Duration> = preset(Duration::from_secs(75), "nginx `keepalive_timeout` 75 s");

/// Opening a connection to an endpoint.
const CONNECT: Preset<Duration> = preset(
    Duration::from_secs(2),
    "one lost SYN (1 s, RFC 6298) plus a second; Envoy 5 s, nginx 60 s",
);

/// Waiting for a free connection to an endpoint.
const QUEUE: Preset<Duration> = preset(
    Duration::from_secs(10),
    "between HAProxy, where it is `timeout connect` unless set, and nginx `queue` 60 s",
);

/// From the end of the request to the first byte of the answer.
const FIRST_BYTE: Preset<Duration> =
    preset(Duration::from_secs(60), "nginx `proxy_read_timeout` 60 s");

/// Silence in the middle of a body.
const BODY_STALL: Preset<Duration> = preset(
    Duration::from_secs(30),
    "half of nginx `client_body_timeout` 60 s",
);

/// Silence of a pooled connection to an endpoint.
const UPSTREAM_IDLE: Preset<Duration> = preset(
    Duration::from_secs(60),
    "nginx upstream `keepalive_timeout` 60 s",
);

/// A whole exchange.
const TOTAL: Preset<Option<Duration>> =
    preset(None, "long downloads and event streams are legitimate");

/// Serving on after a request to stop.
const DRAIN_DELAY: Preset<Duration> = preset(
    Duration::ZERO,
    "only who stands behind a load balancer needs it; Kubernetes probes every 10 s",
);

/// Finishing exchanges at shutdown.
const GRACE: Preset<Duration> = preset(
    Duration::from_secs(30),
    "Kubernetes' default termination grace of 30 s",
);

const FOREIGN_NAMES: &[ForeignName] = &[
    (
        &["read", "send", "server", "response", "upstream"],
        "`first_byte`, or `body_stall` for silence in a body",
    ),
    (
        &["keepalive", "keep_alive", "keepalive_timeout"],
        "`idle`, or `upstream_idle` for connections to endpoints",
    ),
    (
        &["request"],
        "`head` for the request's head, or `total` for everything",
    ),
    (&["client"], "`body_stall`"),
];

layer! {
    /// Time limits. [What each timeout measures](timeouts.md) says which of them hold in which phase of an exchange.
    Timeouts, TimeoutsPatch, "timeouts", "[timeouts]", foreign FOREIGN_NAMES {
        /// The whole request head must have come within this time.
        head: Duration = "head" as DurationText, HEAD;
        /// How long a client's connection may be silent between requests; in a route or upstream,
        /// how long an upgraded connection may be silent.
        idle: Duration = "idle" as DurationText, IDLE;
        /// How long opening a connection to an endpoint may take.
        connect: Duration = "connect" as DurationText, CONNECT;
        /// How long a request may wait for a connection when all endpoints have as many as they may
        /// have.
        queue: Duration = "queue" as DurationText, QUEUE;
        /// How long an endpoint may take from the end of the request, or from its last interim answer (1xx), to its answer.
        first_byte: Duration = "first_byte" as DurationText, FIRST_BYTE;
        /// How long a request's body may stand still before it is answered, and how long both directions together may once
        /// it is. Larger for streams that are silent for longer.
        body_stall: Duration = "body_stall" as DurationText, BODY_STALL;
        /// How long an unused connection to an endpoint is kept.
        upstream_idle: Duration = "upstream_idle" as DurationText, UPSTREAM_IDLE;
        /// How long a whole exchange may take; none when off.
        total: Option<Duration> = "total" as OrOff<DurationText>, TOTAL;
        /// How long Weir goes on to accept and serve after SIGTERM, while `/healthz` says 503 already: set it to the time
        /// that load balancers take to notice. A second SIGTERM ends it.
        drain_delay: Duration = "drain_delay" as PauseText, DRAIN_DELAY;
        /// How long running exchanges may go on once Weir drains, which is after `drain_delay`.
        grace: Duration = "grace" as DurationText, GRACE;
    }
}

/// Warns of time limits that a shorter one, given in the same place, hides.
pub(crate) fn times_agree(patch: &TimeoutsPatch, span: &Span, cx: &mut Decoder<'_>) {
    let Some(Some(total)) = patch.total else {
        return;
    };
    let parts: [(&str, Option<Duration>); 3] = [
        ("connect", patch.connect),
        ("queue", patch.queue),
        ("first_byte", patch.first_byte),
    ];
    for (key, part) in parts {
        if part.is_some_and(|part| part >= total) {
            let message = format!("`{key}` is never reached: `total` is not longer");
            cx.warning(Code::Unreachable, span.clone(), message);
        }
    }
}

/// Time limits of a listener.
pub(crate) struct InListener;

impl TableScope for InListener {
    const NO_EFFECT: &'static [(&'static str, &'static str)] = &[
        ("connect", NOT_DOWNSTREAM),
        ("queue", NOT_DOWNSTREAM),
        ("first_byte", NOT_DOWNSTREAM),
        ("body_stall", NOT_DOWNSTREAM),
        ("upstream_idle", NOT_DOWNSTREAM),
        ("total", NOT_DOWNSTREAM),
        ("drain_delay", ONLY_TOP),
        ("grace", ONLY_TOP),
    ];
}

/// Time limits of an upstream.
pub(crate) struct InUpstream;

impl TableScope for InUpstream {
    const NO_EFFECT: &'static [(&'static str, &'static str)] = &[
        ("head", HEAD_TOO_LATE),
        ("drain_delay", ONLY_TOP),
        ("grace", ONLY_TOP),
    ];
}

/// Time limits and limits of a route.
pub(crate) struct InRoute;

impl TableScope for InRoute {
    const NO_EFFECT: &'static [(&'static str, &'static str)] = &[
        ("head", HEAD_TOO_LATE),
        ("fields", HEAD_TOO_LATE),
        ("target", HEAD_TOO_LATE),
        (
            "upstream_idle",
            "unused connections belong to the upstream: set it there",
        ),
        ("connections", NOT_IN_ROUTE),
        ("connections_per_client", NOT_IN_ROUTE),
        ("memory_per_core", NOT_OF_ONE_ROUTE),
        ("drain_delay", ONLY_TOP),
        ("grace", ONLY_TOP),
    ];
}

const HEAD_TOO_LATE: &str = "the head is read before a route is known: set it at the top level";

const NOT_DOWNSTREAM: &str =
    "not a matter of listeners: set it at the top level, in an upstream or a route";

const NOT_IN_ROUTE: &str = "connections belong to the listener: set it there or at the top level";

const NOT_OF_ONE_ROUTE: &str = "all messages of a core share it: set it at the top level";

const ONLY_TOP: &str = "the whole process stops at once: set it at the top level";
