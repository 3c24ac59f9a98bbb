//! Errors of the data path, and what follows from each.
//!
//! A [`Fault`] is the one error type of the data path. Its [`Reason`] gives the status, the stable code, the
//! Proxy-Status error type and the text of the answer; [`Retry`] says whether another attempt may follow. The tables
//! stand here so that no caller decides any of that itself.

use std::io::{self, ErrorKind};

use rustix::io::Errno;
use weir_proto_h1::Error as H1Error;
use weir_proto_h2::Error as H2Error;

use crate::tls::TlsFailure;

/// Which side of the proxy failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client, or the way to it.
    Downstream,
    /// The endpoint, or the way to it.
    Upstream,
    /// Weir itself: a limit, a policy, its configuration.
    Local,
}

/// The stage at which the exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Reading the request's head.
    Head,
    /// Choosing a route.
    Route,
    /// Choosing an endpoint, connecting.
    Connect,
    /// Sending the request.
    Send,
    /// Waiting for the response's head.
    FirstByte,
    /// Relaying the response's body.
    Body,
}

/// When another attempt is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Never.
    Never,
    /// Always: no byte of the request was sent, or the endpoint says that it has not processed the request.
    Always,
    /// If the method is idempotent, so that repeating the request does no harm (RFC 9110, section 9.2.2).
    IfIdempotent,
}

/// Why an exchange failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The side that failed.
    pub side: Side,
    /// The stage at which it failed.
    pub phase: Phase,
    /// Why it failed.
    pub reason: Reason,
    /// Whether the exchange may make another attempt.
    pub retry: Retry,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident $code:literal $status:literal $proxy:literal;)+) => {
        /// Why Weir answered a request with an error, or broke an exchange off. Its code appears in the access
        /// log, in metrics, in `Proxy-Status` and in the body of the answer. A published code never changes its
        /// meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[doc = $doc])+ $name,)+ }

        impl Reason {
            /// All reasons, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The stable code.
            pub const fn code(self) -> &'static str { match self { $(Self::$name => $code,)+ } }

            /// The status of the answer.
            pub const fn status(self) -> u16 { match self { $(Self::$name => $status,)+ } }

            /// The Proxy-Status error type (RFC 9209, section 2.3).
            pub const fn proxy_status(self) -> &'static str { match self { $(Self::$name => $proxy,)+ } }

            /// One sentence for people, in the body of the answer and in the reference.
            pub const fn text(self) -> &'static str { match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ } }
        }
    };
}

