//! `admin`: the admin listener, and who may use its API.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::decode::decoder::{Decoder, Spanned};
use crate::decode::kinds::{LongForm, OneOrMany, SpannedKind};
use crate::decode::table::{frame, table};
use crate::slice::address_claims::{AddressClaim, AddressClaims, is_same_address};
use crate::text::diagnostic::Code;
use crate::value::address::{Address, AddressText};
use crate::value::file_path::{NamedFile, NamedFileKind};
use crate::value::network::{Cidr, CidrText};

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Its address.
    pub address: Address,
    /// The file with the token that clients of `/api` show. Over TCP, `/api` does not exist without one.
    pub token_file: Option<NamedFile>,
    /// Networks of the clients that may use `/api` over TCP; `None` for this machine alone.
    pub allow: Option<Vec<Cidr>>,
}

/// The fewest characters of a token. 16 random letters and digits have 95 bits.
pub const ADMIN_TOKEN_CHARS_MIN: usize = 16;

impl From<Address> for Admin {
    /// A listener without a token.
    fn from(address: Address) -> Self {
        Self {
            address,
            token_file: None,
            allow: None,
        }
    }
}

impl Admin {
    /// Whether a client with this address may use `/api`, if it has the token.
    #[must_use]
    pub fn admits(&self, client: IpAddr) -> bool {
        match (&self.allow, client.to_canonical()) {
            (Some(networks), client) => networks.iter().any(|network| network.contains(client)),
            (None, IpAddr::V4(client)) => Ipv4Addr::is_loopback(&client),
            (None, IpAddr::V6(client)) => Ipv6Addr::is_loopback(&client),
        }
    }
}

table! {
    /// The admin listener with settings of its own. Instead of the table, `admin` may be its `address`.
    RawAdmin, "admin", "[admin]" {
        /// Its address. Metrics and health are open to all who reach it.
        required address: Address = "address" as AddressText;
        /// The file with the token that clients of `/api` show, 16 characters or more. Without it, `/api` does not exist
        /// over TCP. Over a Unix socket, the socket's mode decides who may use `/api`, and there is no token.
        optional token_file: Spanned<NamedFile> = "token_file" as SpannedKind<NamedFileKind>;
        /// Networks of the clients that may use `/api` over TCP. Without the key, only this machine may. The token
        /// crosses the network in the clear, so name only networks that you trust.
        optional allow: Spanned<Vec<Cidr>> = "allow" as SpannedKind<OneOrMany<CidrText>>;
    }
}

impl LongForm for RawAdmin {
    type Out = Admin;

    fn build(table: Self, cx: &mut Decoder<'_>) -> Option<Admin> {
        let Self {
            address,
            token_file,
            allow,
            span: _,
        } = table;
        let token_span = token_file.as_ref().map(|file| file.span.clone());
        let allow_span = allow.as_ref().map(|networks| networks.span.clone());
        if matches!(address, Address::Unix(_)) {
            for (key, span) in [("token_file", token_span), ("allow", allow_span)] {
                let Some(span) = span else { continue };
                let message = format!("`{key}` has no effect on a Unix socket");
                cx.warning(Code::NoEffect, span, message)
                    .help("the mode of the socket decides who may use the API");
            }
        } else if let (None, Some(span)) = (token_span, allow_span) {
            let message = "`allow` has no effect without `token_file`";
            cx.warning(Code::NoEffect, span, message)
                .help("over TCP, the API exists only with a token");
        }
        Some(Admin {
            address,
            token_file: token_file.map(|file| file.value),
            allow: allow.map(|networks| networks.value),
        })
    }
}

/// Reports an admin address that overlaps with a listener's.
pub(crate) fn check_admin(
    admin: &Spanned<Admin>,
    claims: &mut AddressClaims,
    cx: &mut Decoder<'_>,
) {
    let own = &admin.value.address;
    let Some(AddressClaim { address, line }) = claims.claim(own, cx.line(&admin.span)) else {
        return;
    };
    let message = if is_same_address(own, &address) {
        format!("`{own}` is the address of the listener in line {line} too")
    } else {
        format!("`{own}` overlaps with the listener `{address}` in line {line}")
    };
    cx.error(Code::Conflict, admin.span.clone(), message)
        .help("give the admin listener an address of its own");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_allow_only_this_machine_is_admitted() {
        let mut admin = Admin::from("0.0.0.0:9901".parse::<Address>().expect("an address"));
        let admits = |admin: &Admin, client: &str| admin.admits(client.parse().expect("an IP"));
        for (client, wanted) in [
            ("127.0.0.1", true),
            ("127.8.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("::ffff:10.0.0.1", false),
        ] {
            assert_eq!(admits(&admin, client), wanted, "{client}");
        }
        admin.allow = Some(vec!["10.0.0.0/8".parse().expect("a network")]);
        assert!(admits(&admin, "10.0.0.1") && admits(&admin, "::ffff:10.0.0.1"));
        assert!(!admits(&admin, "127.0.0.1"));
    }
}
