//! Both roles against the `h2` crate over in-memory pipes: what one side says is what the other
//! hears, whatever the windows, the pipe and the pace.

#![allow(clippy::unwrap_used, clippy::expect_used)] // What fails here fails the test.

mod our_client;
mod our_server;
mod ours;
mod plan;
#[path = "../../../proto-h1/tests/support/replay.rs"]
mod replay;

use std::future::Future;

use plan::Plan;

/// Seeds of each direction. A failure names its own.
const SEEDS: u64 = 60;

#[test]
fn the_h2_client_and_our_server_understand_each_other() {
    for seed in 0..SEEDS {
        run(our_server::differ(Plan::new(seed)), seed);
    }
}

#[test]
fn our_client_and_the_h2_server_understand_each_other() {
    for seed in 0..SEEDS {
        run(our_client::differ(Plan::new(seed)), seed);
    }
}

fn run(future: impl Future<Output = ()>, seed: u64) {
    struct Told(u64);
    impl Drop for Told {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("seed {}", self.0);
            }
        }
    }
    let _told = Told(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future);
}
