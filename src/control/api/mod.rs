//! The admin API: what runs, as JSON, and changes to it without a change of the file.
//!
//! [`operations::OPERATIONS`] lists what it can do; the router and the OpenAPI description both follow from that table.
//! Each resource has a file. A change runs as a task of its own, so that a client that leaves cannot stop it half-way.

mod access;
mod body;
mod changes;
mod config;
mod endpoints;
mod explain;
mod open_api;
mod operations;
mod reload;
mod reply;
mod routes;
mod upgrade;
mod upstreams;

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Request, Response, StatusCode};

pub use explain::{ExplainHook, ExplainRequest};

use super::admin_pages;
use super::admin_slots::AdminSlot;
use super::shared_pages::PageBody;
use super::{AdminToken, Control};
pub(super) use access::RefusalLog;
use access::{Access, Caller};
use operations::{Action, Found};
use reply::Reply;

/// Where a client of the admin listener is.
#[derive(Clone, Copy, Debug)]
pub(super) enum AdminPeer {
    /// Behind a TCP connection from this address.
    Tcp(SocketAddr),
    /// On this machine, with access to the Unix socket.
    Unix,
}

/// Whether the API answers for this path.
pub(super) fn has(path: &str) -> bool {
    path == ROOT || path.starts_with("/api/")
}

/// The path of the description.
const ROOT: &str = "/api";

/// A request to the API that may be answered.
struct ApiCall<'c> {
    control: &'c Rc<Control>,
    slot: &'c Rc<AdminSlot>,
    peer: AdminPeer,
}

/// Answers a request whose path is the API's ([`has`]).
pub(super) async fn answer(
    request: Request<Incoming>,
    control: &Rc<Control>,
    slot: &Rc<AdminSlot>,
    peer: AdminPeer,
) -> Response<PageBody> {
    let call = ApiCall {
        control,
        slot,
        peer,
    };
    let reply = match call.check_access(&request) {
        Ok(()) => call.run(request).await,
        Err(refusal) => refusal,
    };
    respond(reply)
}

fn respond(reply: Reply) -> Response<PageBody> {
    let mut response = Response::new(PageBody(reply.body));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    if reply.status != StatusCode::NO_CONTENT {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if reply.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(allow) = reply.allow.and_then(|allow| allow.parse().ok()) {
        headers.insert(ALLOW, allow);
    }
    response
}

impl ApiCall<'_> {
    fn check_access(&self, request: &Request<Incoming>) -> Result<(), Reply> {
        let AdminPeer::Tcp(client) = self.peer else {
            return Ok(());
        };
        let state = self.control.state.borrow();
        let access = Access {
            admin: state.config.admin.as_ref(),
            token: state.admin_token.as_ref(),
        };
        let caller = Caller {
            client: client.ip(),
            headers: request.headers(),
        };
        access.check(&caller).map_err(|refusal| {
            let log = &self.control.refused_tokens;
            log.note(refusal, client.ip(), Instant::now());
            refusal.into()
        })
    }

    async fn run(&self, request: Request<Incoming>) -> Reply {
        let (path, query) = (request.uri().path(), request.uri().query());
        let query = query.map(str::to_owned);
        let Found { action, names } = match operations::find(request.method(), path) {
            Ok(found) => found,
            Err(reply) => return reply,
        };
        let outcome = match action {
            Action::Describe => Ok(Reply::json(&open_api::description())),
            Action::ShowPlan => Ok(self.plan()),
            Action::ListRoutes => Ok(Reply::text(routes::page(self.control))),
            Action::ShowConfig => Ok(config::show(self.control)),
            Action::ListChanges => Ok(changes::list(self.control)),
            Action::Reload => reload::reload(self).await,
            Action::Upgrade => upgrade::upgrade(self).await,
            Action::Explain => match body::read(request).await {
                Ok(asked) => explain::explain(self.control, &asked),
                Err(reply) => Err(reply),
            },
            Action::ListUpstreams => Ok(upstreams::list(self.control)),
            Action::ShowUpstream => upstreams::show(self.control, &names),
            Action::ListEndpoints => endpoints::list(self.control, &names),
            Action::ShowEndpoint => endpoints::show(self.control, &names),
            Action::AddEndpoint => match body::read(request).await {
                Ok(new) => endpoints::add(self, &names, new).await,
                Err(reply) => Err(reply),
            },
            Action::PatchEndpoint => match body::read(request).await {
                Ok(patch) => endpoints::patch(self, &names, patch).await,
                Err(reply) => Err(reply),
            },
            Action::RemoveEndpoint => {
                endpoints::remove(self, &names, query.as_deref().unwrap_or_default()).await
            }
        };
        outcome.unwrap_or_else(|refusal| refusal)
    }

    fn plan(&self) -> Reply {
        let pages = &self.control.plan_pages;
        let page = pages.get(self.slot, |length| admin_pages::plan(self.control, length));
        Reply::page(page)
    }
}

impl std::fmt::Display for AdminPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(client) => write!(f, "{client}"),
            Self::Unix => f.write_str("the Unix socket"),
        }
    }
}
