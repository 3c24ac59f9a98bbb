//! What a core keeps for a route's tokens, and what the plan says about it.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::Arc;

use weir_config::Jwt;

use super::board::{KeyBoard, KeyReader};
use super::cache::TokenCache;
use super::source::KeySource;
use crate::policy::SharedByName;

/// The state that routes with the same rules for tokens share.
#[derive(Clone, Debug)]
pub struct JwtStatePlan {
    /// All that decides whether a token is valid. A token that is valid under other rules may not be under these.
    rules: Box<str>,
    boards: Box<[Arc<KeyBoard>]>,
}

/// What a core keeps: the keys of each issuer, and verified tokens.
#[derive(Debug)]
pub struct JwtState {
    pub(super) readers: Box<[KeyReader]>,
    pub(in crate::policy) cache: RefCell<TokenCache>,
}

impl JwtStatePlan {
    /// The state for these rules, with boards of its own until [`JwtStatePlan::equip`] finds those that all plans
    /// share.
    #[must_use]
    pub fn new(jwt: &Jwt) -> Self {
        let mut rules = String::new();
        for issuer in &jwt.issuers {
            let weir_config::JwtIssuer {
                issuer: name,
                audience,
                // The name of the source has these.
                keys: _,
                ca: _,
                algorithms: _,
                leeway,
                place,
                require,
                // These change what endpoints get.
                claims_to_headers: _,
                forward: _,
            } = issuer;
            let keys = KeySource::new(issuer).name();
            let _ = write!(
                rules,
                "{name:?} {audience:?} {keys} {leeway:?} {place:?} {require:?};"
            );
        }
        let board = |issuer| Arc::new(KeyBoard::new(KeySource::new(issuer)));
        Self {
            rules: rules.into(),
            boards: jwt.issuers.iter().map(board).collect(),
        }
    }

    /// Whether tokens are judged by the same rules.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.rules == other.rules
    }

    /// Takes the boards that all plans share.
    pub fn equip(&mut self, shared: &mut SharedByName<KeyBoard>) {
        for board in &mut self.boards {
            let own = board.clone();
            let source = own.source();
            *board = shared.get_or_make(&source.name(), || KeyBoard::new(source.clone()));
        }
    }

    /// The boards of the issuers, in the order of the file.
    #[must_use]
    pub fn boards(&self) -> &[Arc<KeyBoard>] {
        &self.boards
    }

    /// Makes the state of one core.
    #[must_use]
    pub fn make(&self) -> JwtState {
        let seed = [fastrand::u64(..), fastrand::u64(..)];
        JwtState {
            readers: self.boards.iter().cloned().map(KeyReader::new).collect(),
            cache: RefCell::new(TokenCache::new(seed)),
        }
    }
}
