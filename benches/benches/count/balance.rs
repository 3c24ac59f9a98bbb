//! Chooses an endpoint among few and among many.

use std::hint::black_box;

use weir::upstream::{Balancer, Load, Loads, UsableEndpoint, stable_hash};
use weir_config::{Balance, HashKey};

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "pick-p2c-3",
        run: |times| pick(&Balance::P2c, 3, times),
        base: None,
    },
    Case {
        name: "pick-p2c-1000",
        run: |times| pick(&Balance::P2c, 1_000, times),
        base: None,
    },
    Case {
        name: "pick-hash-3",
        run: |times| pick(&Balance::Hash(HashKey::Path), 3, times),
        base: None,
    },
    Case {
        name: "pick-hash-1000",
        run: |times| pick(&Balance::Hash(HashKey::Path), 1_000, times),
        base: None,
    },
    Case {
        name: "pick-round-robin-3",
        run: |times| pick(&Balance::RoundRobin, 3, times),
        base: None,
    },
    Case {
        name: "pick-round-robin-1000",
        run: |times| pick(&Balance::RoundRobin, 1_000, times),
        base: None,
    },
];

/// Endpoints with different loads, as a core finds them.
struct Endpoints(Vec<Load>);

impl Loads for Endpoints {
    fn may_use(&self, index: u32) -> bool {
        self.0.get(index as usize).is_some()
    }

    fn load(&self, index: u32) -> Load {
        self.0.get(index as usize).copied().unwrap_or_default()
    }

    fn in_flight(&self) -> u32 {
        3 * self.0.len() as u32
    }
}

/// Endpoints with weights 1 to 3 and one to five requests in flight.
fn pick(balance: &Balance, count: u32, times: u64) {
    let loads = Endpoints(
        (0..count)
            .map(|index| Load {
                in_flight: 1 + index % 5,
                latency_us: 1_000.0 + index as f32,
            })
            .collect(),
    );
    let endpoints: Vec<_> = (0..count)
        .map(|index| UsableEndpoint {
            index,
            weight: u64::from(1 + index % 3),
            hash: stable_hash(&index.to_le_bytes()),
        })
        .collect();
    let mut balancer = Balancer::new(balance, &endpoints, 1);
    for time in 0..times {
        let key = stable_hash(&time.to_le_bytes());
        black_box(balancer.pick(black_box(Some(key)), &loads));
    }
}
