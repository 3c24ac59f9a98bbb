use std::time::Duration;

use super::super::gcra::{Gcra, ticks};

const SECOND: Duration = Duration::from_secs(1);

fn at(ms: u64) -> u64 {
    ticks((1_000_000 + ms) * 1_000_000)
}

#[test]
fn a_full_bucket_admits_its_burst_at_once_and_then_one_token_each_interval() {
    let gcra = Gcra::new(10, SECOND, 3);
    let mut word = 0;
    for left in (0..3).rev() {
        word = gcra.take(word, at(0), 1);
        assert_eq!(gcra.tokens(word, at(0)), left);
    }
    assert_eq!(gcra.ready_in(word, at(0), 1), Duration::from_millis(100));
    assert_eq!(gcra.full_in(word, at(0)), Duration::from_millis(300));
    // Ten milliseconds are not held against it.
    assert_eq!(gcra.tokens(word, at(89)), 0);
    assert_eq!(gcra.tokens(word, at(90)), 1);
    assert_eq!(gcra.tokens(word, at(250)), 2);
    assert_eq!(gcra.tokens(word, at(10_000)), 3);
}

#[test]
fn tokens_that_are_given_back_can_be_taken_again() {
    let gcra = Gcra::new(1, SECOND, 5);
    let empty = gcra.take(0, at(0), 5);
    let word = gcra.give_back(empty, 2);
    assert_eq!(gcra.tokens(word, at(0)), 2);
    let full = gcra.give_back(empty, 5);
    assert_eq!(gcra.tokens(full, at(0)), 5);
}

/// The same tokens as a bucket that is filled step by step, in exact numbers.
#[test]
fn it_is_the_same_as_a_bucket_of_tokens() {
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..200 {
        // Intervals that are whole ticks.
        let interval_ms = rng.i64(1..500);
        let burst = rng.i64(1..40);
        let window = Duration::from_millis(interval_ms as u64);
        let gcra = Gcra::new(1, window, burst as u32);
        let full_ms = burst * interval_ms;
        let (mut word, mut now, mut level_ms) = (0, 0, full_ms);
        for _ in 0..500 {
            let pause = rng.i64(0..interval_ms * 2);
            now += pause as u64;
            level_ms = (level_ms + pause).min(full_ms);
            // With the patience for late clocks.
            let level_us = level_ms * 1_000 + (interval_ms * 500).min(10_000);
            let tokens = (level_us / (interval_ms * 1_000)).clamp(0, burst) as u64;
            assert_eq!(gcra.tokens(word, at(now)), tokens);
            let wanted = rng.u64(1..4);
            if wanted <= tokens {
                word = gcra.take(word, at(now), wanted);
                level_ms -= wanted as i64 * interval_ms;
                let full_in = gcra.full_in(word, at(now));
                assert_eq!(full_in.as_millis() as i64, full_ms - level_ms);
            }
        }
    }
}

#[test]
fn a_late_clock_costs_no_token() {
    let gcra = Gcra::new(60, Duration::from_secs(3_600), 3);
    let word = gcra.take(0, at(100), 1);
    assert_eq!(gcra.tokens(word, at(95)), 2);
    let word = gcra.take(word, at(95), 2);
    assert_eq!(gcra.tokens(word, at(100)), 0);
    assert_eq!(gcra.ready_in(word, at(100), 1), Duration::from_secs(60));
}

#[test]
fn a_batch_is_a_part_of_the_burst_and_of_the_rate() {
    let batch = |count, burst, cores| Gcra::new(count, SECOND, burst).batch(cores);
    assert_eq!(batch(100, 20, 8), 1);
    assert_eq!(batch(100_000, 100_000, 8), 1_562);
    assert_eq!(batch(1_000, 100_000, 1), 20);
    assert_eq!(batch(100_000, 128, 8), 2);
    assert_eq!(batch(1, 1, 1), 1);
}

#[test]
fn a_changed_limit_keeps_how_many_tokens_are_missing() {
    let old = Gcra::new(1, SECOND, 60);
    let new = Gcra::new(10, SECOND, 100);
    let word = old.take(0, at(0), 30);
    assert_eq!(new.tokens(new.converted(&old, word, at(0)), at(0)), 70);
    assert_eq!(
        new.tokens(new.converted(&old, word, at(5_000)), at(5_000)),
        75
    );
    let few = Gcra::new(1, SECOND, 10);
    assert_eq!(few.tokens(few.converted(&old, word, at(0)), at(0)), 0);
    assert_eq!(new.converted(&old, 0, at(0)), 0);
}

#[test]
fn extreme_limits_do_not_overflow() {
    let slow = Gcra::new(1, Duration::from_secs(86_400), u32::MAX);
    let word = slow.take(0, at(0), slow.burst());
    assert_eq!(slow.tokens(word, at(0)), 0);
    let fast = Gcra::new(10_000_000, SECOND, u32::MAX);
    let mut word = fast.take(0, at(0), fast.burst());
    let gained = fast.tokens(word, at(1_000));
    assert!((9_980_000..=10_000_000).contains(&gained), "{gained}");
    word = fast.take(word, at(1_000), gained);
    assert_eq!(fast.tokens(word, at(1_000)), 0);
}
