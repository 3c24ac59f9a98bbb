//! The tables of a file, one declaration each. Keys, types, defaults, documentation, schema and
//! reference all come from here and from `layers.rs`; nothing is checked against anything yet.

use std::borrow::Cow;
use std::num::NonZeroU32;

use crate::address::{CidrText, CoresKind, EndpointText, ListenText, TrustedPeerText};
use crate::decode::At;
use crate::forms::{
    FieldName, ListenName, LogText, MediaType, ModeText, ParameterName, RedirectStatus,
    RespondShort, UpstreamName, ValueKind, Weight,
};
use crate::kinds::{
    Choice, Count, Entry, Forms, Many, Named, OrOff, Placed, PlainText, Scoped, Tables, Tried,
};
use crate::layers::{Http2Patch, LimitsPatch, PoolPatch, RetriesPatch, TimeoutsPatch};
use crate::limits::{self, BACKLOG_MAX, CONNECTIONS_MAX, RETRIES_MAX};
use crate::model::{
    AccessLog, Address, Balance, Cidr, Cores, Driver, EncodedSlash, Endpoint, ForwardedHeader,
    HostMatch, LogFormat, LogTarget, Match, PathMatch, Pattern, Redirect, Respond, Rewrite,
    TrustedPeer, Underscores, ValueMatch,
};
use crate::pattern::{
    FieldValueText, HostText, MatchText, MethodText, PathPatternText, PathText, PatternText,
};
use crate::process::{AbsoluteFile, Account, AccountKind};
use crate::request::{RequestLine, RequestText};
use crate::scopes::{InListener, InRoute, InUpstream};
use crate::table::{frame, table};
use crate::tls::{
    Flag, HttpsPort, ListenTls, ListenTlsKind, NamedFile, ProxyProtocol, RawUpstreamTls,
};

table! {
    /// The whole file.
    File, "file", "The top level" {
        /// Which CPU cores run the data path: a number counts cores, a string names them.
        preset(limits::CORES) cores: Cores = "cores" as CoresKind;
        /// What drives each core's io_uring: `ring` is Weir's own and needs Linux 6.1, `monoio` needs 5.19, and
        /// `auto` takes the first that the kernel grants.
        preset(limits::DRIVER) driver: Driver = "driver" as Choice<Driver>;
        /// The user that Weir becomes, by name or number, when it was started as root: after its sockets are bound,
        /// before anything is served. Only the right to bind ports below 1024 is kept, and only if a listener has one.
        /// Unless set, the user that started Weir.
        optional user: Account = "user" as AccountKind;
        /// The group that Weir gets with `user`; all others are given up. The user's own group unless set.
        optional group: Account = "group" as AccountKind;
        /// A file that holds the number of the process while it serves. None unless set.
        optional pid_file: NamedFile = "pid_file" as AbsoluteFile;
        /// Where metrics and the health of Weir itself are served. Off unless set.
        optional admin: At<Address> = "admin" as Placed<ListenText>;
        /// Where a line about every exchange goes.
        preset(limits::ACCESS_LOG) access_log: Option<AccessLog> =
            "access_log" as OrOff<Forms<LogText, RawAccessLog>>;
        /// Peers whose forwarded fields are believed: networks, listeners that are Unix sockets, or `unix:` for all
        /// of these. None unless set: from others such fields are dropped (`config/fields.md`).
        optional trusted_proxies: Vec<At<TrustedPeer>> =
            "trusted_proxies" as Many<Placed<TrustedPeerText>>;
        /// The field in which trusted peers say who asked. They own it and its kin; the other one is dropped,
        /// because most load balancers pass on what clients say in it. Set "forwarded" for balancers that write
        /// `Forwarded` (RFC 7239).
        preset(limits::FORWARDED_HEADER) forwarded_header: ForwardedHeader =
            "forwarded_header" as Choice<ForwardedHeader>;
        /// Time limits; upstreams and routes may differ.
        optional timeouts: TimeoutsPatch = "timeouts" as TimeoutsPatch;
        /// Limits of size, number and rate; routes may differ.
        optional limits: LimitsPatch = "limits" as LimitsPatch;
        /// HTTP/2: what one connection may ask of Weir, be it a client's or an endpoint's.
        optional http2: Http2Patch = "http2" as Http2Patch;
        /// When a failed attempt is repeated; upstreams and routes may differ. A number is `count`.
        optional retries: RetriesPatch = "retries" as Forms<OrOff<Count<0, RETRIES_MAX>>, RetriesPatch>;
        /// Addresses that accept connections, at least one.
        optional listeners: Vec<Entry<RawListener>> = "listen" as Named<ListenName, RawListener>;
        /// Groups of endpoints that serve the same thing. A list is `servers`.
        optional upstreams: Vec<Entry<RawUpstream>> =
            "upstream" as Named<UpstreamName, Forms<Many<Placed<Server>>, RawUpstream>>;
        /// Which requests go where, at least one.
        optional routes: Vec<RawRoute> = "route" as Tables<RawRoute>;
        /// Requests and what must become of them. `weir check` runs these.
        optional tests: Vec<RawTest> = "test" as Tables<RawTest>;
    }
}

