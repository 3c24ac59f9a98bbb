//! What becomes of a listener's connections or datagrams.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use weir_config::{HostMatch, ServerNameRoute, UpstreamTarget};

use super::UpstreamId;

/// What becomes of a listener's connections or datagrams.
#[derive(Clone, Debug)]
pub enum ListenerTarget {
    /// Weir serves HTTP by the plan's routes.
    Http,
    /// Weir passes the bytes of connections to an endpoint of this upstream.
    Tcp(UpstreamId),
    /// Weir passes TLS connections on by the name that the client asks for.
    Passthrough(Arc<ServerNames>),
    /// Weir passes datagrams on.
    Udp(UdpPlan),
}

impl ListenerTarget {
    pub(super) fn compile(target: &weir_config::ListenerTarget) -> Self {
        match target {
            weir_config::ListenerTarget::Http => Self::Http,
            weir_config::ListenerTarget::Tcp(to) => Self::Tcp(id_of(to)),
            weir_config::ListenerTarget::Passthrough(routes) => {
                Self::Passthrough(Arc::new(ServerNames::new(routes)))
            }
            weir_config::ListenerTarget::Udp(udp) => Self::Udp(UdpPlan {
                upstream: id_of(&udp.to),
                idle: udp.idle,
                replies_max: udp.replies,
                flows_max: udp.sessions,
            }),
        }
    }
}

fn id_of(to: &UpstreamTarget) -> UpstreamId {
    UpstreamId(u32::try_from(to.index).unwrap_or(u32::MAX))
}

/// How a listener passes datagrams on. A flow is what one client address and port sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpPlan {
    /// The upstream that gets the datagrams.
    pub upstream: UpstreamId,
    /// How long a flow may be silent.
    pub idle: Duration,
    /// How many answers end a flow; 0 if only silence does.
    pub replies_max: u32,
    /// The most flows at once, over all cores.
    pub flows_max: u32,
}

/// The upstreams of TLS connections by the name that their clients ask for.
#[derive(Debug, Default)]
pub struct ServerNames {
    exact: HashMap<Box<str>, NameTarget>,
    /// By what follows the star and the dot.
    wildcard: HashMap<Box<str>, NameTarget>,
    /// For every other name, and for clients that ask for none.
    any: Option<NameTarget>,
}

/// The upstreams of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTarget {
    /// For clients that offer none of the protocols below.
    pub to: UpstreamId,
    /// By protocol of ALPN.
    pub by_protocol: Vec<(Box<str>, UpstreamId)>,
}

impl NameTarget {
    fn compile(route: &ServerNameRoute) -> Self {
        let protocols = route.alpn.iter();
        Self {
            to: id_of(&route.to),
            by_protocol: protocols
                .map(|(protocol, to)| (protocol.as_str().into(), id_of(to)))
                .collect(),
        }
    }

    /// The upstream for a client with these protocols: that of the first one that has an entry.
    #[must_use]
    pub fn choose(&self, protocols: &[Box<[u8]>]) -> UpstreamId {
        let entry = |protocol: &[u8]| {
            let mut entries = self.by_protocol.iter();
            entries.find(|(name, _)| name.as_bytes() == protocol)
        };
        let found = protocols.iter().find_map(|protocol| entry(protocol));
        found.map_or(self.to, |(_, to)| *to)
    }
}

impl ServerNames {
    fn new(routes: &[ServerNameRoute]) -> Self {
        let mut names = Self::default();
        for route in routes {
            let to = NameTarget::compile(route);
            match &route.name {
                HostMatch::Any => names.any = Some(to),
                HostMatch::Exact(name) => drop(names.exact.insert(name.as_str().into(), to)),
                HostMatch::Wildcard(name) => drop(names.wildcard.insert(name.as_str().into(), to)),
            }
        }
        names
    }

