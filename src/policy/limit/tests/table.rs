use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::super::table::{Key, KeyTable, Update, held, held_count};
use super::super::token_cache::TokenCache;
use super::super::{KEY_BYTES_MAX, cached_keys};

/// Keys as the digest makes them: spread over the whole range.
fn key(n: u64) -> Key {
    let mut rng = fastrand::Rng::with_seed(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    Key {
        high: rng.u64(..),
        low: rng.u64(..),
    }
}

/// Writes a word for a key that has none.
fn put(table: &KeyTable, key: Key, now: u64, word: u64) -> bool {
    let update = table.update(key, now, |old| (old == 0).then_some(word));
    !matches!(update, Update::NoRoom)
}

#[test]
fn each_key_has_its_own_word() {
    let table = KeyTable::<16>::new(2_000);
    for n in 0..1_000 {
        assert!(put(&table, key(n), 1, 100 + n));
    }
    for n in 0..1_000 {
        assert_eq!(table.read(key(n)), 100 + n);
    }
    assert_eq!(table.used(), 1_000);
    assert_eq!(table.read(key(1_000)), 0);
}

#[test]
fn a_table_has_room_for_its_keys_but_for_one_in_a_thousand() {
    let table = KeyTable::<16>::new(50_000);
    let lost = (0..50_000)
        .filter(|n| !put(&table, key(*n), 1, 100))
        .count();
    assert!(lost <= 50, "{lost}");
}

#[test]
fn new_keys_take_the_place_of_idle_ones_and_never_of_others() {
    let table = KeyTable::<16>::new(8);
    // Fills the one set.
    for n in 0..16 {
        assert!(put(&table, key(n), 1, 100 + n));
    }
    assert!(!put(&table, key(16), 100, 1_000));
    // The first bucket is full again.
    assert!(put(&table, key(17), 101, 1_000));
    assert_eq!(table.read(key(0)), 0);
    assert_eq!(table.read(key(17)), 1_000);
    assert!((1..16).all(|n| table.read(key(n)) == 100 + n));
    assert_eq!(table.used(), 16);
}

#[test]
fn a_flood_of_invented_keys_evicts_no_busy_key() {
    let table = KeyTable::<16>::new(1_000);
    let busy = key(0);
    assert!(put(&table, busy, 1, 1_000_000));
    // Each invented key is idle again after ten times as many others as the table holds.
    let mut lost = 0;
    for n in 1..=200_000 {
        lost += u32::from(!put(&table, key(n), n, n + 10_000));
        if n % 1_000 == 0 {
            assert_eq!(table.read(busy), 1_000_000);
        }
    }
    assert!(
        lost > 100_000,
        "the flood was too small to prove anything: {lost}"
    );
}

#[test]
fn requests_at_once_hold_their_cell_until_the_last_one_ends() {
    let table = KeyTable::<16>::new(8);
    let enter = |n: u64, max: u32| {
        let change = |word: u64| match word {
            0 => Some(held(1)),
            word => (held_count(word) < max).then_some(word + 1),
        };
        table.update(key(n), u64::MAX >> 1, change)
    };
    let Update::Changed { cell, .. } = enter(0, 2) else {
        panic!("no cell");
    };
    assert!(matches!(enter(0, 2), Update::Changed { cell: same, .. } if same == cell));
    assert!(matches!(enter(0, 2), Update::Kept(word) if held_count(word) == 2));
    for n in 1..16 {
        assert!(matches!(enter(n, 2), Update::Changed { .. }));
    }
    assert_eq!(enter(16, 2), Update::NoRoom);
    table.release(cell);
    assert_eq!(enter(16, 2), Update::NoRoom);
    table.release(cell);
    assert!(matches!(enter(16, 2), Update::Changed { cell: same, .. } if same == cell));
    assert_eq!(held_count(table.read(key(0))), 0);
}

#[test]
fn a_key_costs_at_most_96_bytes_with_the_caches_of_all_cores() {
    for keys in [1_000, 50_000, 1_000_000] {
        for cores in [1, 2, 8, 64] {
            let table = KeyTable::<16>::new(keys).bytes();
            let caches = cores * TokenCache::bytes(cached_keys(keys, cores));
            let each = (table + caches) as f64 / keys as f64;
            assert!(
                each <= KEY_BYTES_MAX as f64,
                "{each} with {keys} keys on {cores} cores"
            );
        }
    }
}

/// Threads that write few keys into a small table at the same time: no update is lost.
#[test]
fn updates_from_several_threads_add_up() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 20_000;
    let table = KeyTable::<16>::new(8);
    let lost = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (table, lost) = (&table, &lost);
            scope.spawn(move || {
                for n in 0..ROUNDS {
                    // Below `now` no word is idle, so each key keeps its cell.
                    let update =
                        table.update(key((n + thread) % 8), 1, |word| Some(word.max(1) + 1));
                    lost.fetch_add(u64::from(update == Update::NoRoom), Ordering::Relaxed);
                }
            });
        }
    });
    let sum: u64 = (0..8).map(|n| table.read(key(n)) - 1).sum();
    assert_eq!(sum + lost.into_inner(), THREADS * ROUNDS);
    assert_eq!(table.used(), 8);
}

/// Keys that come and go in one set, on several threads: a count never exceeds its limit, and none is left over.
#[test]
fn permits_from_several_threads_never_exceed_their_limit() {
    const MAX: u32 = 2;
    let table = KeyTable::<16>::new(1);
    let inside: Vec<AtomicU64> = (0..24).map(|_| AtomicU64::new(0)).collect();
    let failed = AtomicBool::new(false);
    thread::scope(|scope| {
        for thread in 0..4 {
            let (table, inside, failed) = (&table, &inside, &failed);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(thread);
                for _ in 0..20_000 {
                    let n = rng.usize(..24);
                    let change = |word: u64| match word {
                        0 => Some(held(1)),
                        word => (held_count(word) < MAX).then_some(word + 1),
                    };
                    let Update::Changed { cell, .. } = table.update(key(n as u64), 1, change)
                    else {
                        continue;
                    };
                    let count = inside[n].fetch_add(1, Ordering::SeqCst) + 1;
                    if count > MAX.into() {
                        failed.store(true, Ordering::Relaxed);
                    }
                    inside[n].fetch_sub(1, Ordering::SeqCst);
                    table.release(cell);
                }
            });
        }
    });
    assert!(!failed.into_inner());
    for n in 0..24 {
        assert_eq!(held_count(table.read(key(n))), 0);
    }
}

/// The system takes the CPU of a core that writes a new key. Another core that meets the key waits, and does not count it
/// where keys without a cell count: the key would have twice its limit.
#[test]
fn a_core_waits_for_one_that_stalls_while_it_writes_a_key() {
    // On a busy machine the thread that stalls may lose its CPU for longer than a core waits. A core that does not wait
    // fails each time.
    let waited = (0..20).any(|_| matches!(update_beside_a_stalled_core(), Update::Changed { .. }));
    assert!(waited);
}

fn update_beside_a_stalled_core() -> Update {
    let table = KeyTable::<16>::new(100);
    let begun = AtomicBool::new(false);
    let release = table.stall(key(1));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            begun.store(true, Ordering::Release);
            table.update(key(1), 1, |_| Some(held(1)))
        });
        while !begun.load(Ordering::Acquire) {
            thread::yield_now();
        }
        // Far longer than the lock is held by a core that runs.
        for _ in 0..1_000 {
            thread::yield_now();
        }
        release();
        other.join().unwrap()
    })
}