table! {
    /// The long form of `access_log`.
    RawAccessLog, "access_log", "[access_log]" {
        /// The destination: standard output, a file that is appended to, or a FIFO that somebody reads.
        required to: LogTarget = "to" as LogText;
        /// The form of a line.
        preset(limits::LOG_FORMAT) format: LogFormat = "format" as Choice<LogFormat>;
        /// Query parameters whose values are replaced, also in `Referer`, besides those that are known to
        /// hold secrets, such as `token`, `password`, `api_key` and `signature`. Neither case, nor
        /// punctuation, nor percent-encoding of a name matters. `"off"` shows all.
        optional redact: Option<Vec<String>> = "redact" as OrOff<Many<ParameterName>>;
        /// Fields of the request that lines have too, at most 16. Of credentials and cookies only
        /// their kind or name is shown.
        optional request_headers: At<Vec<At<String>>> =
            "request_headers" as Placed<Many<Placed<PlainText>>>;
        /// The same of the answer, as the client gets it.
        optional response_headers: At<Vec<At<String>>> =
            "response_headers" as Placed<Many<Placed<PlainText>>>;
    }
}

table! {
    /// An address that accepts connections: IP:PORT, [IPV6]:PORT or unix:/PATH.
    RawListener, "listen", "[listen.\"ADDR\"]" {
        /// Connections at once, all cores together, in place of `limits.connections`.
        optional connections: At<u32> = "connections" as Placed<Count<1, CONNECTIONS_MAX>>;
        /// The same by client address, in place of `limits.connections_per_client`.
        optional connections_per_client: At<u32> =
            "connections_per_client" as Placed<Count<1, CONNECTIONS_MAX>>;
        /// Length of the kernel's queue of connections that wait to be accepted.
        preset(limits::BACKLOG) backlog: u32 = "backlog" as Count<1, BACKLOG_MAX>;
        /// Whether HTTP/2 is spoken here with clients that do: chosen by ALPN over TLS, known beforehand
        /// in the clear.
        preset(limits::LISTEN_HTTP2) http2: bool = "http2" as Flag;
        /// Whether every answer carries the request id of log and endpoint, as `X-Request-Id`. An
        /// endpoint's own gives way to it.
        preset(limits::LISTEN_REQUEST_ID) request_id: bool = "request_id" as Flag;
        /// TLS. Without it, HTTP is spoken in the clear.
        optional tls: At<Option<ListenTls>> = "tls" as Placed<ListenTlsKind>;
        /// Sends every request to `https`: `true` for port 443, or another port. Clients keep method
        /// and body (308), and remember. What a trusted proxy says that it was asked over `https` is served.
        optional redirect_https: At<Option<u16>> = "redirect_https" as Placed<HttpsPort>;
        /// Networks of load balancers that say in the PROXY protocol (v1 or v2) whose each
        /// connection is. They must say it, and others are refused.
        optional proxy_protocol: Vec<Cidr> = "proxy_protocol" as Many<CidrText>;
        /// Permissions of a Unix socket's file, octal; else the umask has its say.
        optional mode: At<u32> = "mode" as Placed<ModeText>;
        /// What becomes of request fields whose names have other characters than letters, digits and hyphens:
        /// endpoints behind CGI, WSGI or PHP take `X_User` for `X-User`. "keep" keeps those that cannot be taken
        /// for a field that Weir knows. A gRPC request keeps underscores and dots.
        preset(limits::UNDERSCORES) underscores: Underscores = "underscores" as Choice<Underscores>;
        /// Time limits for connections of this listener. Only `head` and `idle` matter here.
        optional timeouts: TimeoutsPatch = "timeouts" as Scoped<InListener, TimeoutsPatch>;
    }
}