    /// The upstreams for a client that asks for this name, in any case of letters: the entry of the whole name, else the
    /// longest wildcard, else `*`.
    #[must_use]
    pub fn find(&self, name: Option<&str>) -> Option<&NameTarget> {
        let any = self.any.as_ref();
        let Some(name) = name else { return any };
        let lower = name.to_ascii_lowercase();
        let name = lower.strip_suffix('.').unwrap_or(&lower);
        let parents = name.match_indices('.').filter(|(at, _)| *at > 0);
        let parents = parents.filter_map(|(at, _)| name.get(at + 1..));
        let wildcard = || {
            parents
                .into_iter()
                .find_map(|parent| self.wildcard.get(parent))
        };
        self.exact.get(name).or_else(wildcard).or(any)
    }

    /// Every entry: its name as in the file, with the protocol if it has one, and its upstream.
    pub fn entries(&self) -> impl Iterator<Item = (String, UpstreamId)> {
        let exact = self.exact.iter().map(|(name, to)| (name.to_string(), to));
        let wildcard = self.wildcard.iter();
        let wildcard = wildcard.map(|(name, to)| (format!("*.{name}"), to));
        let any = self.any.iter().map(|to| ("*".to_owned(), to));
        exact.chain(wildcard).chain(any).flat_map(|(name, target)| {
            let protocols = target.by_protocol.iter();
            let of_protocols: Vec<_> = protocols
                .map(|(protocol, to)| (format!("{name} {protocol}"), *to))
                .collect();
            of_protocols.into_iter().chain([(name, target.to)])
        })
    }
}

/// The protocol below HTTP that a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Connections: TCP, or a Unix stream socket.
    Stream,
    /// Datagrams: UDP.
    Datagram,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream => "tcp",
            Self::Datagram => "udp",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> ServerNames {
        let routes = of.iter().zip(0..).map(|(name, index)| ServerNameRoute {
            name: match name.strip_prefix("*.") {
                Some(domain) => HostMatch::Wildcard(domain.to_owned()),
                None if *name == "*" => HostMatch::Any,
                None => HostMatch::Exact((*name).to_owned()),
            },
            to: UpstreamTarget {
                index,
                position: weir_config::Position::default(),
            },
            alpn: Vec::new(),
        });
        ServerNames::new(&routes.collect::<Vec<_>>())
    }

    #[test]
    fn the_most_specific_entry_has_the_name() {
        let all = names(&["db.example.com", "*.example.com", "*.eu.example.com", "*"]);
        let find = |name| all.find(name).map(|target| target.to.0);
        assert_eq!(find(Some("db.example.com")), Some(0));
        assert_eq!(find(Some("DB.Example.COM")), Some(0));
        assert_eq!(find(Some("db.example.com.")), Some(0));
        assert_eq!(find(Some("www.example.com")), Some(1));
        assert_eq!(find(Some("a.b.example.com")), Some(1));
        assert_eq!(find(Some("a.eu.example.com")), Some(2));
        assert_eq!(find(Some("example.com")), Some(3));
        assert_eq!(find(Some(".example.com")), Some(3));
        assert_eq!(find(None), Some(3));
        assert_eq!(names(&["*.example.com"]).find(None), None);
        assert_eq!(names(&["*.example.com"]).find(Some("example.com")), None);
    }

    #[test]
    fn the_first_protocol_with_an_entry_decides() {
        let target = NameTarget {
            to: UpstreamId(0),
            by_protocol: vec![
                ("h2".into(), UpstreamId(1)),
                ("acme-tls/1".into(), UpstreamId(2)),
            ],
        };
        let choose = |offered: &[&str]| {
            let offered: Vec<Box<[u8]>> =
                offered.iter().map(|name| name.as_bytes().into()).collect();
            target.choose(&offered).0
        };
        assert_eq!(choose(&[]), 0);
        assert_eq!(choose(&["http/1.1"]), 0);
        assert_eq!(choose(&["\u{a}\u{a}", "h2", "http/1.1"]), 1);
        assert_eq!(choose(&["acme-tls/1"]), 2);
        assert_eq!(choose(&["acme-tls/1", "h2"]), 2);
        assert_eq!(choose(&["H2"]), 0);
    }
}
