//! `/api/upstreams/NAME/endpoints`: endpoints of one upstream, and changes to them.

use std::sync::Arc;

use hyper::StatusCode;
use serde::Deserialize;
use weir_config::limits::ENDPOINTS_MAX;

use super::ApiCall;
use super::operations::Names;
use super::reload::draining;
use super::reply::Reply;
use super::upstreams;
use crate::control::endpoint_overrides::{EndpointOverrides, Lifetime, addable};
use crate::control::{Control, State};
use crate::obs::process;
use crate::plan::{EndpointSet, EndpointState};

/// An endpoint to add.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewEndpoint {
    address: String,
    weight: Option<u32>,
    #[serde(default)]
    persist: bool,
}

/// What to change of an endpoint.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndpointPatch {
    state: Option<EndpointState>,
    weight: Option<u32>,
    #[serde(default)]
    persist: bool,
}

/// The largest weight.
pub(super) const WEIGHT_MAX: u32 = 65_535;

/// The endpoints of an upstream.
pub(super) fn list(control: &Control, names: &Names) -> Result<Reply, Reply> {
    let state = control.state.borrow();
    let upstream = upstreams::find(&state, names)?;
    Ok(Reply::json(
        &upstream.show_endpoints(control.cores.upstreams()),
    ))
}

/// One endpoint.
pub(super) fn show(control: &Control, names: &Names) -> Result<Reply, Reply> {
    show_with(control, names, StatusCode::OK)
}

fn show_with(control: &Control, names: &Names, status: StatusCode) -> Result<Reply, Reply> {
    let state = control.state.borrow();
    let upstream = upstreams::find(&state, names)?;
    let index = upstream.find_endpoint(&names.address);
    let shown = index.and_then(|index| upstream.show_endpoint(control.cores.upstreams(), index));
    let shown = shown.ok_or_else(|| Reply::no_endpoint(&names.upstream, &names.address))?;
    Ok(Reply::with(status, &shown))
}

/// Adds an endpoint.
pub(super) async fn add(
    call: &ApiCall<'_>,
    names: &Names,
    new: NewEndpoint,
) -> Result<Reply, Reply> {
    let endpoint = addable(&new.address).map_err(Reply::impossible)?;
    check_weight(new.weight)?;
    let names = Names {
        upstream: names.upstream.clone(),
        address: endpoint.to_string(),
    };
    let (asked, lifetime) = (names.clone(), lifetime(new.persist));
    let plan = move |state: &State| {
        let upstream = upstreams::find(state, &asked)?;
        if upstream.find_endpoint(&asked.address).is_some() {
            let message = format!(
                "upstream `{}` has `{}` already",
                asked.upstream, asked.address
            );
            return Err(Reply::error(StatusCode::CONFLICT, "exists", message));
        }
        if upstream.set.endpoints.len() >= ENDPOINTS_MAX {
            let message = format!("an upstream has at most {ENDPOINTS_MAX} endpoints");
            return Err(Reply::impossible(message));
        }
        let planned = state.plan.upstream(upstream.id);
        if endpoint.tls && planned.is_none_or(|planned| planned.tls.is_none()) {
            return Err(Reply::impossible(format!(
                "no endpoint of `{}` in the file begins with https://, so Weir is not set up for TLS to it",
                asked.upstream
            )));
        }
        let mut overrides = state.overrides.clone();
        let base = base_set(state, upstream.id.0)?;
        let named = (&*asked.upstream, &*asked.address);
        overrides.add(&base, named, new.weight, lifetime);
        Ok(overrides)
    };
    let message = format!("added endpoint {}{}", names.shown(), kept(new.persist));
    let answer = move |control: &Control| show_with(control, &names, StatusCode::CREATED);
    change(call, plan, answer, message).await
}

