//! Runs both roles against the `h2` crate over in-memory pipes. Each side receives what the other
//! has sent, for any windows, pipe size and pace.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic fails the test.

mod our_client;
mod our_server;
mod ours;
mod plan;
#[path = "../../../proto-h1/tests/support/replay.rs"]
mod replay;

use std::future::Future;

use plan::Plan;

/// Seeds for each direction. A failure prints its seed.
const SEEDS: u64 = 60;

#[test]
fn the_h2_client_and_our_server_understand_each_other() {
    for seed in 0..SEEDS {
        run(our_server::run_plan(Plan::new(seed)), seed);
    }
}

#[test]
fn our_client_and_the_h2_server_understand_each_other() {
    for seed in 0..SEEDS {
        run(our_client::run_plan(Plan::new(seed)), seed);
    }
}

fn run(future: impl Future<Output = ()>, seed: u64) {
    struct SeedReport(u64);
    impl Drop for SeedReport {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("seed {}", self.0);
            }
        }
    }
    let _report = SeedReport(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future);
}
