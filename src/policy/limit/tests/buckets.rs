//! The bound that the manual states, on one core and on several.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::super::bucket_set::BucketSet;
use super::super::gcra::{Gcra, ticks};
use super::super::table::{Key, KeyTable};
use super::super::token_cache::TokenCache;

const SECOND: Duration = Duration::from_secs(1);
const KEY: Key = Key {
    high: 1 << 60,
    low: 77,
};

/// One limit on several cores, whose clocks may be late by a little.
struct Model {
    table: KeyTable,
    caches: Vec<TokenCache>,
    set: BucketSet,
    cost: u64,
}

impl Model {
    fn new(cores: usize, count: u32, burst: u32, cost: u64) -> Self {
        Self {
            table: KeyTable::new(64),
            caches: (0..cores).map(|_| TokenCache::new(16)).collect(),
            set: BucketSet::new(Gcra::new(count, SECOND, burst), cores),
            cost,
        }
    }

    fn ask(&mut self, core: usize, key: Key, now_ns: u64) -> bool {
        let now = ticks(1_000_000_000_000 + now_ns);
        self.set
            .take(&self.table, &mut self.caches[core], key, 0, self.cost, now)
            .is_ok()
    }
}

#[test]
fn what_is_left_is_never_more_than_a_full_bucket() {
    let mut model = Model::new(2, 1_000, 1_000, 1);
    for request in 0..200 {
        // Some requests use tokens that the core has kept while the bucket was filling.
        let now = ticks(1_000_000_000_000 + request * 40_000_000);
        let (set, cache) = (&model.set, &mut model.caches[0]);
        let taken = set.take(&model.table, cache, KEY, 0, 1, now).unwrap();
        let seen = set.look(&model.table, cache, KEY, 0, now);
        assert!(taken.left <= 1_000 && seen.left <= 1_000, "{}", taken.left);
    }
}

/// What was admitted between any two times is at most burst + rate x time + cores x batch.
fn check_never_more(admitted_ns: &[u64], model: &Model, rate: f64, cores: u64) {
    let most = model.set.gcra.burst() + cores * model.set.batch;
    let cost = model.cost;
    // The most that exceeds the rate, over all windows that end here (Kadane).
    let (mut excess, mut before) = (0.0_f64, None);
    for at in admitted_ns {
        let gap = before.map_or(0.0, |before| (at - before) as f64 * rate / 1e9);
        excess = (excess - gap).max(0.0) + cost as f64;
        before = Some(*at);
        assert!(
            excess <= most as f64 + cost as f64 * 1e-6,
            "{excess} tokens above the rate, {most} allowed"
        );
    }
}

#[test]
fn any_demand_stays_below_the_bound_on_1_2_and_8_cores() {
    let mut rng = fastrand::Rng::with_seed(2);
    for case in 0..120 {
        let cores = [1, 2, 8][case % 3];
        let count = rng.u32(1..20_000);
        let burst = rng.u32(1..2_000);
        let cost = if rng.bool() {
            1
        } else {
            rng.u64(1..=u64::from(burst.min(5)))
        };
        let mut model = Model::new(cores, count, burst, cost);
        let (mut now, mut admitted) = (0, Vec::new());
        for _ in 0..6_000 {
            // Storms, pauses, and everything between.
            now += match rng.u32(0..100) {
                0 => rng.u64(0..3_000_000_000),
                1..20 => rng.u64(0..2_000_000),
                _ => rng.u64(0..20_000),
            };
            let late = rng.u64(0..50_000).min(now);
            let core = if rng.bool() { 0 } else { rng.usize(..cores) };
            if model.ask(core, KEY, now - late) {
                admitted.push(now);
            }
        }
        assert!(!admitted.is_empty());
        // A late clock moves an admission by as much.
        let slack = f64::from(count) * 50e-6;
        let mut bound = model;
        bound.set.batch += slack.ceil() as u64;
        check_never_more(&admitted, &bound, f64::from(count), cores as u64);
    }
}

