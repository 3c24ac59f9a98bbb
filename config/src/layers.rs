//! Settings that merge: top level, then upstream, then route.
//!
//! Each is a pair: the full struct, where every value is known, and its patch, which holds what
//! one place in the file says. [`Timeouts::patched`] and its siblings lay a patch over a base.

use std::time::Duration;

use crate::amounts::{ByteRate, Pause, Percent, Size, Time};
use crate::kinds::{Count, OrAuto, OrOff};
use crate::limits::{
    self, CONNECTIONS_MAX, FIELDS_MAX, H2_FRAMES_MAX, H2_STREAMS_MAX, H2_WINDOW_MAX, H2_WINDOW_MIN,
    HEAD_BYTES_MAX, HEAD_BYTES_MIN, MEMORY_MIN, RETRIES_MAX,
};
use crate::table::{frame, layer, table};

const BYTES_MAX: u64 = i64::MAX as u64;

layer! {
    /// Time limits. [What each timeout measures](timeouts.md) says which of them hold in which phase of an exchange.
    Timeouts, TimeoutsPatch, "timeouts", "[timeouts]" {
        /// The whole request head must have come within this time.
        head: Duration = "head" as Time, limits::HEAD;
        /// How long a client's connection may be silent between requests; in a route or upstream,
        /// how long an upgraded connection may be silent.
        idle: Duration = "idle" as Time, limits::IDLE;
        /// How long opening a connection to an endpoint may take.
        connect: Duration = "connect" as Time, limits::CONNECT;
        /// How long a request may wait for a connection when all endpoints have as many as they may
        /// have.
        queue: Duration = "queue" as Time, limits::QUEUE;
        /// How long an endpoint may take from the end of the request, or from its last interim answer (1xx), to its answer.
        first_byte: Duration = "first_byte" as Time, limits::FIRST_BYTE;
        /// How long a request's body may stand still before it is answered, and how long both directions together may once
        /// it is. Larger for streams that are silent for longer.
        body_stall: Duration = "body_stall" as Time, limits::BODY_STALL;
        /// How long an unused connection to an endpoint is kept.
        upstream_idle: Duration = "upstream_idle" as Time, limits::UPSTREAM_IDLE;
        /// How long a whole exchange may take; none when off.
        total: Option<Duration> = "total" as OrOff<Time>, limits::TOTAL;
        /// How long Weir goes on to accept and serve after SIGTERM, while `/healthz` says 503 already: set it to the time
        /// that load balancers take to notice. A second SIGTERM ends it.
        drain_delay: Duration = "drain_delay" as Pause, limits::DRAIN_DELAY;
        /// How long running exchanges may go on once Weir drains, which is after `drain_delay`.
        grace: Duration = "grace" as Time, limits::GRACE;
    }
}

layer! {
    /// Limits of size, number and rate.
    Limits, LimitsPatch, "limits", "[limits]" {
        /// A request or response head, bytes.
        head_bytes: u64 = "head" as Size<HEAD_BYTES_MIN, HEAD_BYTES_MAX>, limits::HEAD_BYTES;
        /// Fields in one head.
        fields: u32 = "fields" as Count<1, FIELDS_MAX>, limits::FIELDS;
        /// A request target, bytes.
        target_bytes: u64 = "target" as Size<1, HEAD_BYTES_MAX>, limits::TARGET_BYTES;
        /// A request body, bytes; unlimited when off.
        body_bytes: Option<u64> = "body" as OrOff<Size<0, BYTES_MAX>>, limits::BODY_BYTES;
        /// The slowest upload that is served while its answer has not begun, and the slowest reading of an answer, bytes a
        /// second; any when off.
        body_rate: Option<u64> = "body_rate" as OrOff<ByteRate>, limits::BODY_RATE;
        /// Connections of one listener, all cores together; one more gets 503. With "auto", as many as open files and
        /// memory allow: then clients wait in the kernel's accept queue.
        connections: Option<u32> = "connections" as OrAuto<Count<1, CONNECTIONS_MAX>>, limits::CONNECTIONS;
        /// Connections from one client address to one listener, all cores together.
        connections_per_client: u32 = "connections_per_client" as Count<1, CONNECTIONS_MAX>, limits::CONNECTIONS_PER_CLIENT;
        /// Memory of connections and of messages on their way, by core. Beyond, the connections that hold most are
        /// ended. With "auto", half of what the machine and the cgroup allow, divided by the cores.
        memory_per_core: Option<u64> = "memory_per_core" as OrAuto<Size<MEMORY_MIN, BYTES_MAX>>, limits::MEMORY_PER_CORE;
    }
}

