//! `jwt`: verifies the token of a request.
//!
//! A token is taken apart strictly ([`Token`]), a key of its issuer is chosen ([`KeySet`]), and the key, never the
//! token, says which algorithm verifies it ([`Key`]).

mod base64;
mod board;
mod cache;
mod challenge;
mod key;
mod key_set;
mod place;
mod refusal;
mod rules;
mod signature;
mod source;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod token;

pub use board::{KeyBoard, KeyReader};
pub use cache::{CachedToken, TokenCache};
pub use challenge::challenge;
pub use place::{Found, Place};
pub use rules::{Audience, Requirement, TokenRules, Tried, Verified};
pub use source::KeySource;
pub use state::{JwtState, JwtStatePlan};
pub use step::JwtStep;

pub use key::{Key, KeyOrigin};
pub use key_set::{KeySet, ReadKeySet};
pub use refusal::Refusal;
pub use token::{Times, Token};