table! {
    /// A named group of endpoints that serve the same thing.
    RawUpstream, "upstream", "[upstream.NAME]" {
        /// The endpoints, at least one.
        required servers: Vec<At<Endpoint>> = "servers" as Many<Placed<Server>>;
        /// How an endpoint is chosen.
        preset(limits::BALANCE) balance: Balance = "balance" as Choice<Balance>;
        /// Connections kept to the endpoints.
        optional pool: PoolPatch = "pool" as PoolPatch;
        /// TLS towards those endpoints that begin with `https://`.
        optional tls: RawUpstreamTls = "tls" as RawUpstreamTls;
        /// Has every connection begin with the client's address, in the PROXY protocol. Each client
        /// then has connections of its own, and these are of HTTP/1.1.
        optional proxy_protocol: ProxyProtocol = "proxy_protocol" as Choice<ProxyProtocol>;
        /// Time limits in place of the top level's.
        optional timeouts: TimeoutsPatch = "timeouts" as Scoped<InUpstream, TimeoutsPatch>;
        /// Retry rules in place of the top level's. A number is `count`.
        optional retries: RetriesPatch = "retries" as Forms<OrOff<Count<0, RETRIES_MAX>>, RetriesPatch>;
    }
}

/// An endpoint, short or long.
pub(crate) type Server = Forms<EndpointText, RawServer>;

table! {
    /// The long form of an endpoint.
    RawServer, "server", "an endpoint of [upstream.NAME]" {
        /// Where it is: HOST:PORT, http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT or unix:/PATH.
        required address: Endpoint = "address" as EndpointText;
        /// Its share of requests in proportion to the others'.
        preset(limits::WEIGHT) weight: NonZeroU32 = "weight" as Weight;
    }
}

table! {
    /// A match and what to do with the requests that it takes. Exactly one of `to`, `redirect` and
    /// `respond` must be there. Which route is asked first: one for an exact host before one for
    /// a wildcard (the longest first) and that before one for any host; then the paths are compared
    /// segment by segment from the left, and where two first differ, text goes before a parameter
    /// and that before a star: a path in full before all others, `/users/admin/*` before
    /// `/users/{id}/*`; then the order of the file. A route whose predicates do not hold gives way
    /// to the next.
    RawRoute, "route", "[[route]]" {
        /// Which requests it takes: HOST/PATH. Without a host it takes every host; `*.` in front of
        /// one stands for one label or more. A star at the end of the path stands for any rest,
        /// even none, and `/v1/*` takes `/v1` too unless a route names that; `{name}` stands for one
        /// segment.
        required matches: At<Option<Match>> = "match" as Tried<Forms<MatchText, RawMatch>>;
        /// A name for logs, metrics and tests; else the text of the match.
        optional name: At<String> = "name" as Placed<PlainText>;
        /// The upstream that gets the requests.
        optional to: At<Option<String>> = "to" as Tried<PlainText>;
        /// Where the client is sent instead.
        optional redirect: At<Option<Redirect>> = "redirect" as Tried<Forms<PatternText, RawRedirect>>;
        /// An answer given by Weir itself: a status, a body, or both and more.
        optional respond: At<Option<Respond>> = "respond" as Tried<Forms<RespondShort, RawRespond>>;
        /// What is taken off the front of the path on its way upstream.
        optional strip: At<Option<String>> = "strip" as Tried<PlainText>;
        /// The path as it goes upstream: a text with placeholders, or one prefix for another.
        optional replace: At<Option<Rewrite>> = "replace" as Tried<Forms<PathPatternText, RawReplace>>;
        /// Requests with `%2F` or `%5C` in the path: `auto` passes them as they came, and answers 400 where an
        /// endpoint that decodes them would see a path of another route; `keep` trusts the endpoints to take them
        /// for characters; `refuse` answers 400. `config/paths.md` says how paths are matched and forwarded.
        preset(limits::ENCODED_SLASH) encoded_slash: EncodedSlash = "encoded_slash" as Choice<EncodedSlash>;
        /// What becomes of request fields with odd names on their way upstream, in place of the listener's
        /// `underscores`, which says what `match` sees.
        optional underscores: At<Underscores> = "underscores" as Placed<Choice<Underscores>>;
        /// Time limits in place of the upstream's and the top level's.
        optional timeouts: TimeoutsPatch = "timeouts" as Scoped<InRoute, TimeoutsPatch>;
        /// Limits in place of the top level's. Only `body` and `body_rate` matter here.
        optional limits: LimitsPatch = "limits" as Scoped<InRoute, LimitsPatch>;
        /// Retry rules in place of the upstream's and the top level's. A number is `count`.
        optional retries: RetriesPatch = "retries" as Forms<OrOff<Count<0, RETRIES_MAX>>, RetriesPatch>;
    }
}