reasons! {
    /// The request is not valid HTTP.
    BadRequest "bad_request" 400 "http_request_error";
    /// The Host field is missing, repeated, or not a valid host.
    BadHost "bad_host" 400 "http_request_error";
    /// The framing of the request is ambiguous: the length of its body is uncertain.
    BadFraming "bad_framing" 400 "http_request_error";
    /// The path has a backslash, an encoded NUL or broken percent-encoding, or an endpoint that reads the path or query
    /// differently would see another route's request.
    BadPath "bad_path" 400 "http_request_error";
    /// The connection did not begin with a PROXY protocol header, or its peer may not send one.
    NotIntroduced "not_introduced" 400 "http_request_error";
    /// The client spoke TLS or another protocol to a plain HTTP listener.
    NotHttp "not_http" 400 "http_request_error";
    /// The client spoke plain HTTP to a TLS listener; use https.
    PlainHttp "plain_http" 400 "http_request_error";
    /// The request target is longer than the listener allows.
    TargetTooLong "target_too_long" 414 "http_request_error";
    /// The head of the request is larger, or has more fields, than the listener allows.
    HeadTooLarge "head_too_large" 431 "http_request_error";
    /// The body of the request is larger than the route allows.
    BodyTooLarge "body_too_large" 413 "http_request_denied";
    /// The method is not allowed here; the Allow field lists the allowed ones.
    MethodNotAllowed "method_not_allowed" 405 "http_request_denied";
    /// Weir supports no expectation other than 100-continue.
    ExpectationFailed "expectation_failed" 417 "http_request_error";
    /// Weir supports no transfer coding other than chunked.
    UnsupportedCoding "unsupported_coding" 501 "http_request_error";
    /// Weir supports no upgrade other than websocket.
    UnsupportedProtocol "unsupported_protocol" 501 "http_request_error";
    /// Weir does not support this HTTP version.
    VersionNotSupported "version_not_supported" 505 "http_request_error";
    /// The head of the request did not arrive in time.
    HeadTimeout "head_timeout" 408 "http_request_error";
    /// The body of the request stalled.
    BodyTimeout "body_timeout" 408 "http_request_error";
    /// The client closed the connection before the exchange ended.
    ClientClosed "client_closed" 499 "connection_terminated";
    /// The client stopped reading the response.
    ClientStalled "client_stalled" 499 "connection_write_timeout";
    /// A preflight asks for an origin that `cors` does not list.
    OriginDenied "origin_denied" 403 "http_request_denied";
    /// No route matches the request.
    NoRoute "no_route" 404 "destination_not_found";
    /// The request has passed this proxy before, or has passed too many proxies.
    Loop "loop" 508 "proxy_loop_detected";
    /// The client asked by TLS for a server name that `passthrough` does not have.
    UnknownServerName "unknown_server_name" 404 "destination_not_found";
    /// The connection did not begin with a TLS handshake that Weir can read.
    BadClientHello "bad_client_hello" 400 "http_request_error";
    /// The client's address may not send this request.
    IpDenied "ip_denied" 403 "http_request_denied";
    /// The request has no token, and the route requires one.
    TokenMissing "token_missing" 401 "http_request_denied";
    /// The token is malformed, is not signed by a key of its issuer, is for another audience, or is not valid yet.
    TokenInvalid "token_invalid" 401 "http_request_denied";
    /// The token has expired.
    TokenExpired "token_expired" 401 "http_request_denied";
    /// The request has several tokens, or several Authorization fields.
    TokenAmbiguous "token_ambiguous" 400 "http_request_error";
    /// The token is valid, but does not grant what the route requires.
    InsufficientScope "insufficient_scope" 403 "http_request_denied";
    /// Weir has not got the keys of the token's issuer yet, so it cannot verify the token.
    KeysUnavailable "keys_unavailable" 503 "destination_unavailable";
    /// The client has sent more requests than a limit allows; Retry-After says when it may send the next.
    RateLimit "rate_limit" 429 "http_request_denied";
    /// The client already has as many requests at once as it may have.
    ConcurrencyLimit "concurrency_limit" 429 "http_request_denied";
    /// The client's address already has as many connections as it may have.
    ClientLimit "client_limit" 429 "connection_limit_reached";
    /// The listener, or the whole process, already has as many connections as it may have.
    ConnectionLimit "connection_limit" 503 "connection_limit_reached";
    /// The messages in transit exceeded the memory limit, and this connection held most of that memory.
    MemoryLimit "memory_limit" 503 "connection_limit_reached";
    /// The upstream has no endpoint to try.
    NoEndpoint "no_endpoint" 503 "destination_unavailable";
    /// None of the upstream's host names was found. Weir keeps looking them up.
    Unresolved "unresolved" 503 "dns_error";
    /// Every endpoint has as many connections as it may have, and the queue for them is full.
    UpstreamLimit "upstream_limit" 503 "connection_limit_reached";
    /// The upstream has failed too often, or has as many requests as it may have; Retry-After says when to try again.
    CircuitOpen "circuit_open" 503 "destination_unavailable";
    /// The upstream has as many requests as it can serve without growing slower.
    UpstreamOverloaded "upstream_overloaded" 503 "destination_unavailable";
    /// No connection to an endpoint became free in time.
    QueueTimeout "queue_timeout" 503 "connection_limit_reached";
    /// No endpoint accepted a connection.
    ConnectFailed "connect_failed" 502 "connection_refused";
    /// No endpoint accepted a connection in time.
    ConnectTimeout "connect_timeout" 504 "connection_timeout";
    /// The endpoint's Unix socket does not exist.
    ConnectNoSocket "connect_no_socket" 502 "connection_refused";
    /// The system denies Weir the connection to the endpoint: the mode of a Unix socket, or a local firewall.
    ConnectDenied "connect_denied" 502 "connection_refused";
    /// No route leads to the endpoint.
    ConnectUnreachable "connect_unreachable" 502 "destination_ip_unroutable";
    /// Weir or the machine has no file descriptor left for a connection to an endpoint.
    NoDescriptors "no_descriptors" 503 "connection_limit_reached";
    /// No local port is left for a connection to the endpoint.
    NoPorts "no_ports" 503 "connection_limit_reached";
    /// The machine has no memory left for a connection to an endpoint.
    NoSocketMemory "no_socket_memory" 503 "connection_limit_reached";
    /// Weir does not trust the endpoint's certificate.
    UpstreamTlsCertificate "upstream_tls_certificate" 502 "tls_certificate_error";
    /// The endpoint refused the TLS connection.
    UpstreamTlsAlert "upstream_tls_alert" 502 "tls_alert_received";
    /// The TLS handshake with the endpoint failed.
    UpstreamTlsFailed "upstream_tls_failed" 502 "tls_protocol_error";
    /// The endpoint closed the connection before it answered.
    UpstreamClosed "upstream_closed" 502 "connection_terminated";
    /// The endpoint did not answer in time.
    FirstByteTimeout "first_byte_timeout" 504 "http_response_timeout";
    /// The endpoint's answer stalled.
    UpstreamStalled "upstream_stalled" 504 "connection_read_timeout";
    /// The endpoint did not read the request in time.
    UpstreamNotReading "upstream_not_reading" 504 "connection_write_timeout";
    /// Neither side of a connection that Weir passes on has sent anything in time.
    IdleTimeout "idle_timeout" 504 "connection_timeout";
    /// The table of flows was full, and this one had been silent longest.
    FlowEvicted "flow_evicted" 503 "connection_limit_reached";
    /// The exchange exceeded its total time limit.
    TotalTimeout "total_timeout" 504 "http_response_timeout";
    /// The endpoint's answer is not valid HTTP.
    BadResponse "bad_response" 502 "http_protocol_error";
    /// The head of the endpoint's answer is too large.
    ResponseHeadTooLarge "response_head_too_large" 502 "http_response_header_section_size";
    /// The endpoint's answer ended before it was complete.
    ResponseTruncated "response_truncated" 502 "http_response_incomplete";
    /// The endpoint speaks HTTP/2 only, which has no upgrade, or it switched protocols unasked or to another protocol
    /// than the client asked for.
    BadUpgrade "bad_upgrade" 502 "http_upgrade_failed";
    /// The core already makes as many sub-requests as it may.
    CallLimit "call_limit" 503 "connection_limit_reached";
    /// The answer to a sub-request has a larger body than Weir keeps.
    CallTooLarge "call_too_large" 502 "http_response_body_size";
    /// The authorization server did not answer, failed, or sent an answer that Weir cannot pass on.
    AuthUnavailable "auth_unavailable" 503 "destination_unavailable";
    /// Weir is shutting down and the grace period is over.
    ShuttingDown "shutting_down" 503 "destination_unavailable";
    /// Weir has a bug. Please report it.
    Internal "internal" 500 "proxy_internal_error";
}

