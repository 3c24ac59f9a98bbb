//! `dns`: the servers that resolve names of endpoints.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::decode::amounts::DurationText;
use crate::decode::decoder::Decoder;
use crate::decode::kinds::{OneOrMany, TextKind};
use crate::decode::preset::{Preset, preset};
use crate::decode::table::{frame, table};
use crate::text::diagnostic::Code;
use crate::text::problem::Problem;

/// How Weir looks up names of endpoints that are not in the hosts file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// The servers to ask; empty for those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// How long Weir waits for an answer to one query.
    pub timeout: Duration,
    /// The shortest time between two lookups of a name that was found.
    pub ttl_min: Duration,
    /// The longest time between two lookups of a name that was found.
    pub ttl_max: Duration,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: TIMEOUT.value,
            ttl_min: TTL_MIN.value,
            ttl_max: TTL_MAX.value,
        }
    }
}

const TIMEOUT: Preset<Duration> = preset(
    Duration::from_secs(2),
    "two queries fit into the 5 s that a start waits",
);

const TTL_MIN: Preset<Duration> =
    preset(Duration::from_secs(1), "as Envoy's `dns_min_refresh_rate`");

const TTL_MAX: Preset<Duration> = preset(
    Duration::from_secs(300),
    "a wrong TTL delays a change for minutes, not days",
);

/// The most servers. More would take longer to try than a start waits.
const SERVERS_MAX: usize = 8;

table! {
    /// How Weir looks up the names of endpoints. A name in `/etc/hosts` has the addresses there.
    RawDns, "dns", "[dns]" {
        /// The servers to ask, by IP address; the port is 53 without one. Without the key, Weir asks those of
        /// `/etc/resolv.conf`, with its search list.
        optional servers: Vec<SocketAddr> = "servers" as OneOrMany<DnsServerText>;
        /// How long Weir waits for the answer to a query. It asks twice.
        preset(TIMEOUT) timeout: Duration = "timeout" as DurationText;
        /// The shortest time between two lookups of a name, whatever the TTL of its records says.
        preset(TTL_MIN) ttl_min: Duration = "ttl_min" as DurationText;
        /// The longest time between two lookups of a name, whatever the TTL of its records says.
        preset(TTL_MAX) ttl_max: Duration = "ttl_max" as DurationText;
    }
}

impl RawDns {
    /// The settings that the table describes.
    pub(crate) fn build(self, cx: &mut Decoder<'_>) -> Dns {
        if self.ttl_min > self.ttl_max {
            let message = "`ttl_min` is longer than `ttl_max`";
            cx.error(Code::Conflict, self.span.clone(), message)
                .help("lower `ttl_min`, or raise `ttl_max`");
        }
        let servers = self.servers.unwrap_or_default();
        if servers.len() > SERVERS_MAX {
            let message = format!("`dns.servers` has at most {SERVERS_MAX} servers");
            cx.error(Code::BadValue, self.span.clone(), message);
        }
        Dns {
            servers,
            timeout: self.timeout,
            ttl_min: self.ttl_min,
            ttl_max: self.ttl_max,
        }
    }
}

/// The address of a DNS server.
pub(crate) struct DnsServerText;

impl TextKind for DnsServerText {
    type Value = SocketAddr;
    const NOUN: &'static str = "an IP address, with or without a port";
    const EXAMPLES: &'static [&'static str] = &["127.0.0.1:53", "192.0.2.53", "[2001:db8::53]:53"];

    fn parse(text: &str) -> Result<SocketAddr, Problem> {
        let bare = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53));
        let address = bare.or_else(|_| text.parse()).ok();
        address.filter(|it| it.port() > 0).ok_or_else(|| {
            Problem::new(format!("`{text}` is not the address of a DNS server"))
                .help("write its IP address: \"192.0.2.53\" or \"192.0.2.53:53\"")
        })
    }
}
