//! `ip_hash` and `hash(KEY)`: Maglev hashing with bounded loads.
//!
//! A table of a prime number of entries names an endpoint in each. Every endpoint has its own order of the entries, by the
//! hash of its name, and they take turns in claiming their next free one; so the table is nearly the same when an endpoint
//! comes or goes (Eisenbud et al., "Maglev", NSDI 2016, section 3.4). An endpoint with more weight takes more turns.
//!
//! An endpoint that has more than 1.5 times the mean of requests in flight, and one more, passes the key on to the entry of
//! the key's next hash (Mirrokni et al., "Consistent Hashing with Bounded Loads"). If a key has too many requests for one
//! endpoint, the others all go to the same further endpoints.

use super::Loads;
use super::round_robin::RoundRobin;
use super::stable_hash::mix;
use crate::upstream::usable::UsableEndpoint;

/// Table sizes, primes. A hundred entries an endpoint keep shares within a percent.
const SIZES: [usize; 9] = [
    4_099, 8_209, 16_411, 32_771, 65_537, 131_101, 262_147, 524_309, 1_048_583,
];
const ENTRIES_PER_ENDPOINT: usize = 100;

/// How many entries a key tries until the least loaded endpoint gets it. With the bound, at least a third of the endpoints
/// have room, so fewer than one key of 500 tries them all.
const PROBES: u64 = 16;

/// Sends each key to its endpoint.
pub(super) struct Maglev {
    endpoints: Vec<Bounded>,
    /// By entry, the place in `endpoints`.
    table: Vec<u16>,
    rng: fastrand::Rng,
}

struct Bounded {
    index: u32,
    /// Its share of all requests times 1.5.
    bound: f32,
}

impl Maglev {
    pub(super) fn new(endpoints: &[UsableEndpoint], seed: u64) -> Self {
        let sum: f64 = endpoints.iter().map(|each| each.weight as f64).sum();
        let bounded = endpoints.iter().map(|each| Bounded {
            index: each.index,
            bound: (1.5 * each.weight as f64 / sum.max(1.0)) as f32,
        });
        Self {
            table: fill(endpoints),
            endpoints: bounded.collect(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    #[inline]
    pub(super) fn pick(&mut self, key: Option<u64>, loads: &impl Loads) -> Option<u32> {
        // A request without the key goes to a random endpoint.
        let mut hash = key.unwrap_or_else(|| self.rng.u64(..));
        // With the request itself.
        let total = (loads.in_flight() + 1) as f32;
        for _ in 0..PROBES {
            let entry = ((u128::from(hash) * self.table.len() as u128) >> 64) as usize;
            let place = *self.table.get(entry)?;
            let endpoint = self.endpoints.get(usize::from(place))?;
            let in_flight = loads.load(endpoint.index).in_flight as f32;
            if in_flight <= endpoint.bound * total && loads.may_use(endpoint.index) {
                return Some(endpoint.index);
            }
            hash = mix(hash);
        }
        self.least_loaded(loads)
    }

    #[cold]
    fn least_loaded(&self, loads: &impl Loads) -> Option<u32> {
        let usable = self
            .endpoints
            .iter()
            .filter(|each| loads.may_use(each.index));
        let load = |each: &&Bounded| loads.load(each.index).in_flight as f32 / each.bound;
        let least = usable.min_by(|a, b| load(a).total_cmp(&load(b)));
        least.map(|each| each.index)
    }
}

/// The entries of a table in the order in which an endpoint claims them.
struct Claims {
    next: usize,
    step: usize,
}

fn fill(endpoints: &[UsableEndpoint]) -> Vec<u16> {
    const FREE: u16 = u16::MAX;
    if endpoints.is_empty() {
        return Vec::new();
    }
    let wanted = endpoints.len() * ENTRIES_PER_ENDPOINT;
    let largest = SIZES.last().copied().unwrap_or_default();
    let size = SIZES.into_iter().find(|&size| size >= wanted);
    let size = size.unwrap_or(largest);
    let mut claims: Vec<_> = endpoints
        .iter()
        .map(|each| Claims {
            next: (mix(each.hash) % size as u64) as usize,
            step: (mix(!each.hash) % (size as u64 - 1)) as usize + 1,
        })
        .collect();
    let places = endpoints.iter().zip(0..);
    let places = places.map(|(each, place)| UsableEndpoint {
        index: place,
        ..*each
    });
    let mut turns = RoundRobin::new(&places.collect::<Vec<_>>(), 0);
    let mut table = vec![FREE; size];
    for _ in 0..size {
        let Some(place) = turns.pick(|_| true) else {
            break;
        };
        let Some(claims) = claims.get_mut(place as usize) else {
            break;
        };
        while let Some(entry) = table.get_mut(claims.next) {
            claims.next = (claims.next + claims.step) % size;
            if *entry == FREE {
                *entry = place as u16;
                break;
            }
        }
    }
    table
}
