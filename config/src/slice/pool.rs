//! `pool` of an upstream: the connections to its endpoints.

use crate::decode::kinds::Count;
use crate::decode::preset::{Preset, preset};
use crate::decode::table::{frame, layer, table};
use crate::slice::limits::CONNECTIONS_MAX;

/// Connections kept open for reuse, by endpoint and core.
const POOL_IDLE_PER_CORE: Preset<u32> = preset(
    1_024,
    "as many as there may be: Envoy and HAProxy close none before its time either",
);

/// Connections to one endpoint, all cores together.
const POOL_CONNECTIONS: Preset<u32> =
    preset(1_024, "Envoy circuit breaker `max_connections` 1,024");

/// Requests of one upstream that wait for a connection, all cores together.
const POOL_PENDING: Preset<u32> =
    preset(1_024, "Envoy circuit breaker `max_pending_requests` 1,024");

layer! {
    /// Connections kept to an upstream's endpoints. One on which an endpoint asks for NTLM or Negotiate leaves the pool and
    /// belongs to one client's connection until either ends; it still counts as one of `connections`.
    Pool, PoolPatch, "pool", "[upstream.NAME.pool]" {
        /// Unused connections kept, by endpoint and core.
        idle_per_core: u32 = "idle_per_core" as Count<0, CONNECTIONS_MAX>, POOL_IDLE_PER_CORE;
        /// Connections to one endpoint, all cores together. Those of HTTP/2 belong to a core each: with fewer of them
        /// than cores, these take turns.
        connections: u32 = "connections" as Count<1, CONNECTIONS_MAX>, POOL_CONNECTIONS;
        /// Requests that may wait while all endpoints have that many, all cores together; 0 refuses them at once.
        pending: u32 = "pending" as Count<0, CONNECTIONS_MAX>, POOL_PENDING;
    }
}
