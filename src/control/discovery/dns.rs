//! Asks DNS for addresses and SRV records. This is the only module that names hickory.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{RData, RecordType};
use weir_config::{Dns, is_of_one_machine};

use super::hosts_file::HostsFile;
use crate::control::limits;

/// Looks up names. It holds the system's files as they were when it was made, so callers make a new one for each round of
/// lookups. It caches no answers.
pub(super) struct DnsClient {
    hosts: HostsFile,
    /// Why nothing can be asked, in words.
    resolver: Result<TokioResolver, String>,
    settings: Dns,
}

/// The addresses of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundAddresses {
    /// Each address once: IPv4 first, then IPv6.
    pub(super) addresses: Vec<IpAddr>,
    /// When to look them up again.
    pub(super) ttl: Duration,
    /// The lookup of a family failed, so its addresses may be missing.
    pub(super) missing: Option<AddressFamily>,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressFamily {
    /// IPv4: A records.
    V4,
    /// IPv6: AAAA records.
    V6,
}

impl AddressFamily {
    /// Whether `address` belongs to the family.
    pub(super) fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

/// One SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SrvRecord {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// The host in lower case, without the last dot; empty for a service that decidedly does not exist.
    pub(super) target: String,
}

/// The SRV records of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FoundServices {
    pub(super) records: Vec<SrvRecord>,
    /// When to look them up again.
    pub(super) ttl: Duration,
}

impl DnsClient {
    /// A client with these settings. Reads the hosts file and, without servers in the settings, `resolv.conf`.
    pub(super) fn new(settings: &Dns) -> Self {
        Self {
            hosts: HostsFile::read(),
            resolver: resolver(settings),
            settings: settings.clone(),
        }
    }

    /// Looks up the addresses of a host.
    ///
    /// # Errors
    /// Why there are none, in words.
    pub(super) async fn addresses(&self, host: &str) -> Result<FoundAddresses, String> {
        let known = self.hosts.addresses(host);
        if !known.is_empty() {
            return Ok(FoundAddresses {
                addresses: known,
                ttl: limits::HOSTS_FILE_AGE,
                missing: None,
            });
        }
        let resolver = self.resolver.as_ref()?;
        let (v4, v6) = tokio::join!(
            resolver.lookup(host, RecordType::A),
            resolver.lookup(host, RecordType::AAAA),
        );
        merge(answer(v4)?, answer(v6)?, &self.settings)
    }

    /// Looks up the SRV records of a name.
    ///
    /// # Errors
    /// Why there are none, in words.
    pub(super) async fn services(&self, name: &str) -> Result<FoundServices, String> {
        let resolver = self.resolver.as_ref()?;
        let found = resolver.lookup(name, RecordType::SRV).await;
        let found = found.map_err(|error| in_words(&error))?;
        let records = found.answers().iter().filter_map(|one| match &one.data {
            RData::SRV(srv) => Some(SrvRecord {
                priority: srv.priority,
                weight: srv.weight,
                port: srv.port,
                target: srv
                    .target
                    .to_string()
                    .trim_end_matches('.')
                    .to_ascii_lowercase(),
            }),
            _ => None,
        });
        Ok(FoundServices {
            records: records.collect(),
            ttl: ttl(&found, &self.settings),
        })
    }
}

fn resolver(settings: &Dns) -> Result<TokioResolver, String> {
    let (config, mut options) = match &settings.servers[..] {
        [] => system_settings()?,
        servers => {
            let mut config = ResolverConfig::default();
            for server in servers {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
                let connections = connections.map(|mut each| {
                    each.port = server.port();
                    each
                });
                // NXDOMAIN is final: the other servers would answer the same.
                let server = NameServerConfig::new(server.ip(), true, connections.into());
                config.add_name_server(server);
            }
            (config, ResolverOpts::default())
        }
    };
    options.timeout = settings.timeout;
    options.attempts = 1;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.max_active_requests = 4 * limits::LOOKUPS_AT_ONCE_MAX;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().map_err(|error| error.to_string())
}

/// The settings of `/etc/resolv.conf`.
fn system_settings() -> Result<(ResolverConfig, ResolverOpts), String> {
    hickory_resolver::system_conf::read_system_conf()
        .map_err(|error| format!("/etc/resolv.conf cannot be used: {error}"))
}

/// What a lookup of one family gave: no records is an answer too.
type FamilyAnswer = Result<Lookup, (bool, String)>;

fn answer(found: Result<Lookup, NetError>) -> Result<FamilyAnswer, String> {
    match found {
        Ok(found) => Ok(Ok(found)),
        // The name does not exist, for either family.
        Err(error) if error.is_nx_domain() => Err(in_words(&error)),
        Err(error) => Ok(Err((error.is_no_records_found(), in_words(&error)))),
    }
}

