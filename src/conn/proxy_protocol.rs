//! The PROXY protocol, versions 1 and 2. A load balancer sends its header before a connection's own bytes; Weir reads
//! such headers and sends them to endpoints. Source: HAProxy's `doc/proxy-protocol.txt`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use weir_config::ProxyProtocol;

use crate::limits::PROXY_HEADER_BYTES_MAX;

/// The first bytes of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of the signature, version, family and length of version 2.
const FIXED_BYTES: usize = 16;
/// The first bytes of version 1.
const V1_PREFIX: &[u8] = b"PROXY ";
/// The longest line of version 1, with its CRLF.
const LINE_BYTES_MAX: usize = 107;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Its length in bytes.
    pub bytes: usize,
    /// The client; `None` if the connection is the load balancer's own (LOCAL) or the client is not known (UNKNOWN).
    pub source: Option<SocketAddr>,
}

/// The bytes are not a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadProxyHeader;

/// Reads a header. `Ok(None)`: the bytes are only a part of one.
///
/// # Errors
/// The bytes are not a header, or the header is malformed or too long.
pub fn read(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    let begins = |with: &[u8]| {
        let n = bytes.len().min(with.len());
        bytes.get(..n) == with.get(..n)
    };
    if begins(SIGNATURE) {
        return read_v2(bytes);
    }
    if begins(V1_PREFIX) {
        return read_v1(bytes);
    }
    Err(BadProxyHeader)
}

fn read_v1(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n") else {
        return if bytes.len() < LINE_BYTES_MAX {
            Ok(None)
        } else {
            Err(BadProxyHeader)
        };
    };
    let line = bytes
        .get(V1_PREFIX.len()..end)
        .filter(|_| end + 2 <= LINE_BYTES_MAX);
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let line = line.ok_or(BadProxyHeader)?;
    let header = |source| {
        Ok(Some(ProxyHeader {
            bytes: end + 2,
            source,
        }))
    };
    let mut words = line.split(' ');
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        // The specification has receivers ignore the rest of the line.
        return header(None);
    }
    let (source, target) = match family {
        "TCP4" => (
            address::<Ipv4Addr>(words.next()),
            address::<Ipv4Addr>(words.next()),
        ),
        "TCP6" => (
            address::<Ipv6Addr>(words.next()),
            address::<Ipv6Addr>(words.next()),
        ),
        _ => return Err(BadProxyHeader),
    };
    let (source_port, target_port) = (port(words.next()), port(words.next()));
    match (source, target, source_port, target_port, words.next()) {
        (Some(source), Some(_), Some(port), Some(_), None) => {
            header(Some(SocketAddr::new(source, port)))
        }
        _ => Err(BadProxyHeader),
    }
}

fn address<A: std::str::FromStr + Into<IpAddr>>(word: Option<&str>) -> Option<IpAddr> {
    word?.parse::<A>().ok().map(Into::into)
}

fn port(word: Option<&str>) -> Option<u16> {
    let word = word.filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()))?;
    word.parse().ok()
}

fn read_v2(bytes: &[u8]) -> Result<Option<ProxyHeader>, BadProxyHeader> {
    let Some(&[version, family, high, low]) = bytes
        .get(SIGNATURE.len()..FIXED_BYTES)
        .and_then(<[u8]>::first_chunk)
    else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    let total = FIXED_BYTES + length;
    if version >> 4 != 2 || version & 0xf > 1 || total > PROXY_HEADER_BYTES_MAX {
        return Err(BadProxyHeader);
    }
    let Some(rest) = bytes.get(FIXED_BYTES..total) else {
        return Ok(None);
    };
    let is_local = version & 0xf == 0;
    let source = match family {
        _ if is_local => None,
        0x11 | 0x12 => Some(v2_source::<4, 12>(rest)?),
        0x21 | 0x22 => Some(v2_source::<16, 36>(rest)?),
        // A Unix socket's address means nothing here; an unspecified family has no address.
        0x00 | 0x31 | 0x32 => None,
        _ => return Err(BadProxyHeader),
    };
    // Ignores the TLVs that may follow the addresses.
    let bytes = total;
    Ok(Some(ProxyHeader { bytes, source }))
}

/// The source in a block of two addresses of `N` bytes each and two ports.
fn v2_source<const N: usize, const ALL: usize>(rest: &[u8]) -> Result<SocketAddr, BadProxyHeader>
where
    IpAddr: From<[u8; N]>,
{
    let all = rest.get(..ALL).ok_or(BadProxyHeader)?;
    let source = all.first_chunk::<N>().ok_or(BadProxyHeader)?;
    let port = all.get(2 * N..).and_then(<[u8]>::first_chunk::<2>);
    let port = u16::from_be_bytes(*port.ok_or(BadProxyHeader)?);
    Ok(SocketAddr::new(IpAddr::from(*source), port))
}

