//! The parts that a user configures, a file each: how it is written, what it means, its defaults and its checks.

pub(crate) mod access_log;
pub(crate) mod address_claims;
pub(crate) mod admin;
pub(crate) mod balance;
pub(crate) mod cores;
pub(crate) mod endpoint;
pub(crate) mod http2;
pub(crate) mod limits;
pub(crate) mod listener;
pub(crate) mod listener_tls;
pub(crate) mod placeholder_check;
pub(crate) mod pool;
pub(crate) mod redirect;
pub(crate) mod request_match;
pub(crate) mod respond;
pub(crate) mod retries;
pub(crate) mod rewrite;
pub(crate) mod route;
pub(crate) mod route_conflicts;
pub(crate) mod routes;
pub(crate) mod test_block;
pub(crate) mod timeouts;
pub(crate) mod trusted_proxies;
pub(crate) mod upstream;
pub(crate) mod upstream_tls;
pub(crate) mod user;