/// Changes the state or the weight of an endpoint.
pub(super) async fn patch(
    call: &ApiCall<'_>,
    names: &Names,
    patch: EndpointPatch,
) -> Result<Reply, Reply> {
    check_weight(patch.weight)?;
    let EndpointPatch {
        state: wanted,
        weight,
        persist,
    } = patch;
    if wanted.is_none() && weight.is_none() {
        return Err(Reply::impossible("set `state`, `weight` or both"));
    }
    let state_words = wanted.map(|state| format!("state {}", state.name()));
    let weight_words = weight.map(|weight| format!("weight {weight}"));
    let words: Vec<_> = state_words.into_iter().chain(weight_words).collect();
    let message = format!(
        "endpoint {}: {}{}",
        names.shown(),
        words.join(", "),
        kept(persist)
    );
    let asked = names.clone();
    let plan = move |state: &State| {
        let (id, address) = find(state, &asked)?;
        let mut overrides = state.overrides.clone();
        let base = base_set(state, id)?;
        let named = (&*asked.upstream, &*address);
        overrides.patch(&base, named, (wanted, weight), lifetime(persist));
        Ok(overrides)
    };
    let names = names.clone();
    change(call, plan, move |control| show(control, &names), message).await
}

/// Removes an endpoint. Requests under way to it finish.
pub(super) async fn remove(call: &ApiCall<'_>, names: &Names, query: &str) -> Result<Reply, Reply> {
    let persist = match query {
        "" | "persist=false" => false,
        "persist" | "persist=true" => true,
        _ => {
            let message = format!("`{query}` is no parameter: write `persist=true`");
            return Err(Reply::impossible(message));
        }
    };
    let message = format!("removed endpoint {}{}", names.shown(), kept(persist));
    let asked = names.clone();
    let plan = move |state: &State| {
        let (id, address) = find(state, &asked)?;
        let mut overrides = state.overrides.clone();
        let base = base_set(state, id)?;
        overrides.remove(&base, (&asked.upstream, &address), lifetime(persist));
        Ok(overrides)
    };
    change(call, plan, |_| Ok(Reply::done()), message).await
}

/// The number of the upstream, and the endpoint's name, that a path names.
fn find(state: &State, names: &Names) -> Result<(u32, Arc<str>), Reply> {
    let upstream = upstreams::find(state, names)?;
    let index = upstream.find_endpoint(&names.address);
    let spec = index.and_then(|index| upstream.set.endpoints.get(index));
    let spec = spec.ok_or_else(|| Reply::no_endpoint(&names.upstream, &names.address))?;
    Ok((upstream.id.0, spec.name.clone()))
}

fn base_set(state: &State, upstream: u32) -> Result<Arc<EndpointSet>, Reply> {
    let set = state.base_endpoints.iter().nth(upstream as usize);
    set.cloned()
        .ok_or_else(|| Reply::not_found("upstream", &upstream.to_string()))
}

fn check_weight(weight: Option<u32>) -> Result<(), Reply> {
    match weight {
        Some(weight) if weight > WEIGHT_MAX => Err(Reply::impossible(format!(
            "`weight` is {weight}, at most {WEIGHT_MAX}"
        ))),
        _ => Ok(()),
    }
}

fn lifetime(persist: bool) -> Lifetime {
    match persist {
        true => Lifetime::Kept,
        false => Lifetime::UntilReload,
    }
}

fn kept(persist: bool) -> &'static str {
    match persist {
        true => ", to persist",
        false => "",
    }
}

/// Replaces the overrides by those of `plan` once no other change is under way, waits until all cores use the new endpoints,
/// and logs `message`. `answer` runs before the next change begins, so it shows the effect of this one.
async fn change(
    call: &ApiCall<'_>,
    plan: impl FnOnce(&State) -> Result<EndpointOverrides, Reply> + 'static,
    answer: impl FnOnce(&Control) -> Result<Reply, Reply> + 'static,
    message: String,
) -> Result<Reply, Reply> {
    let (control, peer) = (call.control.clone(), call.peer);
    let changed = tokio::task::spawn_local(async move {
        let _turn = control.change_lock.lock().await;
        if control.draining.get() {
            return Err(draining());
        }
        let (base, overrides) = {
            let state = control.state.borrow();
            (state.base_endpoints.clone(), plan(&state)?)
        };
        control.use_endpoints(base, overrides).await;
        process::info(format_args!("admin API, {peer}: {message}"));
        answer(&control)
    });
    changed.await.unwrap_or_else(|_| {
        let message = "the change has panicked, which is a bug of Weir's";
        Err(Reply::error(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            message,
        ))
    })
}
