//! The keys that encrypt session tickets.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use rustls::Error;
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

use crate::shared::count_shared_write;

/// How long a key encrypts tickets, seconds. It decrypts for as long again. rustls's own tickets are the same.
const PERIOD_S: u64 = 6 * 60 * 60;

/// Bytes of a key's name, with which a ticket begins (RFC 5077 section 4).
const NAME_BYTES: usize = 16;

/// Bytes of an AES-256 key.
const KEY_BYTES: usize = 32;

/// The keys that encrypt session tickets. All cores share them, so any core can resume a session that another began,
/// also after a reload or an upgrade. New keys come every six hours, and the former ones stay valid for as long again.
///
/// Resuming a session skips the verification of the client's certificate. So each way of verifying clients has keys of
/// its own. A ticket from a listener without client certificates is worthless at one with them. So is a ticket issued
/// under other authorities or before a revocation.
#[derive(Clone, Default)]
pub struct TicketKeys(Arc<Mutex<HashMap<VerificationDigest, Arc<Ticketer>>>>);

/// How a listener verifies clients: the contents of the files of authorities and revocations, and whether a certificate
/// is required.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct ClientVerification {
    pub(super) authorities: Vec<u8>,
    pub(super) revoked: Vec<u8>,
    pub(super) required: bool,
}

/// The SHA-256 digest of a [`ClientVerification`].
type VerificationDigest = [u8; 32];

/// The keys for one way of verifying clients, for another process. They are secret.
#[derive(Deserialize, Serialize)]
pub struct ExportedTicketKeys {
    verification: VerificationDigest,
    /// The newest first.
    keys: Vec<ExportedTicketKey>,
}

#[derive(Clone, Deserialize, Serialize)]
struct ExportedTicketKey {
    name: [u8; NAME_BYTES],
    secret: [u8; KEY_BYTES],
    /// When it was made, seconds since the Unix epoch.
    made_s: u64,
}

impl TicketKeys {
    /// The keys for listeners that verify clients in this way, created on first use.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(super) fn for_verification(
        &self,
        clients: &ClientVerification,
    ) -> Result<Arc<dyn ProducesTickets>, Error> {
        // An insertion completes or does nothing, so a panic elsewhere cannot have left the map broken.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = clients.digest();
        if let Some(known) = all.get(&id) {
            return Ok(known.clone());
        }
        let fresh = Arc::new(Ticketer::new(vec![TicketKey::generate(now_s())?]));
        all.insert(id, fresh.clone());
        Ok(fresh)
    }

    /// All keys, for the process that takes over.
    #[must_use]
    pub fn export(&self) -> Vec<ExportedTicketKeys> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let each = all.iter().map(|(verification, ticketer)| {
            let keys = ticketer.keys.read().unwrap_or_else(PoisonError::into_inner);
            ExportedTicketKeys {
                verification: *verification,
                keys: keys.iter().map(|key| key.exported.clone()).collect(),
            }
        });
        each.collect()
    }

    /// The keys of the process that this one replaces. Keys that cannot be used are left out.
    #[must_use]
    pub fn import(exported: Vec<ExportedTicketKeys>) -> Self {
        let each = exported.into_iter().filter_map(|exported| {
            let keys = exported.keys.into_iter().map(TicketKey::new);
            let keys: Vec<_> = keys.collect::<Result<_, _>>().ok()?;
            (!keys.is_empty()).then(|| (exported.verification, Arc::new(Ticketer::new(keys))))
        });
        Self(Arc::new(Mutex::new(each.collect())))
    }
}

impl ClientVerification {
    fn digest(&self) -> VerificationDigest {
        let mut text = vec![u8::from(self.required)];
        // The lengths keep the two files apart.
        for file in [&self.authorities, &self.revoked] {
            text.extend((file.len() as u64).to_be_bytes());
            text.extend(file);
        }
        let mut id = [0; 32];
        id.copy_from_slice(digest(&SHA256, &text).as_ref());
        id
    }
}

/// Encrypts tickets for one way of verifying clients.
struct Ticketer {
    /// The newest first: it encrypts, and all decrypt.
    keys: RwLock<Vec<TicketKey>>,
}

struct TicketKey {
    exported: ExportedTicketKey,
    cipher: RandomizedNonceKey,
}

impl TicketKey {
    fn generate(made_s: u64) -> Result<Self, Error> {
        let (mut name, mut secret) = ([0; NAME_BYTES], [0; KEY_BYTES]);
        let no_random = |_| Error::FailedToGetRandomBytes;
        aws_lc_rs::rand::fill(&mut name).map_err(no_random)?;
        aws_lc_rs::rand::fill(&mut secret).map_err(no_random)?;
        Self::new(ExportedTicketKey {
            name,
            secret,
            made_s,
        })
    }