layer! {
    /// HTTP/2: what one connection may ask of Weir, be it a client's or an endpoint's. Sizes of heads are those of `[limits]`.
    Http2, Http2Patch, "http2", "[http2]" {
        /// Requests at once on one connection.
        streams: u32 = "streams" as Count<1, H2_STREAMS_MAX>, limits::H2_STREAMS;
        /// Bytes that may come on one stream before any was passed on; grows to sixteen times as much where it is used up quickly.
        stream_window: u64 = "stream_window" as Size<H2_WINDOW_MIN, H2_WINDOW_MAX>, limits::H2_STREAM_WINDOW;
        /// The same for all streams of a connection.
        connection_window: u64 = "connection_window" as Size<H2_WINDOW_MIN, H2_WINDOW_MAX>, limits::H2_CONNECTION_WINDOW;
        /// Requests that a client gives up, or makes Weir give up, in ten seconds.
        resets: u32 = "resets" as Count<1, H2_FRAMES_MAX>, limits::H2_RESETS;
        /// SETTINGS frames in ten seconds.
        settings: u32 = "settings" as Count<1, H2_FRAMES_MAX>, limits::H2_SETTINGS;
        /// PING frames in ten seconds, beyond those that go with data.
        pings: u32 = "pings" as Count<1, H2_FRAMES_MAX>, limits::H2_PINGS;
        /// DATA frames without data in ten seconds.
        empty_data: u32 = "empty_data" as Count<1, H2_FRAMES_MAX>, limits::H2_EMPTY_DATA;
        /// CONTINUATION frames of one head.
        continuations: u32 = "continuations" as Count<1, H2_FRAMES_MAX>, limits::H2_CONTINUATIONS;
    }
}

layer! {
    /// When a failed attempt is repeated. `config/retries.md` has the table: which failure, at whom, how often.
    Retries, RetriesPatch, "retries", "[retries]" {
        /// How often a request that was sent is sent again. A connection that cannot be made sends the request to the
        /// next endpoint in any case, up to three connections in all, whatever the count and the budget; "off" turns
        /// that off too.
        count: Option<u32> = "count" as OrOff<Count<0, RETRIES_MAX>>, limits::RETRIES;
        /// The share of the upstream's requests of the last ten seconds that may be retries, percent; by core.
        budget_percent: u32 = "budget" as Percent, limits::RETRY_BUDGET_PERCENT;
        /// Retries in ten seconds that are allowed whatever the share; by core.
        budget_floor: u32 = "budget_min" as Count<0, CONNECTIONS_MAX>, limits::RETRY_BUDGET_FLOOR;
        /// The mean wait before a retry; the real one is drawn around it.
        backoff: Duration = "backoff" as Time, limits::RETRY_BACKOFF;
        /// The time limit of one attempt; none when off.
        per_try: Option<Duration> = "per_try" as OrOff<Time>, limits::RETRY_PER_TRY;
    }
}

layer! {
    /// Connections kept to an upstream's endpoints. One on which an endpoint asks for NTLM or Negotiate leaves the pool and
    /// belongs to one client's connection until either ends; it still counts as one of `connections`.
    Pool, PoolPatch, "pool", "[upstream.NAME.pool]" {
        /// Unused connections kept, by endpoint and core.
        idle_per_core: u32 = "idle_per_core" as Count<0, CONNECTIONS_MAX>, limits::POOL_IDLE_PER_CORE;
        /// Connections to one endpoint, all cores together. Those of HTTP/2 belong to a core each: with fewer of them
        /// than cores, these take turns.
        connections: u32 = "connections" as Count<1, CONNECTIONS_MAX>, limits::POOL_CONNECTIONS;
        /// Requests that may wait while all endpoints have that many, all cores together; 0 refuses them at once.
        pending: u32 = "pending" as Count<0, CONNECTIONS_MAX>, limits::POOL_PENDING;
    }
}
