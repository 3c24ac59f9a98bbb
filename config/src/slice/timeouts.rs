//! `timeouts`: at the top level, of a listener, of an upstream and of a route.

use std::time::Duration;

use crate::decode::amounts::{DurationText, PauseText};
use crate::decode::decoder::Decoder;
use crate::decode::kinds::{OrOff, TableScope};
use crate::decode::preset::preset;
use crate::decode::shape::ForeignName;
use crate::decode::table::{frame, layer, table};
use crate::text::diagnostic::Code;
use crate::text::source::Span;

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
    /// Time limits. [What each timeout measures](timeouts.md) lists the phases of an exchange and what bounds each.
    Timeouts, TimeoutsPatch, "timeouts", "[timeouts]", foreign FOREIGN_NAMES {
        /// Time for a request head to arrive in full: from its first byte, on a new connection from the accept. Raise
        /// it for clients on very slow links.
        head: Duration = "head" as DurationText,
            preset(
                Duration::from_secs(10),
                "tighter than hyper's 30 s and nginx's 60 s; Traefik gives the whole request 60 s",
            );
        /// How long a client's connection may be silent between requests; in a route or upstream, how long an
        /// upgraded connection (WebSocket) may be silent. Raise it in the route for WebSockets without pings.
        idle: Duration = "idle" as DurationText,
            preset(Duration::from_secs(75), "nginx `keepalive_timeout` 75 s");
        /// How long a connection to an endpoint may take to open, TLS handshake included. Raise it for endpoints far
        /// away.
        connect: Duration = "connect" as DurationText,
            preset(
                Duration::from_secs(2),
                "one lost SYN (1 s, RFC 6298) plus a second; Envoy 5 s, nginx 60 s",
            );
        /// How long a request may wait for a connection when every endpoint has as many as `pool.connections` allows.
        /// Lower it to fail early under overload.
        queue: Duration = "queue" as DurationText,
            preset(
                Duration::from_secs(10),
                "between HAProxy, whose `timeout queue` defaults to `timeout connect`, and nginx `queue` 60 s",
            );
        /// How long an endpoint may take to begin its answer, from the end of the request or from its last interim
        /// answer (1xx). Raise it for slow reports and long polls.
        first_byte: Duration = "first_byte" as DurationText,
            preset(Duration::from_secs(60), "nginx `proxy_read_timeout` 60 s");
        /// How long a request body may stand still before the answer begins; after that, how long both directions
        /// together may. Raise it for streams that pause longer.
        body_stall: Duration = "body_stall" as DurationText,
            preset(Duration::from_secs(30), "half of nginx `client_body_timeout` 60 s");
        /// How long Weir keeps an unused connection to an endpoint. Keep it below the endpoint's own keep-alive time,
        /// so that the endpoint does not close a connection just as a request is sent on it.
        upstream_idle: Duration = "upstream_idle" as DurationText,
            preset(Duration::from_secs(60), "nginx upstream `keepalive_timeout` 60 s");
        /// How long a whole exchange may take, all its attempts included; `"off"` for no limit. Set it where no answer
        /// is worth waiting longer for.
        total: Option<Duration> = "total" as OrOff<DurationText>,
            preset(None, "long downloads and event streams are legitimate");
        /// How long Weir keeps accepting and serving after SIGTERM while `/healthz` already answers 503. Set it to the
        /// time that load balancers take to notice. A second SIGTERM ends the delay.
        drain_delay: Duration = "drain_delay" as PauseText,
            preset(
                Duration::ZERO,
                "only a Weir behind a load balancer needs it; Kubernetes probes every 10 s",
            );
        /// How long running exchanges may go on when Weir shuts down; it begins after `drain_delay`. Raise it for long
        /// downloads.
        grace: Duration = "grace" as DurationText,
            preset(
                Duration::from_secs(30),
                "Kubernetes' default termination grace of 30 s",
            );
    }
}

/// Warns of time limits that a shorter `total`, given in the same table, hides.
pub(crate) fn check_timeouts(patch: &TimeoutsPatch, span: &Span, cx: &mut Decoder<'_>) {
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
            cx.warning(Code::Unreachable, span.clone(), message)
                .help(format!("lower `{key}`, or raise `total`"));
        }
    }
}

/// Time limits of a listener.
pub(crate) struct InListener;

impl TableScope for InListener {
    const NO_EFFECT: &'static [(&'static str, &'static str)] = &[
        ("queue", NOT_OF_LISTENERS),
        ("first_byte", NOT_OF_LISTENERS),
        ("body_stall", NOT_OF_LISTENERS),
        ("upstream_idle", NOT_OF_LISTENERS),
        ("total", NOT_OF_LISTENERS),
        ("drain_delay", OF_THE_PROCESS),
        ("grace", OF_THE_PROCESS),
    ];
}

/// Time limits of an upstream.
pub(crate) struct InUpstream;

impl TableScope for InUpstream {
    const NO_EFFECT: &'static [(&'static str, &'static str)] = &[
        ("head", HEAD_BEFORE_ROUTE),
        ("drain_delay", OF_THE_PROCESS),
        ("grace", OF_THE_PROCESS),
    ];
}

/// Time limits of a route.
pub(crate) struct InRoute;

impl TableScope for InRoute {
    const NO_EFFECT: &'static [(&'static str, &'static str)] = &[
        ("head", HEAD_BEFORE_ROUTE),
        (
            "upstream_idle",
            "unused connections belong to the upstream: set it there",
        ),
        ("drain_delay", OF_THE_PROCESS),
        ("grace", OF_THE_PROCESS),
    ];
}

const HEAD_BEFORE_ROUTE: &str =
    "Weir reads the head before it knows the route: set it at the top level";
const NOT_OF_LISTENERS: &str =
    "a listener does not use it: set it at the top level, in an upstream or in a route";
const OF_THE_PROCESS: &str = "the process stops as a whole: set it at the top level";