/// Puts the answers of both families together.
fn merge(v4: FamilyAnswer, v6: FamilyAnswer, settings: &Dns) -> Result<FoundAddresses, String> {
    let mut found = FoundAddresses {
        addresses: Vec::new(),
        ttl: settings.ttl_max,
        missing: None,
    };
    let (mut why, mut refused) = (None, None);
    for (answer, family) in [(v4, AddressFamily::V4), (v6, AddressFamily::V6)] {
        match answer {
            Ok(lookup) => {
                found.ttl = found.ttl.min(ttl(&lookup, settings));
                for record in lookup.answers() {
                    let address = match &record.data {
                        RData::A(address) => IpAddr::from(address.0),
                        RData::AAAA(address) => IpAddr::from(address.0),
                        _ => continue,
                    };
                    if !is_of_one_machine(address) {
                        // Filtering DNS servers answer 0.0.0.0 for names that they block.
                        refused = Some(address);
                    } else if !found.addresses.contains(&address) {
                        found.addresses.push(address);
                    }
                }
            }
            Err((has_none, reason)) => {
                if !has_none {
                    found.missing = Some(family);
                }
                // A failure explains more than an answer without records.
                if why.is_none() || !has_none {
                    why = Some(reason);
                }
            }
        }
    }
    // Servers rotate records. A stable order keeps endpoints from changing with every answer.
    found.addresses.sort_unstable();
    match why {
        _ if found.addresses.is_empty()
            && let Some(address) = refused =>
        {
            Err(format!("DNS gives {address}, which no server can have"))
        }
        Some(why) if found.addresses.is_empty() => Err(why),
        _ if found.addresses.is_empty() => Err("the name has no address".to_owned()),
        _ => Ok(found),
    }
}

/// The time until a lookup of these records is due: the shortest TTL, within the settings' bounds.
fn ttl(found: &Lookup, settings: &Dns) -> Duration {
    let ttls = found.answers().iter().map(|record| record.ttl);
    let ttl = Duration::from_secs(ttls.min().unwrap_or_default().into());
    ttl.clamp(settings.ttl_min, settings.ttl_max)
}

fn in_words(error: &NetError) -> String {
    match error {
        error if error.is_nx_domain() => "the name does not exist".to_owned(),
        error if error.is_no_records_found() => "the name has no such records".to_owned(),
        NetError::Timeout => "the DNS servers do not answer".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the DNS servers answer {code}"),
        error => format!("DNS cannot be asked: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::Query;
    use hickory_resolver::proto::rr::{Name, Record};

    use super::*;

    fn settings() -> Dns {
        Dns {
            ttl_min: Duration::from_secs(5),
            ttl_max: Duration::from_secs(60),
            ..Dns::default()
        }
    }

    fn records(ttl: u32, addresses: &[&str]) -> FamilyAnswer {
        let name = Name::from_ascii("a.test.").unwrap();
        let record = |ip: &&str| {
            let ip: IpAddr = ip.parse().unwrap();
            Record::from_rdata(name.clone(), ttl, RData::from(ip))
        };
        let query = Query::query(name.clone(), RecordType::A);
        Ok(Lookup::new_with_max_ttl(
            query,
            addresses.iter().map(record),
        ))
    }

    fn none() -> FamilyAnswer {
        Err((true, "no records".to_owned()))
    }

    fn down() -> FamilyAnswer {
        Err((false, "down".to_owned()))
    }

    #[test]
    fn both_families_make_one_sorted_answer_with_the_shortest_ttl() {
        let found = merge(
            records(30, &["10.0.0.2", "10.0.0.1", "10.0.0.2"]),
            records(20, &["::1"]),
            &settings(),
        );
        let found = found.unwrap();
        let shown: Vec<_> = found.addresses.iter().map(IpAddr::to_string).collect();
        assert_eq!(shown, ["10.0.0.1", "10.0.0.2", "::1"]);
        assert_eq!((found.ttl, found.missing), (Duration::from_secs(20), None));
        let found = merge(records(0, &["10.0.0.1"]), none(), &settings()).unwrap();
        assert_eq!((found.ttl, found.missing), (Duration::from_secs(5), None));
        let found = merge(none(), records(86_400, &["::1"]), &settings()).unwrap();
        assert_eq!((found.ttl, found.missing), (Duration::from_secs(60), None));
    }

    #[test]
    fn addresses_that_no_server_can_have_are_left_out() {
        let found = merge(records(30, &["0.0.0.0", "10.0.0.1"]), none(), &settings()).unwrap();
        assert_eq!(found.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        let blocked = merge(records(30, &["0.0.0.0"]), records(30, &["::"]), &settings());
        assert!(blocked.unwrap_err().ends_with("which no server can have"));
    }

    #[test]
    fn a_family_that_fails_is_named_and_both_are_a_failure() {
        let found = merge(records(30, &["10.0.0.1"]), down(), &settings()).unwrap();
        assert_eq!(found.missing, Some(AddressFamily::V6));
        assert_eq!(merge(none(), down(), &settings()).unwrap_err(), "down");
        assert_eq!(merge(down(), none(), &settings()).unwrap_err(), "down");
        assert_eq!(
            merge(none(), none(), &settings()).unwrap_err(),
            "no records"
        );
    }
}
