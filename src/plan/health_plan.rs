//! The checks of an upstream's endpoints, as control makes them.

use weir_config::HealthCheck;

use crate::tls::TlsName;

/// The checks of an upstream's endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthPlan {
    /// The settings of the file.
    pub check: HealthCheck,
    /// The name that certificates must have, if the file sets one.
    pub tls_name: Option<TlsName>,
}

impl HealthPlan {
    /// Compiles the checks of an upstream. `None` if it has none.
    pub(super) fn compile(upstream: &weir_config::Upstream) -> Option<Self> {
        let tls_name = upstream.tls.server_name.as_deref();
        Some(Self {
            check: upstream.health.clone()?,
            tls_name: tls_name.and_then(TlsName::parse),
        })
    }
}
