//! The shared cells of `limit` and `concurrency` under a model checker, which tries every order in which the cores can
//! read and write.

#[path = "../src/policy/limit/table.rs"]
#[allow(dead_code, unreachable_pub)]
mod table;

/// What the cells take from here instead of from the standard library.
mod atomics {
    pub(super) use loom::hint::spin_loop;
    pub(super) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    pub(super) use loom::thread::yield_now;

    pub(super) fn zeroed_words(count: usize) -> Box<[AtomicU64]> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }

    /// One of each, so that the model also has cores that give up.
    pub(super) const LOCK_SPINS: u32 = 1;
    pub(super) const LOCK_YIELDS: u32 = 1;
}

use loom::sync::Arc;
use loom::thread;
use table::{Key, KeyTable, Update, held, held_count};

/// Two cells, one set.
type SmallTable = KeyTable<2>;

const NOW: u64 = 100;

fn key(n: u64) -> Key {
    Key { high: n, low: 0 }
}

/// Takes one token of ten ticks from a bucket of two.
fn take(table: &SmallTable, key: Key, now: u64) -> Update {
    table.update(key, now, |word| {
        let full_at = word.max(now) + 10;
        (full_at <= now + 20).then_some(full_at)
    })
}

fn is_taken(update: Update) -> bool {
    matches!(update, Update::Changed { .. })
}

fn model(test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // Preemptions at every point would take hours.
    builder.preemption_bound = Some(2);
    builder.check(test);
}

#[test]
fn cores_that_meet_a_new_key_at_once_share_its_bucket() {
    model(|| {
        let table = Arc::new(SmallTable::new(1));
        let others = [(); 2].map(|()| {
            let table = table.clone();
            thread::spawn(move || take(&table, key(1), NOW))
        });
        let mine = take(&table, key(1), NOW);
        let [one, other] = others.map(|other| other.join().unwrap());
        let updates = [mine, one, other];
        let taken = updates
            .into_iter()
            .filter(|update| is_taken(*update))
            .count() as u64;
        let gave_up = updates.contains(&Update::NoRoom);
        assert!(taken == 2 || gave_up && taken == 1, "{updates:?}");
        assert_eq!(table.read(key(1)), NOW + 10 * taken);
        assert_eq!(table.used(), 1);
    });
}

#[test]
fn a_core_that_still_uses_an_idle_key_never_charges_the_key_that_replaces_it() {
    model(|| {
        let table = Arc::new(SmallTable::new(1));
        // One cell is busy for long, the other idle.
        assert!(is_taken(table.update(key(1), 1, |_| Some(1_000))));
        assert!(is_taken(take(&table, key(2), 1)));
        let replace = {
            let table = table.clone();
            thread::spawn(move || is_taken(take(&table, key(3), NOW)))
        };
        let is_old_taken = is_taken(take(&table, key(2), NOW));
        let is_new_taken = replace.join().unwrap();
        // One of them has the cell; the other finds no room, and no word has both charges.
        assert!(is_old_taken || is_new_taken);
        let words = [table.read(key(2)), table.read(key(3))];
        assert!(
            words == [NOW + 10, 0] || words == [0, NOW + 10],
            "{words:?}"
        );
        assert_eq!(table.read(key(1)), 1_000);
    });
}

#[test]
fn two_new_keys_never_get_one_cell() {
    model(|| {
        let table = Arc::new(SmallTable::new(1));
        assert!(is_taken(table.update(key(1), 1, |_| Some(1_000))));
        let other = {
            let table = table.clone();
            thread::spawn(move || take(&table, key(2), NOW))
        };
        let mine = take(&table, key(3), NOW);
        let other = other.join().unwrap();
        assert!(is_taken(mine) != is_taken(other));
        assert!(mine == Update::NoRoom || other == Update::NoRoom);
    });
}

#[test]
fn tokens_given_back_while_others_take_are_counted_once() {
    model(|| {
        let table = Arc::new(SmallTable::new(1));
        assert!(is_taken(take(&table, key(1), NOW)));
        assert!(is_taken(take(&table, key(1), NOW)));
        let give = {
            let table = table.clone();
            thread::spawn(move || table.update(key(1), NOW, |word| (word > NOW).then(|| word - 10)))
        };
        let is_again = is_taken(take(&table, key(1), NOW));
        assert!(is_taken(give.join().unwrap()));
        let left = if is_again { NOW + 20 } else { NOW + 10 };
        assert_eq!(table.read(key(1)), left);
    });
}

fn enter(table: &SmallTable, key: Key, most: u32) -> Option<usize> {
    let change = |word: u64| match word {
        0 => Some(held(1)),
        word => (held_count(word) < most).then_some(word + 1),
    };
    match table.update(key, NOW, change) {
        Update::Changed { cell, .. } => Some(cell),
        _ => None,
    }
}

#[test]
fn permits_never_exceed_their_limit_and_all_come_back() {
    use std::sync::atomic::{AtomicU32, Ordering};
    model(|| {
        let table = Arc::new(SmallTable::new(1));
        let inside = std::sync::Arc::new(AtomicU32::new(0));
        // Both keys want one cell: the other stays busy.
        assert!(enter(&table, key(9), 1).is_some());
        let visit = |n| {
            let (table, inside) = (table.clone(), inside.clone());
            move || {
                let Some(cell) = enter(&table, key(n), 1) else {
                    return;
                };
                if n == 1 {
                    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0);
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::Relaxed);
                }
                table.release(cell);
            }
        };
        let other = thread::spawn(visit(1));
        visit(1)();
        visit(2)();
        other.join().unwrap();
        assert!((1..3).all(|n| held_count(table.read(key(n))) == 0));
    });
}

/// A permit of a key that left the cell long ago is not given to the key that has the cell now.
#[test]
fn a_cell_tells_its_keys_apart_even_when_they_count_the_same() {
    model(|| {
        let table = Arc::new(SmallTable::new(1));
        // The other cell stays busy.
        assert!(enter(&table, key(9), 1).is_some());
        let first = enter(&table, key(1), 5).unwrap();
        let late = {
            let table = table.clone();
            thread::spawn(move || enter(&table, key(1), 5))
        };
        table.release(first);
        let second = enter(&table, key(2), 5);
        let late = late.join().unwrap();
        // Key 1 came late into its cell, or key 2 has the cell alone.
        let counts = [1, 2].map(|n| held_count(table.read(key(n))));
        let expected = [u32::from(late.is_some()), u32::from(second.is_some())];
        assert_eq!(counts, expected);
    });
}
