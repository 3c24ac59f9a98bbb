//! Changes to endpoints that operators make at run time: endpoints added and removed, states and weights.
//!
//! The file and the names in it define which endpoints exist. Changes lie on top, in two layers: those that a reload drops,
//! and below them those that it keeps. All of this is pure; [`Control`](super::Control) applies the changes whenever it
//! makes endpoint sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_config::{Config, Endpoint, EndpointAddress, Upstream};

use crate::io::Address;
use crate::plan::{EndpointSet, EndpointSets, EndpointSpec, EndpointState};

/// All changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct EndpointOverrides {
    /// Changes that the next reload drops.
    until_reload: OverrideLayer,
    /// Changes that reloads keep.
    kept: OverrideLayer,
}

/// Changes by upstream and endpoint name.
type OverrideLayer = BTreeMap<String, BTreeMap<String, EndpointChange>>;

/// What one layer changes of an endpoint. `None` leaves the layer below as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
struct EndpointChange {
    exists: Option<bool>,
    state: Option<EndpointState>,
    weight: Option<u32>,
}

/// How long a change lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// The next reload drops it.
    UntilReload,
    /// Reloads and upgrades keep it; a restart drops it.
    Kept,
}

/// A change as the API lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ListedChange {
    pub(super) upstream: String,
    pub(super) address: String,
    /// `added` or `removed`; `None` if the endpoint is in the file and stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) endpoint: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) state: Option<EndpointState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) weight: Option<u32>,
    /// Whether reloads keep the change.
    pub(super) persist: bool,
}

/// The weight of an added endpoint, if the change sets none.
const ADDED_WEIGHT: u32 = 1;

impl EndpointOverrides {
    /// Adds an endpoint, or brings back one that was removed. `weight` `None` stands for that of the file, or 1.
    pub(super) fn add(
        &mut self,
        base: &EndpointSet,
        (upstream, endpoint): (&str, &str),
        weight: Option<u32>,
        lifetime: Lifetime,
    ) {
        let of_file = find(base, endpoint).map_or(ADDED_WEIGHT, |spec| spec.weight);
        let change = EndpointChange {
            exists: Some(true),
            state: Some(EndpointState::Ready),
            weight: Some(weight.unwrap_or(of_file)),
        };
        self.set(base, (upstream, endpoint), change, lifetime);
    }

    /// Removes an endpoint, whether it is in the file or was added.
    pub(super) fn remove(
        &mut self,
        base: &EndpointSet,
        (upstream, endpoint): (&str, &str),
        lifetime: Lifetime,
    ) {
        let in_layer = |layer: &mut OverrideLayer| {
            let changes = layer.get_mut(upstream)?;
            changes.get_mut(endpoint).map(std::mem::take)
        };
        in_layer(&mut self.until_reload);
        if lifetime == Lifetime::Kept {
            in_layer(&mut self.kept);
        }
        let change = EndpointChange {
            exists: Some(false),
            ..EndpointChange::default()
        };
        self.set(base, (upstream, endpoint), change, lifetime);
    }

    /// Changes the state or weight of an endpoint; `None` leaves either as it is.
    pub(super) fn patch(
        &mut self,
        base: &EndpointSet,
        (upstream, endpoint): (&str, &str),
        (state, weight): (Option<EndpointState>, Option<u32>),
        lifetime: Lifetime,
    ) {
        let change = EndpointChange {
            exists: None,
            state,
            weight,
        };
        self.set(base, (upstream, endpoint), change, lifetime);
    }

    fn set(
        &mut self,
        base: &EndpointSet,
        (upstream, endpoint): (&str, &str),
        change: EndpointChange,
        lifetime: Lifetime,
    ) {
        let mut upper = take(&mut self.until_reload, upstream, endpoint);
        let mut kept = take(&mut self.kept, upstream, endpoint);
        match lifetime {
            Lifetime::UntilReload => upper = change.over(&upper),
            Lifetime::Kept => {
                upper = upper.without(&change);
                kept = change.over(&kept);
            }
        }
        let of_file = EndpointChange::of_file(base, endpoint);
        kept = kept.without_same(&of_file);
        upper = upper.without_same(&kept.over(&of_file));
        put(&mut self.kept, upstream, endpoint, kept);
        put(&mut self.until_reload, upstream, endpoint, upper);
    }

    /// These changes after a reload to `config` with the endpoints of `base`: without those that a reload drops, without
    /// those to upstreams that are gone, and without those that the file now has itself.
    pub(super) fn after_reload(&self, config: &Config, base: &EndpointSets) -> Self {
        let mut after = Self::default();
        for (upstream, set) in config.upstreams.iter().zip(base.iter()) {
            let changes = self.kept.get(&upstream.name).into_iter().flatten();
            for (endpoint, change) in changes {
                let change = change.without_same(&EndpointChange::of_file(set, endpoint));
                put(&mut after.kept, &upstream.name, endpoint, change);
            }
        }
        after
    }

    /// How many endpoints have a change.
    pub(super) fn count(&self) -> usize {
        let layers = [&self.until_reload, &self.kept];
        let upstreams = layers.into_iter().flatten();
        let names = upstreams.flat_map(|(upstream, changes)| {
            changes.keys().map(move |endpoint| (upstream, endpoint))
        });
        names.collect::<BTreeSet<_>>().len()
    }

    /// The endpoints of `base`, those of the file and its names, with all changes. `base` belongs to `config`. A set
    /// without changes is shared with `base`.
    pub(super) fn apply(&self, config: &Config, base: &EndpointSets) -> EndpointSets {
        base.changed(|at, set| {
            let upstream = config.upstreams.get(at)?;
            let names = self.changed_names(&upstream.name);
            (!names.is_empty()).then(|| self.apply_to(upstream, set, &names))
        })
    }

