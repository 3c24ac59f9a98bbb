use std::cell::Cell;
use std::cell::RefCell;

use weir_config::{Balance, HashKey};

use super::stable_hash::mix;
use super::*;

/// Endpoints of a test, which count what a balancer asks.
#[derive(Default)]
struct Endpoints {
    loads: RefCell<Vec<Load>>,
    /// Endpoints that may not be used.
    barred: Vec<u32>,
    asked: Cell<usize>,
}

impl Endpoints {
    fn new(count: usize) -> Self {
        Self {
            loads: RefCell::new(vec![Load::default(); count]),
            ..Self::default()
        }
    }

    fn add(&self, index: u32, by: i32) {
        let load = &mut self.loads.borrow_mut()[index as usize];
        load.in_flight = load.in_flight.checked_add_signed(by).expect("not below 0");
    }
}

impl Loads for Endpoints {
    fn may_use(&self, index: u32) -> bool {
        self.asked.set(self.asked.get() + 1);
        !self.barred.contains(&index)
    }

    fn load(&self, index: u32) -> Load {
        self.asked.set(self.asked.get() + 1);
        self.loads.borrow()[index as usize]
    }

    fn in_flight(&self) -> u32 {
        self.loads.borrow().iter().map(|load| load.in_flight).sum()
    }
}

fn usable(weights: &[u64]) -> Vec<UsableEndpoint> {
    let each = weights.iter().zip(0..);
    each.map(|(&weight, index)| UsableEndpoint {
        index,
        weight,
        hash: stable_hash(format!("10.0.0.{index}:8080").as_bytes()),
    })
    .collect()
}

fn hashing() -> Balance {
    Balance::Hash(HashKey::Path)
}

fn all() -> [Balance; 8] {
    [
        Balance::P2c,
        Balance::RoundRobin,
        Balance::LeastConn,
        Balance::LeastTime,
        Balance::Random,
        Balance::IpHash,
        hashing(),
        Balance::First,
    ]
}

/// The shares of 100,000 picks by so many cores, each with a key of its own, in percent.
fn shares(balance: &Balance, weights: &[u64], cores: u64) -> Vec<f64> {
    let endpoints = Endpoints::new(weights.len());
    let mut counts = vec![0u32; weights.len()];
    let mut balancers: Vec<_> = (0..cores)
        .map(|core| Balancer::new(balance, &usable(weights), 77 * core + 1))
        .collect();
    for pick in 0..100_000u64 {
        let balancer = &mut balancers[(pick % cores) as usize];
        let index = balancer.pick(Some(mix(pick)), &endpoints).unwrap();
        counts[index as usize] += 1;
    }
    counts
        .iter()
        .map(|&count| f64::from(count) / 1_000.0)
        .collect()
}

#[test]
fn weights_hold_within_two_percent_on_one_and_eight_cores() {
    for balance in [
        Balance::RoundRobin,
        Balance::Random,
        hashing(),
        Balance::P2c,
    ] {
        for weights in [
            &[1, 1, 1][..],
            &[5, 3, 1, 1],
            &[1, 100],
            &[3; 10],
            &[65_535, 1, 40_000],
        ] {
            let sum: u64 = weights.iter().sum();
            for cores in [1, 8] {
                let found = shares(&balance, weights, cores);
                for (share, weight) in found.iter().zip(weights) {
                    let wanted = *weight as f64 * 100.0 / sum as f64;
                    let off = (share - wanted).abs();
                    assert!(off < 2.0, "{balance} {weights:?} on {cores}: {found:?}");
                }
            }
        }
    }
}

#[test]
fn round_robin_spreads_turns_out() {
    let mut balancer = Balancer::new(&Balance::RoundRobin, &usable(&[5, 1, 1]), 0);
    let endpoints = Endpoints::new(3);
    let picks: Vec<_> = (0..70)
        .map(|_| balancer.pick(None, &endpoints).unwrap())
        .collect();
    for seven in picks.chunks(7) {
        assert_eq!(seven.iter().filter(|&&index| index == 0).count(), 5);
    }
    let longest = picks.chunk_by(|a, b| a == b).map(<[u32]>::len).max();
    assert!(longest <= Some(4), "{picks:?}");
}

#[test]
fn an_endpoint_that_goes_moves_few_keys() {
    let ten = usable(&[1; 10]);
    let endpoints = Endpoints::new(10);
    let mut before = Balancer::new(&hashing(), &ten, 1);
    for gone in 0..10 {
        let left: Vec<_> = ten
            .iter()
            .copied()
            .filter(|each| each.index != gone)
            .collect();
        let mut after = Balancer::new(&hashing(), &left, 2);
        let moved = (0..100_000u64)
            .filter(|&key| {
                let key = Some(mix(key));
                before.pick(key, &endpoints) != after.pick(key, &endpoints)
            })
            .count();
        assert!(moved <= 12_000, "{moved} of 100,000 keys moved");
    }
}

