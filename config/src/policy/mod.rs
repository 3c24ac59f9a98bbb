//! Policies: keys that may stand in a route, in a set of policies (`[policy.NAME]`) and at the top level.
//!
//! A key means the same at each of these levels. What a route has of a policy is what its levels say together: the top
//! level, then its sets in the order of `use`, then its own keys. `"off"` takes away what the lower levels say. The
//! policy says how the remaining settings combine ([`Policy::combine`](level::Policy::combine)):
//!
//! - `ip`, `limit` and `concurrency` add up: each setting becomes an entry with its [`Origin`].
//! - Tables merge by key: the highest level that sets a key decides it.
//! - Single values replace those below.
//!
//! # To add a policy
//!
//! 1. Write `policy/NAME.rs`: a public type that says what a route has of the policy, and a kind that reads the key's
//!    value: a `table!`, mostly with a short form. `ShortOrLong` joins both, as in `cors.rs`; a kind of its own reads
//!    `true` or a table, as in `security_headers.rs`. `"off"` is read for it. Implement [`Policy`](level::Policy) for it:
//!    `combine` makes the public type of the settings of all levels, and checks what depends on the [`Place`]: the
//!    parameters of the route's match, the names of upstreams. `decode` checks all else, once for each place of the
//!    file. `no_effect` names the routes on which a setting does nothing, if there are any.
//! 2. Add a row to `policies!` below, with the text of the reference. Routes, sets and the top level have the key now.
//!    This crate compiles; `weir` does not until it uses the new field of [`Policies`].
//! 3. Export the type in `lib.rs`. Write the key into `examples/everything.toml`, an example of its own, and a section
//!    of `policies.md`. `WEIR_UPDATE=1 cargo test -p weir-config` writes the reference and the expected messages.
//!
//! [`Place`]: level::Place

pub(crate) mod compress;
pub(crate) mod concurrency;
pub(crate) mod cors;
mod declare;
pub(crate) mod errors;
pub(crate) mod forward_auth;
pub(crate) mod headers;
pub(crate) mod ip;
pub(crate) mod jwt;
pub(crate) mod level;
pub(crate) mod limit;
pub(crate) mod limit_key;
pub(crate) mod limit_list;
pub(crate) mod limit_rate;
pub(crate) mod mirror;
pub(crate) mod origin_pattern;
pub(crate) mod security_headers;
pub(crate) mod sets;

use crate::decode::shape::ForeignName;

use self::compress::{Compress, CompressKind};
use self::concurrency::{Concurrency, ConcurrencyKind};
use self::cors::{Cors, CorsKind};
use self::declare::policies;
use self::errors::{Errors, ErrorsKind};
use self::forward_auth::{ForwardAuth, ForwardAuthKind};
use self::headers::{HeaderRules, HeadersKind};
use self::ip::{IpKind, IpRules};
use self::jwt::Jwt;
use self::jwt::kind::JwtKind;
use self::limit::{Limit, LimitKind};
use self::mirror::{Mirror, MirrorKind};
use self::security_headers::{SecurityHeaders, SecurityHeadersKind};

/// What other proxies call the policies.
const FOREIGN_NAMES: &[ForeignName] = &[
    (
        &[
            "proxy_set_header",
            "set_header",
            "header_up",
            "request_header",
            "request_headers",
            "request_headers_to_add",
            "customRequestHeaders",
        ],
        "`headers = { request = { set = { ... } } }`",
    ),
    (
        &[
            "add_header",
            "more_set_headers",
            "header_down",
            "response_header",
            "response_headers",
            "response_headers_to_add",
            "customResponseHeaders",
        ],
        "`headers = { response = { set = { ... } } }`",
    ),
    (
        &[
            "proxy_hide_header",
            "hide_headers",
            "response_headers_to_remove",
        ],
        "`headers = { response = { remove = [...] } }`",
    ),
    (
        &[
            "allow",
            "whitelist",
            "allowlist",
            "ip_whitelist",
            "ip_allowlist",
            "ipWhiteList",
            "ipAllowList",
            "source_range",
            "sourceRange",
            "remote_ip",
        ],
        "`ip = { allow = [...] }`",
    ),
    (
        &["blacklist", "denylist", "blocklist", "ip_blacklist"],
        "`ip = { deny = [...] }`",
    ),
    (&["deny"], "`ip = { deny = [...] }`, or `respond = 403`"),
    (
        &[
            "limit_req",
            "limit_req_zone",
            "rate_limit",
            "rate_limits",
            "rateLimit",
            "ratelimit",
            "rate_limiting",
            "local_rate_limit",
            "throttle",
        ],
        "`limit`",
    ),
    (
        &[
            "limit_conn",
            "limit_conn_zone",
            "inFlightReq",
            "in_flight",
            "in_flight_req",
        ],
        "`concurrency`",
    ),
    (
        &[
            "auth_request",
            "auth_request_set",
            "ext_authz",
            "authelia",
            "auth_basic",
            "basic_auth",
            "basicAuth",
        ],
        "`forward_auth`",
    ),
    (
        &[
            "auth_jwt",
            "auth_jwt_key_file",
            "jwt_authn",
            "jwt_auth",
            "jwt_verify",
            "bearer",
        ],
        "`jwt`",
    ),
    (
        &[
            "gzip",
            "gzip_types",
            "brotli",
            "br",
            "zstd",
            "deflate",
            "encode",
        ],
        "`compress`",
    ),
    (
        &[
            "error_page",
            "error_pages",
            "errorfile",
            "handle_errors",
            "custom_errors",
        ],
        "`errors`",
    ),
    (
        &[
            "hsts",
            "sts_seconds",
            "stsSeconds",
            "secure_headers",
            "frame_deny",
            "frameDeny",
            "x_frame_options",
        ],
        "`security_headers`",
    ),
    (
        &[
            "shadow",
            "mirroring",
            "request_mirror",
            "request_mirror_policies",
            "traffic_mirror",
            "proxy_mirror",
        ],
        "`mirror`",
    ),
    (
        &[
            "allow_origin",
            "allow_origins",
            "accessControlAllowOriginList",
        ],
        "`cors`",
    ),
];