/// Writes a header for a client at `source` that has connected to `target`. If the families differ, both addresses are
/// written as IPv6.
pub fn write(
    version: ProxyProtocol,
    source: Option<SocketAddr>,
    target: Option<SocketAddr>,
) -> Vec<u8> {
    let source = source.map(canonical);
    let target = match (target.map(canonical), source) {
        (Some(target), _) => target,
        // The client has connected to a Unix socket.
        (None, Some(SocketAddr::V6(_))) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        (None, _) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
    };
    match version {
        ProxyProtocol::V1 => write_v1(source, target),
        ProxyProtocol::V2 => write_v2(source, target),
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn in_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn write_v1(source: Option<SocketAddr>, target: SocketAddr) -> Vec<u8> {
    let Some(source) = source else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let ports = (source.port(), target.port());
    match (source.ip(), target.ip()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            format!("PROXY TCP4 {source} {target} {} {}\r\n", ports.0, ports.1).into()
        }
        (source, target) => {
            let (source, target) = (in_v6(source), in_v6(target));
            format!("PROXY TCP6 {source} {target} {} {}\r\n", ports.0, ports.1).into()
        }
    }
}

fn write_v2(source: Option<SocketAddr>, target: SocketAddr) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    out.push(0x21);
    let Some(source) = source else {
        // The client is not known.
        out.extend([0x00, 0, 0]);
        return out;
    };
    match (source.ip(), target.ip()) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            out.extend([0x11, 0, 12]);
            out.extend(source.octets());
            out.extend(target.octets());
        }
        (source, target) => {
            out.extend([0x21, 0, 36]);
            out.extend(in_v6(source).octets());
            out.extend(in_v6(target).octets());
        }
    }
    out.extend(source.port().to_be_bytes());
    out.extend(target.port().to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_written_is_read_however_it_is_cut() {
        let cases = [
            (
                Some(at("192.0.2.1:1234")),
                Some(at("198.51.100.1:443")),
                Some(at("192.0.2.1:1234")),
            ),
            (
                Some(at("[2001:db8::1]:1")),
                Some(at("[::]:443")),
                Some(at("[2001:db8::1]:1")),
            ),
            (
                Some(at("[2001:db8::1]:1")),
                Some(at("192.0.2.9:443")),
                Some(at("[2001:db8::1]:1")),
            ),
            (
                Some(at("[::ffff:192.0.2.1]:65535")),
                None,
                Some(at("192.0.2.1:65535")),
            ),
            (None, Some(at("192.0.2.9:443")), None),
        ];
        for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
            for (source, target, expected) in cases {
                let mut bytes = write(version, source, target);
                let length = bytes.len();
                for cut in 0..length {
                    assert_eq!(
                        read(&bytes[..cut]),
                        Ok(None),
                        "{version:?} {source:?} cut at {cut}"
                    );
                }
                bytes.extend(b"GET / HTTP/1.1\r\n");
                let header = ProxyHeader {
                    bytes: length,
                    source: expected,
                };
                assert_eq!(read(&bytes), Ok(Some(header)));
            }
        }
    }

    #[test]
    fn local_unknown_and_what_follows_the_addresses() {
        let mut local = SIGNATURE.to_vec();
        local.extend([0x20, 0x11, 0, 12]);
        local.extend([9; 12]);
        let header = |bytes, source| Ok(Some(ProxyHeader { bytes, source }));
        assert_eq!(read(&local), header(28, None));
        let mut with_tlvs = write(ProxyProtocol::V2, Some(at("192.0.2.1:7")), None);
        with_tlvs[15] += 5;
        assert_eq!(read(&with_tlvs), Ok(None));
        with_tlvs.extend([4, 0, 2, 1, 2]);
        assert_eq!(read(&with_tlvs), header(33, Some(at("192.0.2.1:7"))));
        let mut unix = SIGNATURE.to_vec();
        unix.extend([0x21, 0x31, 0, 216]);
        unix.extend([0; 216]);
        assert_eq!(read(&unix), header(232, None));
        assert_eq!(read(b"PROXY UNKNOWN\r\n"), header(15, None));
        assert_eq!(read(b"PROXY UNKNOWN ffff::1 x 1 2\r\n"), header(29, None));
    }

    #[test]
    fn what_is_no_header_is_refused_at_once() {
        let long = format!("PROXY TCP4 {}\r\n", "1".repeat(200));
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"P0",
            b"\x16\x03\x01",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            b"PROXY TCP4 2001:db8::1 192.0.2.2 1 2\r\n",
            b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY \xff\r\n",
            b"PROXY\r\n",
            long.as_bytes(),
            // Version 3; a command that is not known; a family that is not; too short for its addresses; too long.
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
            b"\r\n\r\n\0\r\nQUIT\n\x22\x11\0\x0c",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x41\0\0",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x02ab",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        ] {
            assert_eq!(
                read(bad),
                Err(BadProxyHeader),
                "{:?}",
                String::from_utf8_lossy(bad)
            );
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let valid = write(ProxyProtocol::V2, Some(at("[2001:db8::1]:7")), None);
        for at in 0..valid.len() {
            for byte in 0..=255 {
                let mut changed = valid.clone();
                changed[at] = byte;
                let _ = read(&changed);
            }
        }
    }
}
