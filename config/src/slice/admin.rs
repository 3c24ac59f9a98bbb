//! `admin`: the address of the admin listener.

use crate::decode::decoder::{Decoder, Spanned};
use crate::slice::address_claims::{AddressClaim, AddressClaims, is_same_address};
use crate::text::diagnostic::Code;
use crate::value::address::Address;

/// Reports an admin address that overlaps with a listener's.
pub(crate) fn check_admin(
    admin: &Spanned<Address>,
    claims: &mut AddressClaims,
    cx: &mut Decoder<'_>,
) {
    let Some(AddressClaim { address, line }) = claims.claim(&admin.value, cx.line(&admin.span))
    else {
        return;
    };
    let message = if is_same_address(&admin.value, &address) {
        format!(
            "`{}` is the address of the listener in line {line} too",
            admin.value
        )
    } else {
        format!(
            "`{}` overlaps with the listener `{address}` in line {line}",
            admin.value
        )
    };
    cx.error(Code::Conflict, admin.span.clone(), message)
        .help("give the admin listener an address of its own");
}