policies! {
    /// What a route does beside its target, or the top level where no route matches: in the file's words, with all
    /// levels combined.
    Policies, RawPolicies, "[policy.NAME]", foreign FOREIGN_NAMES {
        /// Fields that Weir removes, sets and adds: in requests on their way to endpoints, and in answers on their way to
        /// clients. It changes what the endpoints get and not what `match` sees.
        policy headers: Option<HeaderRules> = "headers" as HeadersKind;

        /// The clients that may send requests. The client is the one that `trusted_proxies` reveals; any other gets 403.
        /// Set it to close a route to the world, or to keep single networks out. The rules of all levels must let a
        /// client in.
        policy ip: Vec<IpRules> = "ip" as IpKind;

        /// Which pages of other origins may read answers. A list of origins, or a table. Set it if web pages from another
        /// host, port or scheme call your service. Weir answers preflights itself.
        policy cors: Option<Cors> = "cors" as CorsKind;

        /// How many requests a client may send in a time. A request over it gets 429. The limits of all levels hold, and
        /// a request that one of them refuses counts for none.
        policy limits: Vec<Limit> = "limit" as LimitKind;

        /// How many requests a client may have at once. One more gets 429. The limits of all levels hold.
        policy concurrency: Vec<Concurrency> = "concurrency" as ConcurrencyKind;

        /// Asks another server whether a request may pass: a URL, the name of an upstream, or a table. An answer of 2xx
        /// lets it pass; any other goes to the client, so that the server can send it to a login page.
        policy forward_auth: Option<ForwardAuth> = "forward_auth" as ForwardAuthKind;

        /// Compression of answers for clients that accept it. Set `true` for text, JSON and the like, or a list of
        /// algorithms, the preferred ones first; the table has the rest. Do not compress answers that mix a secret with
        /// what others can make the client send.
        policy compress: Option<Compress> = "compress" as CompressKind;

        /// Requests need a valid token (JWT): 401 without, 403 if it does not grant what `require` asks for. Set it to
        /// verify tokens once, before any endpoint sees the request. [policies.md](policies.md#jwt) says what Weir checks.
        policy jwt: Option<Jwt> = "jwt" as JwtKind;

        /// What clients get in place of error answers, by status (`502`), class (`5xx`) or reason (`no_route`); the most
        /// specific key wins. Set it to show pages of your own. `"off"` for one key takes away what lower levels say.
        policy errors: Errors = "errors" as ErrorsKind;

        /// Fields that make browsers careful with answers: HTTPS only, no guessing of types, no frames of other sites,
        /// little in `Referer`. `true` sets them all; a table changes single ones.
        policy security_headers: Option<SecurityHeaders> = "security_headers" as SecurityHeadersKind;

        /// Sends copies of requests to another upstream and throws their answers away: the name of an upstream, `"NAME,
        /// 5%"` for a share of the requests, or a table. Set it to try a new version under real load. Requests that a
        /// policy refuses and upgrades are not copied. [load-balancing.md](load-balancing.md#mirroring) has the rules.
        policy mirror: Option<Mirror> = "mirror" as MirrorKind;
    }
}

policies! {
    /// What a listener does with every request, before Weir chooses a route.
    ListenerPolicies, RawListenerPolicies, "[listen.\"ADDR\"]" {
        /// The clients that may send requests to this listener, whatever their routes: also requests without a route,
        /// and those that `redirect_https` redirects. Any other gets 403. The rules of the route hold as well.
        policy ip: Vec<IpRules> = "ip" as IpKind;

        /// How many requests a client may send to this listener in a time, whatever their routes: also requests without
        /// a route, and those that `redirect_https` redirects. The limits of the route hold as well.
        policy limits: Vec<Limit> = "limit" as LimitKind;

        /// How many requests a client may have at once on this listener, whatever their routes. The limits of the route
        /// hold as well.
        policy concurrency: Vec<Concurrency> = "concurrency" as ConcurrencyKind;
    }
}
