//! Gives cores new endpoints: those of the file and its names, with the changes that operators made.

use std::sync::Arc;

use super::Control;
use super::endpoint_overrides::EndpointOverrides;
use crate::plan::EndpointSets;

impl Control {
    /// Has cores use the endpoints of `base`, which belong to the current plan, with `overrides`. Returns when all cores
    /// do. The caller has the turn.
    pub(super) async fn use_endpoints(
        &self,
        base: Arc<EndpointSets>,
        overrides: EndpointOverrides,
    ) {
        let (plan, config, old) = {
            let state = self.state.borrow();
            (
                state.plan.clone(),
                state.config.clone(),
                state.endpoints.clone(),
            )
        };
        let mut endpoints = overrides.apply(&config, &base);
        endpoints.share_unchanged(&old);
        endpoints.epoch = old.epoch + 1;
        let endpoints = Arc::new(endpoints);
        self.obs.prepare(&plan, &endpoints);
        let registry = self.cores.upstreams();
        {
            let state = &mut *self.state.borrow_mut();
            let tls = state.certificates.clients();
            let tls_of = |number: usize| tls.get(number).cloned().flatten();
            let (new, old) = ((&*plan, &*endpoints), (&*plan, &*old));
            state.health.begin_checks(registry, new, old, tls_of);
        }
        self.change_endpoints(plan.epoch, &endpoints).await;
        let state = &mut *self.state.borrow_mut();
        state.health.end_checks(registry, &plan, &endpoints);
        state.base_endpoints = base;
        state.overrides = overrides;
        state.endpoints = endpoints;
    }
}