impl Reason {
    /// Why the HTTP/1.1 parser refused a request.
    pub const fn from_request(error: H1Error) -> Self {
        match error {
            H1Error::TargetTooLong => Self::TargetTooLong,
            H1Error::HeadTooLarge | H1Error::TooManyFields | H1Error::TrailersTooLarge => {
                Self::HeadTooLarge
            }
            H1Error::UnsupportedVersion => Self::VersionNotSupported,
            H1Error::UnsupportedTransferCoding => Self::UnsupportedCoding,
            H1Error::BadExpectation => Self::ExpectationFailed,
            H1Error::MissingHost | H1Error::RepeatedHost | H1Error::BadHost => Self::BadHost,
            H1Error::BadPercentEncoding | H1Error::Backslash | H1Error::EncodedNul => Self::BadPath,
            H1Error::BadContentLength
            | H1Error::ConflictingContentLength
            | H1Error::LengthAndEncoding
            | H1Error::BadTransferEncoding
            | H1Error::EncodingInHttp10
            | H1Error::BadChunkSize
            | H1Error::BadChunk
            | H1Error::ChunkLineTooLong => Self::BadFraming,
            H1Error::Truncated => Self::ClientClosed,
            H1Error::OutOfOrder => Self::Internal,
            _ => Self::BadRequest,
        }
    }

