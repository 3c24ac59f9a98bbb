//! Policies: what Weir does with a request beside sending it to its target.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod claims;
pub mod json;

pub use claims::Claims;