#[test]
fn a_pick_among_a_thousand_asks_no_more_than_among_three() {
    for balance in [Balance::P2c, hashing(), Balance::Random] {
        let asked = |count: usize| {
            let endpoints = Endpoints::new(count);
            let mut balancer = Balancer::new(&balance, &usable(&vec![1; count]), 1);
            for pick in 0..10_000 {
                balancer.pick(Some(mix(pick)), &endpoints).unwrap();
            }
            endpoints.asked.get()
        };
        let (three, thousand) = (asked(3), asked(1_000));
        assert!(thousand <= 2 * three, "{balance}: {three}, {thousand}");
    }
}

#[test]
fn hashed_load_is_bounded() {
    for weights in [&[1; 5][..], &[4, 2, 1, 1]] {
        let endpoints = Endpoints::new(weights.len());
        let mut balancer = Balancer::new(&hashing(), &usable(weights), 1);
        let sum: u64 = weights.iter().sum();
        for total in 1..=1_000u32 {
            // One key for all, which would go to one endpoint.
            let index = balancer.pick(Some(42), &endpoints).unwrap();
            endpoints.add(index, 1);
            let in_flight = f64::from(endpoints.loads.borrow()[index as usize].in_flight);
            let mean = f64::from(total) * weights[index as usize] as f64 / sum as f64;
            assert!(in_flight <= 1.5 * mean + 1.001, "{in_flight} of {total}");
        }
    }
}

#[test]
fn requests_without_a_key_are_spread() {
    let endpoints = Endpoints::new(3);
    let mut balancer = Balancer::new(&hashing(), &usable(&[1, 1, 1]), 1);
    let mut counts = [0; 3];
    for _ in 0..3_000 {
        counts[balancer.pick(None, &endpoints).unwrap() as usize] += 1;
    }
    assert!(counts.iter().all(|&count| count > 800), "{counts:?}");
}

#[test]
fn every_balancer_finds_the_last_endpoint_that_may_be_used() {
    for balance in all() {
        for count in [1usize, 2, 3, 50] {
            let weights: Vec<_> = (0..count as u64).map(|at| 1 + at * at).collect();
            for only in 0..count as u32 {
                let mut endpoints = Endpoints::new(count);
                endpoints.barred = (0..count as u32).filter(|&each| each != only).collect();
                let mut balancer = Balancer::new(&balance, &usable(&weights), u64::from(only));
                for key in 0..3 {
                    let found = balancer.pick(Some(mix(key)), &endpoints);
                    assert_eq!(found, Some(only), "{balance} of {count}");
                }
                endpoints.barred.push(only);
                assert_eq!(balancer.pick(Some(1), &endpoints), None, "{balance}");
            }
        }
        let mut none = Balancer::new(&balance, &[], 1);
        assert_eq!(none.pick(Some(1), &Endpoints::new(0)), None);
    }
}

#[test]
fn loads_decide() {
    let endpoints = Endpoints::new(3);
    *endpoints.loads.borrow_mut() = vec![
        Load {
            in_flight: 9,
            latency_us: 1_000.0,
        },
        Load {
            in_flight: 1,
            latency_us: 90_000.0,
        },
        Load {
            in_flight: 3,
            latency_us: 2_000.0,
        },
    ];
    let counts = |balance: &Balance| {
        let mut balancer = Balancer::new(balance, &usable(&[1, 1, 1]), 1);
        let mut counts = [0; 3];
        for _ in 0..300 {
            counts[balancer.pick(None, &endpoints).unwrap() as usize] += 1;
        }
        counts
    };
    assert_eq!(counts(&Balance::LeastConn), [0, 300, 0]);
    assert_eq!(counts(&Balance::LeastTime), [0, 0, 300]);
    assert_eq!(counts(&Balance::First), [300, 0, 0]);
    // The worst of three is never the better of two.
    let p2c = counts(&Balance::P2c);
    assert!(p2c[1] == 0 && p2c[2] > p2c[0] && p2c[0] > 50, "{p2c:?}");
}

#[test]
fn an_endpoint_that_never_answered_is_tried_and_not_flooded() {
    let endpoints = Endpoints::new(2);
    endpoints.loads.borrow_mut()[0].latency_us = 1_000.0;
    let mut balancer = Balancer::new(&Balance::P2c, &usable(&[1, 1]), 1);
    assert_eq!(balancer.pick(None, &endpoints), Some(1));
    endpoints.add(1, 1);
    for _ in 0..10 {
        assert_eq!(balancer.pick(None, &endpoints), Some(0));
    }
}