    fn new(exported: ExportedTicketKey) -> Result<Self, Error> {
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &exported.secret);
        Ok(Self {
            cipher: cipher.map_err(|_| Error::General("the ticket key is unusable".to_owned()))?,
            exported,
        })
    }

    fn age_s(&self, now_s: u64) -> u64 {
        now_s.saturating_sub(self.exported.made_s)
    }

    /// The key's name, the nonce, and the encrypted text with its tag.
    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let name = &self.exported.name;
        let mut text = plain.to_vec();
        let nonce = self
            .cipher
            .seal_in_place_append_tag(Aad::from(name), &mut text);
        let nonce = nonce.ok()?;
        Some([name, nonce.as_ref().as_slice(), &text].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let name = &self.exported.name;
        let rest = ticket.strip_prefix(name.as_slice())?;
        let (nonce, text) = rest.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = text.to_vec();
        let plain = self.cipher.open_in_place(nonce, Aad::from(name), &mut text);
        Some(plain.ok()?.to_vec())
    }
}

impl Ticketer {
    fn new(keys: Vec<TicketKey>) -> Self {
        Self {
            keys: RwLock::new(keys),
        }
    }

    fn encrypt_at(&self, plain: &[u8], now_s: u64) -> Option<Vec<u8>> {
        {
            count_shared_write();
            let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
            let newest = keys.first()?;
            if newest.age_s(now_s) < PERIOD_S {
                return newest.encrypt(plain);
            }
        }
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        // Another core may have been faster.
        if keys.first()?.age_s(now_s) >= PERIOD_S {
            keys.insert(0, TicketKey::generate(now_s).ok()?);
            keys.retain(|key| key.age_s(now_s) < 2 * PERIOD_S);
        }
        keys.first()?.encrypt(plain)
    }

    fn decrypt_at(&self, ticket: &[u8], now_s: u64) -> Option<Vec<u8>> {
        count_shared_write();
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let mut valid = keys.iter().filter(|key| key.age_s(now_s) < 2 * PERIOD_S);
        valid.find_map(|key| key.decrypt(ticket))
    }
}

impl ProducesTickets for Ticketer {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        2 * PERIOD_S as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.encrypt_at(plain, now_s())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_at(ticket, now_s())
    }
}

/// Without the keys, which are secret.
impl fmt::Debug for Ticketer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticketer")
    }
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_valid_for_two_periods_and_only_whole() {
        let ticketer = Ticketer::new(vec![TicketKey::generate(1000).unwrap()]);
        let ticket = ticketer.encrypt_at(b"secret", 1000).unwrap();
        let opened = |ticket: &[u8], at| ticketer.decrypt_at(ticket, at);
        assert_eq!(opened(&ticket, 1000).unwrap(), b"secret");
        for at in 0..ticket.len() {
            let mut broken = ticket.clone();
            broken[at] ^= 1;
            assert_eq!(opened(&broken, 1000), None);
            assert_eq!(opened(&ticket[..at], 1000), None);
        }
        let later = ticketer.encrypt_at(b"secret", 1000 + PERIOD_S).unwrap();
        assert_ne!(ticket[..NAME_BYTES], later[..NAME_BYTES]);
        assert_eq!(opened(&ticket, 999 + 2 * PERIOD_S).unwrap(), b"secret");
        assert_eq!(opened(&ticket, 1000 + 2 * PERIOD_S), None);
        assert_eq!(opened(&later, 1000 + 2 * PERIOD_S).unwrap(), b"secret");
    }

    #[test]
    fn another_process_with_the_keys_opens_tickets_of_the_same_verification_only() {
        let required = ClientVerification {
            required: true,
            ..ClientVerification::default()
        };
        let old = TicketKeys::default();
        let ticketer = old.for_verification(&ClientVerification::default());
        let ticket = ticketer.unwrap().encrypt(b"secret").unwrap();
        let sent = serde_json::to_vec(&old.export()).unwrap();
        let new = TicketKeys::import(serde_json::from_slice(&sent).unwrap());
        let opened = |clients: &ClientVerification| {
            let ticketer = new.for_verification(clients).unwrap();
            ticketer.decrypt(&ticket)
        };
        assert_eq!(opened(&ClientVerification::default()).unwrap(), b"secret");
        assert_eq!(opened(&required), None);
    }
}