table! {
    /// The long form of a match. All parts must hold.
    RawMatch, "match", "match of [[route]]" {
        /// A host, a wildcard, which stands for one label or more, or several of these; `"*"` is any
        /// host. Any host unless set.
        optional host: At<Option<Vec<HostMatch>>> = "host" as Tried<Many<HostText>>;
        /// A path, a prefix with a star at its end, a template, or several of these. Any path unless
        /// set.
        optional path: At<Option<Vec<PathMatch>>> = "path" as Tried<Many<PathText>>;
        /// One of these methods. Any method unless set.
        optional method: Vec<String> = "method" as Many<MethodText>;
        /// Header fields that must be there. A string is the whole value; `true` means any
        /// value, `false` none.
        optional header: Vec<Entry<ValueMatch>> = "header" as Named<FieldName, ValueKind>;
        /// Query parameters that must be there, written like header fields.
        optional query: Vec<Entry<ValueMatch>> = "query" as Named<FieldName, ValueKind>;
        /// The client's certificate: `true` for any, `false` for none, or its subject or one of
        /// its names, such as `DNS:a.example.com`; the value is written like a header field's.
        optional client_cert: ValueMatch = "client_cert" as ValueKind;
    }
}

table! {
    /// The long form of a value to compare with.
    RawValueMatch, "value", "a value of match" {
        /// What the value must begin with.
        required prefix: String = "prefix" as PlainText;
    }
}

table! {
    /// The long form of a redirect.
    RawRedirect, "redirect", "redirect of [[route]]" {
        /// The new address: {host}, {path}, {query}, {rest} and parameters of the match are
        /// filled in from the request.
        required location: Pattern = "location" as PatternText;
        /// 301, 302, 303, 307 or 308.
        preset(limits::REDIRECT_STATUS) status: u16 = "status" as RedirectStatus;
    }
}

table! {
    /// The long form of a fixed answer.
    RawRespond, "respond", "respond of [[route]]" {
        /// The status, final.
        preset(limits::RESPOND_STATUS) status: u32 = "status" as Count<200, 599>;
        /// The body.
        optional body: At<String> = "body" as Placed<PlainText>;
        /// The body's media type.
        preset(limits::RESPOND_CONTENT_TYPE) content_type: Cow<'static, str> =
            "content_type" as MediaType;
        /// Further header fields.
        optional headers: Vec<Entry<String>> = "headers" as Named<FieldName, FieldValueText>;
    }
}

table! {
    /// The long form of `replace`: one prefix for another.
    RawReplace, "replace", "replace of [[route]]" {
        /// What every path of the route begins with.
        required prefix: String = "prefix" as PlainText;
        /// What comes in its place.
        required with: String = "with" as PlainText;
    }
}

table! {
    /// A request and what must become of it. At least one of `route`, `upstream` and `status`
    /// must be there.
    RawTest, "test", "[[test]]" {
        /// METHOD URL.
        required request: At<RequestLine> = "request" as Placed<RequestText>;
        /// Header fields of the request.
        optional headers: Vec<Entry<String>> = "headers" as Named<FieldName, FieldValueText>;
        /// The certificate that the client shows: its subject, such as `CN=a,O=Example`, its
        /// names, such as `DNS:a.example.com`, or several of these. None unless set.
        optional client_cert: Vec<String> = "client_cert" as Many<PlainText>;
        /// The name of the route that must take it.
        optional route: At<String> = "route" as Placed<PlainText>;
        /// The name of the upstream that must get it.
        optional upstream: At<String> = "upstream" as Placed<PlainText>;
        /// The status that Weir itself must answer with.
        optional status: u32 = "status" as Count<100, 599>;
    }
}