    fn apply_to(
        &self,
        upstream: &Upstream,
        base: &EndpointSet,
        names: &BTreeSet<&str>,
    ) -> EndpointSet {
        let changed = |spec: EndpointSpec| {
            let change = self.change(&upstream.name, &spec.name);
            (change.exists != Some(false)).then(|| EndpointSpec {
                state: change.state.unwrap_or(spec.state),
                weight: change.weight.unwrap_or(spec.weight),
                ..spec
            })
        };
        let added = names.iter().filter(|name| {
            let change = self.change(&upstream.name, name);
            change.exists == Some(true) && find(base, name).is_none()
        });
        let added = added.filter_map(|name| added_spec(upstream, name));
        let endpoints = base.endpoints.iter().cloned().chain(added);
        EndpointSet {
            endpoints: endpoints.filter_map(changed).collect(),
            unresolved: base.unresolved.clone(),
            unfit: base.unfit.clone(),
            sources: base.sources.clone(),
        }
    }

    /// All changes, by upstream and endpoint.
    pub(super) fn list(&self) -> Vec<ListedChange> {
        let layers = [(&self.until_reload, false), (&self.kept, true)];
        let mut listed = Vec::new();
        for (layer, persist) in layers {
            for (upstream, changes) in layer {
                listed.extend(changes.iter().map(|(address, change)| ListedChange {
                    upstream: upstream.clone(),
                    address: address.clone(),
                    endpoint: change.exists.map(|exists| match exists {
                        true => "added",
                        false => "removed",
                    }),
                    state: change.state,
                    weight: change.weight,
                    persist,
                }));
            }
        }
        listed.sort_by(|a, b| (&a.upstream, &a.address).cmp(&(&b.upstream, &b.address)));
        listed
    }

    fn changed_names(&self, upstream: &str) -> BTreeSet<&str> {
        let layers = [&self.until_reload, &self.kept];
        let changes = layers.into_iter().filter_map(|layer| layer.get(upstream));
        changes
            .flat_map(|changes| changes.keys().map(String::as_str))
            .collect()
    }

    /// What both layers together change of an endpoint.
    fn change(&self, upstream: &str, endpoint: &str) -> EndpointChange {
        let get = |layer: &OverrideLayer| layer.get(upstream)?.get(endpoint).cloned();
        let kept = get(&self.kept).unwrap_or_default();
        get(&self.until_reload).unwrap_or_default().over(&kept)
    }
}

impl EndpointChange {
    /// An endpoint of the file, as a change from nothing.
    fn of_file(base: &EndpointSet, endpoint: &str) -> Self {
        let spec = find(base, endpoint);
        Self {
            exists: Some(spec.is_some()),
            state: Some(EndpointState::Ready),
            weight: Some(spec.map_or(ADDED_WEIGHT, |spec| spec.weight)),
        }
    }

    /// This change on top of `lower`.
    fn over(&self, lower: &Self) -> Self {
        Self {
            exists: self.exists.or(lower.exists),
            state: self.state.or(lower.state),
            weight: self.weight.or(lower.weight),
        }
    }

    /// This change without what `other` changes.
    fn without(&self, other: &Self) -> Self {
        Self {
            exists: self.exists.filter(|_| other.exists.is_none()),
            state: self.state.filter(|_| other.state.is_none()),
            weight: self.weight.filter(|_| other.weight.is_none()),
        }
    }

    /// This change without what is the same in `lower`.
    fn without_same(&self, lower: &Self) -> Self {
        Self {
            exists: self.exists.filter(|_| self.exists != lower.exists),
            state: self.state.filter(|_| self.state != lower.state),
            weight: self.weight.filter(|_| self.weight != lower.weight),
        }
    }
}

fn find<'s>(set: &'s EndpointSet, name: &str) -> Option<&'s EndpointSpec> {
    set.endpoints.iter().find(|spec| *spec.name == *name)
}

/// The endpoint that a change adds under this name. `None` for a host name, which [`addable`] refuses.
fn added_spec(upstream: &Upstream, name: &str) -> Option<EndpointSpec> {
    let endpoint: Endpoint = name.parse().ok()?;
    let address = match &endpoint.address {
        EndpointAddress::Ip(address) => Address::Ip(*address),
        EndpointAddress::Unix(path) => Address::Unix(Arc::new(path.clone())),
        EndpointAddress::Name { .. } => return None,
    };
    Some(EndpointSpec::new(upstream, &endpoint, name.into(), address))
}

/// Reads the address of an endpoint to add.
///
/// # Errors
/// It is no address, or a host name.
pub(super) fn addable(address: &str) -> Result<Endpoint, String> {
    let endpoint: Endpoint = address
        .parse()
        .map_err(|error: weir_config::ValueError| error.to_string())?;
    match endpoint.address {
        EndpointAddress::Name { .. } => Err(format!(
            "`{address}` is a host name: write an IP address and a port, or put the name into the file"
        )),
        EndpointAddress::Ip(_) | EndpointAddress::Unix(_) => Ok(endpoint),
    }
}

fn take(layer: &mut OverrideLayer, upstream: &str, endpoint: &str) -> EndpointChange {
    let changes = layer.get_mut(upstream);
    changes
        .and_then(|changes| changes.remove(endpoint))
        .unwrap_or_default()
}

fn put(layer: &mut OverrideLayer, upstream: &str, endpoint: &str, change: EndpointChange) {
    if change != EndpointChange::default() {
        let changes = layer.entry(upstream.to_owned()).or_default();
        changes.insert(endpoint.to_owned(), change);
    } else if layer.get(upstream).is_some_and(BTreeMap::is_empty) {
        layer.remove(upstream);
    }
}

#[cfg(test)]
mod tests;
