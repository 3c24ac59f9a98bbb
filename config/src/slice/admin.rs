//! `admin`.

use crate::decode::decoder::{Decoder, Spanned};
use crate::slice::address_claims::{AddressClaim, AddressClaims, same_place};
use crate::text::diagnostic::Code;
use crate::value::address::Address;

/// The admin listener, which no other listener may be in the way of.
pub(crate) fn check_admin(
    admin: &Spanned<Address>,
    taken: &mut AddressClaims,
    cx: &mut Decoder<'_>,
) {
    let Some(AddressClaim { address, line }) = taken.claim(&admin.value, cx.line(&admin.span))
    else {
        return;
    };
    let message = if same_place(&admin.value, &address) {
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
