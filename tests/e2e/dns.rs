//! A DNS server for tests, over UDP and TCP (RFC 1035).

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// A server with the records that a test sets. It runs until the test's process ends.
pub struct DnsServer {
    /// Where it listens.
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

#[derive(Default)]
struct Zone {
    names: BTreeMap<String, DnsName>,
    /// Queries by name and type.
    asked: BTreeMap<(String, u16), usize>,
}

/// What the server says of a name.
#[derive(Clone)]
pub enum DnsName {
    /// Records with this TTL, in seconds.
    Records(u32, Vec<DnsRecord>),
    /// The same, over TCP only: an answer over UDP is truncated.
    Truncated(u32, Vec<DnsRecord>),
    /// No answer.
    Silence,
    /// SERVFAIL.
    Failure,
}

/// A record.
#[derive(Clone)]
pub enum DnsRecord {
    /// A or AAAA.
    Address(IpAddr),
    /// SRV: priority, weight, port and target.
    Srv(u16, u16, u16, String),
}

impl DnsServer {
    /// A server that knows no names: each does not exist.
    pub fn start() -> Self {
        // Another process may have the same port over TCP.
        let (udp, tcp) = std::iter::repeat_with(|| {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            let tcp = TcpListener::bind(udp.local_addr().unwrap());
            tcp.map(|tcp| (udp, tcp))
        })
        .take(100)
        .find_map(Result::ok)
        .unwrap();
        let server = Self {
            address: udp.local_addr().unwrap(),
            zone: Arc::default(),
        };
        let zone = server.zone.clone();
        spawn(move || {
            let mut query = [0; 1500];
            while let Ok((length, peer)) = udp.recv_from(&mut query) {
                if let Some(answer) = answer(&zone, &query[..length], false) {
                    let _ = udp.send_to(&answer, peer);
                }
            }
        });
        let zone = server.zone.clone();
        spawn(move || {
            for stream in tcp.incoming() {
                let (mut stream, zone) = (stream.unwrap(), zone.clone());
                spawn(move || {
                    let mut length = [0; 2];
                    while stream.read_exact(&mut length).is_ok() {
                        let mut query = vec![0; u16::from_be_bytes(length).into()];
                        let read = stream.read_exact(&mut query);
                        let Some(answer) = read.ok().and_then(|()| answer(&zone, &query, true))
                        else {
                            break;
                        };
                        let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                        let _ = stream.write_all(&[&length[..], &answer].concat());
                    }
                });
            }
        });
        server
    }

    /// The line of the configuration that names this server.
    pub fn key(&self, more: &str) -> String {
        format!("dns = {{ servers = [\"{}\"]{more} }}\n", self.address)
    }

    /// Sets what the server says of a name.
    pub fn set(&self, name: &str, says: DnsName) {
        self.zone
            .lock()
            .unwrap()
            .names
            .insert(name.to_owned(), says);
    }

    /// Gives a name these addresses, with a TTL in seconds.
    pub fn set_addresses(&self, name: &str, ttl: u32, addresses: &[&str]) {
        let records = addresses
            .iter()
            .map(|ip| DnsRecord::Address(ip.parse().unwrap()));
        self.set(name, DnsName::Records(ttl, records.collect()));
    }

    /// Removes a name.
    pub fn remove(&self, name: &str) {
        self.zone.lock().unwrap().names.remove(name);
    }

    /// How often clients have asked for A records of a name.
    pub fn asked(&self, name: &str) -> usize {
        let zone = self.zone.lock().unwrap();
        zone.asked.get(&(name.to_owned(), A)).copied().unwrap_or(0)
    }
}

/// The answer to a query; `None` for silence.
fn answer(zone: &Mutex<Zone>, query: &[u8], is_tcp: bool) -> Option<Vec<u8>> {
    let (name, end) = read_name(query)?;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let question = query.get(12..end + 4)?;
    let mut zone = zone.lock().unwrap();
    *zone.asked.entry((name.clone(), kind)).or_default() += 1;
    let (mut code, mut truncated, mut found) = (0, false, Vec::new());
    let mut lifetime = 0;
    match zone.names.get(&name) {
        None => code = 3,
        Some(DnsName::Silence) => return None,
        Some(DnsName::Failure) => code = 2,
        Some(DnsName::Truncated(..)) if !is_tcp => truncated = true,
        Some(DnsName::Records(ttl, records) | DnsName::Truncated(ttl, records)) => {
            lifetime = *ttl;
            found = records.iter().filter_map(|one| one.data(kind)).collect();
        }
    }
    // An answer, with recursion desired and available.
    let flags: u16 = 0x8180 | code | if truncated { 0x0200 } else { 0 };
    let mut out = query.get(..2)?.to_vec();
    let count = u16::try_from(found.len()).unwrap();
    for number in [flags, 1, count, 0, 0] {
        out.extend(number.to_be_bytes());
    }
    out.extend(question);
    for data in found {
        // The name of the question, by a pointer.
        out.extend([0xC0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend(1_u16.to_be_bytes());
        out.extend(lifetime.to_be_bytes());
        out.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(data);
    }
    Some(out)
}

/// The name in the question, in lower case, and the offset behind it.
fn read_name(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        let label = query.get(at..at + length)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += length;
    }
}

impl DnsRecord {
    fn data(&self, kind: u16) -> Option<Vec<u8>> {
        match self {
            Self::Address(IpAddr::V4(ip)) if kind == A => Some(ip.octets().into()),
            Self::Address(IpAddr::V6(ip)) if kind == AAAA => Some(ip.octets().into()),
            Self::Srv(priority, weight, port, target) if kind == SRV => {
                let numbers = [priority, weight, port].map(|number| number.to_be_bytes());
                let mut data = numbers.concat();
                for label in target.split('.').filter(|label| !label.is_empty()) {
                    data.push(u8::try_from(label.len()).unwrap());
                    data.extend(label.as_bytes());
                }
                data.push(0);
                Some(data)
            }
            _ => None,
        }
    }
}
