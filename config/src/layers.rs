//! Settings that merge: top level, then upstream, then route.
//!
//! Each is a pair: the full struct, where every value is known, and its patch, which holds what
//! one place in the file says. [`Timeouts::patched`] and its siblings lay a patch over a base.

use std::time::Duration;

use crate::limits;

/// Declares a settings struct, its defaults, its patch and how they merge.
macro_rules! layer {
    (
        $(#[doc = $doc:literal])+
        $name:ident, $patch:ident {
            $( $(#[doc = $field_doc:literal])+ $field:ident: $ty:ty = $preset:expr; )+
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name {
            $( $(#[doc = $field_doc])+ pub $field: $ty, )+
        }

        #[doc = concat!("What one place in the file says about [`", stringify!($name), "`].")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $patch {
            $( $(#[doc = $field_doc])+ pub $field: Option<$ty>, )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $preset.value, )+ }
            }
        }

        impl $name {
            /// These settings with what `patch` says in place of their own.
            #[must_use]
            pub fn patched(&self, patch: &$patch) -> Self {
                Self { $( $field: patch.$field.unwrap_or(self.$field), )+ }
            }
        }
    };
}

layer! {
    /// Time limits.
    Timeouts, TimeoutsPatch {
        /// The whole request head must have come within this time.
        head: Duration = limits::HEAD;
        /// How long a client's connection may be silent between requests; in a route or upstream,
        /// how long an upgraded connection may be silent.
        idle: Duration = limits::IDLE;
        /// How long opening a connection to an endpoint may take.
        connect: Duration = limits::CONNECT;
        /// How long an endpoint may take from the end of the request to its first byte.
        first_byte: Duration = limits::FIRST_BYTE;
        /// How long a body may stand still, in either direction.
        body_stall: Duration = limits::BODY_STALL;
        /// How long an unused connection to an endpoint is kept.
        upstream_idle: Duration = limits::UPSTREAM_IDLE;
        /// How long a whole exchange may take; none when off.
        total: Option<Duration> = limits::TOTAL;
        /// How long running exchanges may go on after a request to stop.
        grace: Duration = limits::GRACE;
    }
}

layer! {
    /// Limits of size, number and rate.
    Limits, LimitsPatch {
        /// A request or response head, bytes.
        head_bytes: u64 = limits::HEAD_BYTES;
        /// Fields in one head.
        fields: u32 = limits::FIELDS;
        /// A request target, bytes.
        target_bytes: u64 = limits::TARGET_BYTES;
        /// A request body, bytes; unlimited when off.
        body_bytes: Option<u64> = limits::BODY_BYTES;
        /// The slowest upload that is still served, bytes a second; any when off.
        body_rate: Option<u64> = limits::BODY_RATE;
        /// Connections of one listener, all cores together.
        connections: u32 = limits::CONNECTIONS;
        /// Connections from one client address to one listener, all cores together.
        connections_per_client: u32 = limits::CONNECTIONS_PER_CLIENT;
    }
}

layer! {
    /// When a failed attempt is repeated at another endpoint.
    Retries, RetriesPatch {
        /// Further attempts after the first.
        count: u32 = limits::RETRIES;
        /// The share of live exchanges of the upstream that may be retries, percent.
        budget_percent: u32 = limits::RETRY_BUDGET_PERCENT;
        /// Retries at once that are allowed whatever the share.
        budget_floor: u32 = limits::RETRY_BUDGET_FLOOR;
        /// The mean wait before a retry; the real one is drawn around it.
        backoff: Duration = limits::RETRY_BACKOFF;
        /// The time limit of one attempt; none when off.
        per_try: Option<Duration> = limits::RETRY_PER_TRY;
    }
}

layer! {
    /// Connections kept to an upstream's endpoints.
    Pool, PoolPatch {
        /// Unused connections kept, by endpoint and core.
        idle_per_core: u32 = limits::POOL_IDLE_PER_CORE;
        /// Connections to one endpoint, all cores together.
        connections: u32 = limits::POOL_CONNECTIONS;
    }
}
