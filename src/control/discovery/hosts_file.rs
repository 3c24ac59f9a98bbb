//! The hosts file: names whose addresses need no DNS server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::control::limits;
use crate::files;

/// The names in a hosts file, in lower case, with their addresses in file order.
#[derive(Debug, Default)]
pub(super) struct HostsFile(Vec<(IpAddr, Vec<String>)>);

impl HostsFile {
    /// Reads `/etc/hosts`. A file that cannot be read has no names.
    pub(super) fn read() -> Self {
        let bytes = files::read(Path::new("/etc/hosts"), limits::HOSTS_FILE_BYTES_MAX);
        Self::parse(&String::from_utf8_lossy(&bytes.unwrap_or_default()))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| {
            let mut words = line.split('#').next()?.split_ascii_whitespace();
            // A scope (`fe80::1%lo`) is of no use to an endpoint.
            let address = words.next()?.parse().ok()?;
            Some((address, words.map(str::to_ascii_lowercase).collect()))
        });
        Self(lines.collect())
    }

    /// The addresses of a name in lower case; empty if the file does not have it. `localhost` always has addresses
    /// (RFC 6761, section 6.3).
    pub(super) fn addresses(&self, host: &str) -> Vec<IpAddr> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let lines = self.0.iter();
        let lines = lines.filter(|(_, names)| names.iter().any(|name| name == host));
        let mut found: Vec<IpAddr> = Vec::new();
        for (address, _) in lines {
            if !found.contains(address) {
                found.push(*address);
            }
        }
        if found.is_empty() && (host == "localhost" || host.ends_with(".localhost")) {
            found.push(Ipv4Addr::LOCALHOST.into());
            found.push(Ipv6Addr::LOCALHOST.into());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_on_any_line_and_in_any_case() {
        let hosts = HostsFile::parse(
            "# here\n127.0.0.1 localhost\n10.0.0.1\tApp app.internal # the app\n\
             10.0.0.2 app\n10.0.0.2 app\n::2 app\nfe80::1%lo odd\nx y\n10.0.0.3\n",
        );
        let found = |host: &str| {
            let addresses = hosts.addresses(host);
            addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found("app"), ["10.0.0.1", "10.0.0.2", "::2"]);
        assert_eq!(found("app.internal"), ["10.0.0.1"]);
        assert_eq!(found("localhost"), ["127.0.0.1"]);
        assert_eq!(found("a.localhost"), ["127.0.0.1", "::1"]);
        for missing in ["the", "odd", "y", "app.internal.x", ""] {
            assert!(hosts.addresses(missing).is_empty(), "{missing}");
        }
    }
}