    /// Whether an endpoint can cause it. Metrics have a series for each endpoint and each of these reasons from the
    /// start.
    pub const fn is_of_endpoint(self) -> bool {
        matches!(
            self,
            Self::ConnectFailed
                | Self::ConnectTimeout
                | Self::ConnectNoSocket
                | Self::ConnectDenied
                | Self::ConnectUnreachable
                | Self::UpstreamTlsCertificate
                | Self::UpstreamTlsAlert
                | Self::UpstreamTlsFailed
                | Self::UpstreamClosed
                | Self::FirstByteTimeout
                | Self::UpstreamStalled
                | Self::UpstreamNotReading
                | Self::BadResponse
                | Self::ResponseHeadTooLarge
                | Self::ResponseTruncated
                | Self::BadUpgrade
        )
    }

    /// Why a connect to an endpoint failed.
    pub fn from_connect(error: &io::Error) -> Self {
        let is_any = |of: [Errno; 2]| {
            let of = of.map(|errno| Some(errno.raw_os_error()));
            of.contains(&error.raw_os_error())
        };
        match error.kind() {
            _ if is_any([Errno::MFILE, Errno::NFILE]) => Self::NoDescriptors,
            _ if is_any([Errno::NOBUFS, Errno::NOMEM]) => Self::NoSocketMemory,
            ErrorKind::NotFound => Self::ConnectNoSocket,
            ErrorKind::PermissionDenied => Self::ConnectDenied,
            ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
                Self::ConnectUnreachable
            }
            ErrorKind::AddrNotAvailable => Self::NoPorts,
            ErrorKind::TimedOut => Self::ConnectTimeout,
            _ => Self::ConnectFailed,
        }
    }

    /// Why a TLS handshake with an endpoint failed.
    pub const fn from_tls(failure: Option<TlsFailure>) -> Self {
        match failure {
            Some(
                TlsFailure::PeerCertificateExpired
                | TlsFailure::PeerCertificateUnknownIssuer
                | TlsFailure::PeerCertificateName
                | TlsFailure::PeerCertificateRevoked
                | TlsFailure::PeerCertificateBad
                | TlsFailure::PeerCertificateMissing,
            ) => Self::UpstreamTlsCertificate,
            Some(
                TlsFailure::CertificateRefused
                | TlsFailure::Alert
                | TlsFailure::NoCertificate
                | TlsFailure::Version
                | TlsFailure::Cipher
                | TlsFailure::Alpn,
            ) => Self::UpstreamTlsAlert,
            _ => Self::UpstreamTlsFailed,
        }
    }

    /// As [`Reason::from_request`], but [`Reason::NotHttp`] if the connection began with a TLS handshake.
    pub fn from_request_bytes(error: H1Error, bytes: &[u8]) -> Self {
        if weir_proto_h1::looks_like_tls(bytes) == Some(true) {
            Self::NotHttp
        } else {
            Self::from_request(error)
        }
    }
}

impl From<H2Error> for Reason {
    /// Why the HTTP/2 machine refused a request or broke it off.
    fn from(error: H2Error) -> Self {
        match error {
            H2Error::HeadTooLarge | H2Error::TooManyFields => Self::HeadTooLarge,
            H2Error::TargetTooLong => Self::TargetTooLong,
            H2Error::BadExpectation => Self::ExpectationFailed,
            H2Error::BadAuthority | H2Error::MissingAuthority | H2Error::BadHost => Self::BadHost,
            H2Error::BadContentLength | H2Error::BodyTooLong | H2Error::BodyTooShort => {
                Self::BadFraming
            }
            H2Error::ShuttingDown => Self::ShuttingDown,
            H2Error::HoldsTooMuch => Self::MemoryLimit,
            H2Error::NotReading => Self::ClientStalled,
            H2Error::BodyOverrun | H2Error::BodyUnderrun => Self::ResponseTruncated,
            H2Error::StreamGone | H2Error::OutOfOrder | H2Error::NoRoom | H2Error::CannotOpen => {
                Self::Internal
            }
            _ => Self::BadRequest,
        }
    }
}

