//! The configuration of Weir: TOML text in, a typed [`Config`] or a list of diagnostics out.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod limits;

mod layers;
mod model;

pub use layers::*;
pub use model::*;
