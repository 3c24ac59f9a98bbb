//! Places where tables that several places share do not mean all that they could.
//!
//! A key without effect is a warning, not an error: the file says nothing wrong, only nothing.

use crate::kinds::Scope;

/// Time limits of a listener.
pub(crate) struct InListener;

impl Scope for InListener {
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

impl Scope for InUpstream {
    const NO_EFFECT: &'static [(&'static str, &'static str)] = &[
        ("head", HEAD_TOO_LATE),
        ("drain_delay", ONLY_TOP),
        ("grace", ONLY_TOP),
    ];
}

/// Time limits and limits of a route.
pub(crate) struct InRoute;

impl Scope for InRoute {
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
