//! `pool`: the connections to an upstream's endpoints.

use crate::decode::kinds::Count;
use crate::decode::preset::preset;
use crate::decode::table::{frame, layer, table};

const CONNECTIONS_MAX: u32 = 10_000_000;

layer! {
    /// Connections to an upstream's endpoints. A connection on which an endpoint asks for NTLM or Negotiate leaves the
    /// pool and belongs to one client's connection until either ends; it still counts as one of `connections`.
    Pool, PoolPatch, "pool", "[upstream.NAME.pool]" {
        /// Unused connections that each core keeps to one endpoint. Lower it for endpoints that can hold only a few.
        idle_per_core: u32 = "idle_per_core" as Count<0, CONNECTIONS_MAX>,
            preset(1_024, "as many as `connections`: Envoy and HAProxy close none before its time either");
        /// Connections to one endpoint, over all cores. A core has its HTTP/2 connections to itself: with fewer
        /// connections than cores, the cores take turns. Lower it to what the endpoint can serve at once.
        connections: u32 = "connections" as Count<1, CONNECTIONS_MAX>,
            preset(1_024, "Envoy circuit breaker `max_connections` 1,024");
        /// Requests that may wait, over all cores, while every endpoint has that many connections. 0 refuses them at
        /// once.
        pending: u32 = "pending" as Count<0, CONNECTIONS_MAX>,
            preset(1_024, "Envoy circuit breaker `max_pending_requests` 1,024");
    }
}