#[test]
fn steady_demand_gets_the_rate_on_1_2_and_8_cores() {
    let mut rng = fastrand::Rng::with_seed(3);
    for case in 0..60 {
        let cores = [1, 2, 8][case % 3];
        let count = rng.u32(100..20_000);
        let burst = rng.u32(1..20_000);
        let mut model = Model::new(cores, count, burst, 1);
        // Twice the rate for four seconds, after the burst is used up; the cores take turns or not.
        let step = 1_000_000_000 / (2 * u64::from(count));
        let is_fair = rng.bool();
        let (mut now, mut admitted) = (0, 0_u64);
        while (0..cores).any(|core| model.ask(core, KEY, now)) {}
        let asks = 4 * 2 * count;
        for n in 0..asks {
            now += step;
            let core = if is_fair {
                n as usize % cores
            } else {
                rng.usize(..cores)
            };
            admitted += u64::from(model.ask(core, KEY, now));
        }
        let due = now as f64 / 1e9 * f64::from(count);
        let error = (due * 0.01).max((cores as u64 * model.set.batch) as f64);
        assert!(
            admitted as f64 >= due - error - 1.0,
            "{admitted} of {due} at {count}/s, burst {burst}, {cores} cores"
        );
    }
}

#[test]
fn unused_tokens_of_a_core_go_back_after_a_tenth_of_a_second() {
    let mut model = Model::new(2, 1_000, 1_000, 1);
    assert_eq!(model.set.batch, 20);
    assert!(model.ask(0, KEY, 0));
    // Core 0 still has 19 tokens, and the bucket gets none in no time.
    let drained = (0..2_000).filter(|_| model.ask(1, KEY, 0)).count();
    assert_eq!(drained, 980);
    // Other requests of core 0 give them back: the bucket has 200 new tokens and those 19.
    for n in 0..32 {
        model.ask(
            0,
            Key {
                high: 3 << 60,
                low: n << 58,
            },
            200_000_000,
        );
    }
    let drained = (0..2_000)
        .filter(|_| model.ask(1, KEY, 200_000_000))
        .count();
    assert_eq!(drained, 219);
}

#[test]
fn a_full_bucket_gives_its_burst_even_if_a_core_held_tokens() {
    let mut model = Model::new(2, 1_000, 1_000, 1);
    assert!(model.ask(0, KEY, 0));
    let later = 10_000_000_000;
    let taken = (0..3_000).filter(|n| model.ask(n % 2, KEY, later)).count();
    assert!(taken <= 1_000, "{taken}");
    assert!(taken >= 1_000 - 2 * 20, "{taken}");
}

#[test]
fn keys_without_a_cell_share_one_bucket() {
    let mut model = Model::new(1, 1, 1, 1);
    model.table = KeyTable::new(1);
    let keys = (0..200).map(|low| Key { high: 5, low });
    let admitted = keys.filter(|key| model.ask(0, *key, 0)).count();
    // As many as there are cells, and one more.
    assert_eq!(admitted, 17);
}

#[test]
fn tokens_given_back_can_be_taken_again() {
    let (table, mut cache) = (KeyTable::new(8), TokenCache::new(0));
    let set = BucketSet::new(Gcra::new(1, SECOND, 2), 1);
    let now = ticks(1_000_000_000);
    let standing = set.take(&table, &mut cache, KEY, 0, 2, now);
    let standing = standing.expect("a full bucket");
    assert_eq!(standing.left, 0);
    assert!(set.take(&table, &mut cache, KEY, 0, 1, now).is_err());
    set.give_back(&table, KEY, 2, standing, now);
    assert_eq!(set.look(&table, &mut cache, KEY, 0, now).left, 2);
}

/// Real threads that ask as fast as they can get at most burst and rate, and a batch each.
#[test]
fn threads_get_no_more_than_the_bound() {
    for cores in [2, 8] {
        let table = KeyTable::new(64);
        let set = BucketSet::new(Gcra::new(20_000, SECOND, 1_000), cores);
        let (clock, sum, stop) = (
            std::time::Instant::now(),
            AtomicU64::new(0),
            AtomicBool::new(false),
        );
        thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| {
                    let mut cache = TokenCache::new(16);
                    while !stop.load(Ordering::Relaxed) {
                        let now = ticks(1_000_000_000 + clock.elapsed().as_nanos() as u64);
                        if set.take(&table, &mut cache, KEY, 0, 1, now).is_ok() {
                            let admitted = sum.fetch_add(1, Ordering::Relaxed);
                            stop.fetch_or(admitted >= 6_000, Ordering::Relaxed);
                        } else {
                            thread::yield_now();
                        }
                    }
                });
            }
        });
        let seconds = clock.elapsed().as_secs_f64();
        let most = 1_000.0 + 20_000.0 * seconds + (cores as u64 * set.batch) as f64;
        let sum = sum.into_inner() as f64;
        assert!(sum <= most, "{sum} of {most} on {cores} cores");
    }
}