impl Fault {
    /// A fault of the client, or of the connection to it.
    pub const fn downstream(phase: Phase, reason: Reason) -> Self {
        Self {
            side: Side::Downstream,
            phase,
            reason,
            retry: Retry::Never,
        }
    }

    /// A fault of the endpoint, or of the connection to it.
    pub const fn upstream(phase: Phase, reason: Reason, retry: Retry) -> Self {
        Self {
            side: Side::Upstream,
            phase,
            reason,
            retry,
        }
    }

    /// A failed connect. No byte was sent, so another endpoint may be tried. If this machine lacks descriptors or
    /// memory, no endpoint is to blame and another one would fail too.
    pub const fn connect(reason: Reason) -> Self {
        let (side, retry) = match reason {
            Reason::NoDescriptors | Reason::NoSocketMemory => (Side::Local, Retry::Never),
            // Each remote address has its own range of local ports.
            Reason::NoPorts => (Side::Local, Retry::Always),
            _ => (Side::Upstream, Retry::Always),
        };
        Self {
            side,
            phase: Phase::Connect,
            reason,
            retry,
        }
    }

    /// A fault that Weir itself causes.
    pub const fn local(phase: Phase, reason: Reason) -> Self {
        Self {
            side: Side::Local,
            phase,
            reason,
            retry: Retry::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weir never sends 499: it stands for a client that is gone.
    #[test]
    fn every_status_of_an_answer_has_a_phrase() {
        for reason in Reason::ALL {
            let phrase = weir_proto_h1::encode::reason(reason.status());
            assert_eq!(phrase.is_empty(), reason.status() == 499, "{reason:?}");
        }
    }

    #[test]
    fn each_connect_error_has_its_reason() {
        let cases = [
            (
                Errno::MFILE,
                Reason::NoDescriptors,
                Side::Local,
                Retry::Never,
            ),
            (
                Errno::NFILE,
                Reason::NoDescriptors,
                Side::Local,
                Retry::Never,
            ),
            (
                Errno::NOBUFS,
                Reason::NoSocketMemory,
                Side::Local,
                Retry::Never,
            ),
            (
                Errno::NOMEM,
                Reason::NoSocketMemory,
                Side::Local,
                Retry::Never,
            ),
            (
                Errno::ADDRNOTAVAIL,
                Reason::NoPorts,
                Side::Local,
                Retry::Always,
            ),
            (
                Errno::ACCESS,
                Reason::ConnectDenied,
                Side::Upstream,
                Retry::Always,
            ),
            (
                Errno::PERM,
                Reason::ConnectDenied,
                Side::Upstream,
                Retry::Always,
            ),
            (
                Errno::NOENT,
                Reason::ConnectNoSocket,
                Side::Upstream,
                Retry::Always,
            ),
            (
                Errno::CONNREFUSED,
                Reason::ConnectFailed,
                Side::Upstream,
                Retry::Always,
            ),
            (
                Errno::TIMEDOUT,
                Reason::ConnectTimeout,
                Side::Upstream,
                Retry::Always,
            ),
            (
                Errno::HOSTUNREACH,
                Reason::ConnectUnreachable,
                Side::Upstream,
                Retry::Always,
            ),
            (
                Errno::NETUNREACH,
                Reason::ConnectUnreachable,
                Side::Upstream,
                Retry::Always,
            ),
        ];
        for (errno, reason, side, retry) in cases {
            let found = Reason::from_connect(&errno.into());
            assert_eq!(found, reason, "{errno:?}");
            let fault = Fault::connect(found);
            assert_eq!((fault.side, fault.retry), (side, retry), "{errno:?}");
        }
    }
}
