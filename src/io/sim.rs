//! A deterministic world for tests: an implementation of [`Net`](super::Net) without a kernel.
//!
//! A [`World`] holds cores, scripted clients and endpoints, the connections between them, a virtual clock, and one
//! scheduler for all of them. One seed decides everything that the seam leaves open: which task runs next, how many
//! bytes a receive or a send takes, when and in which order completions appear, how long a connect takes. Nothing ever
//! sleeps: when no task can run, the clock jumps to the next event. The same seed gives the same run.
//!
//! The simulator enforces the rules of real systems that programs most often get wrong:
//! - Closing with unread bytes resets the connection.
//! - A closed socket answers bytes with a reset.
//! - A reset destroys the bytes that are still under way.
//! - A full listener queue drops connects.
//! - A task that wakes itself stops all I/O.
//! - Cores wake each other only by a doorbell.
//!
//! ```
//! use weir::io::sim::{self, Peer, at};
//!
//! sim::check(20, |world| {
//!     let address = at("10.0.0.1:80");
//!     world.endpoint(&address, |mut peer| async move {
//!         let line = peer.read_until(b"\n").await.unwrap();
//!         peer.send(&line).await.unwrap();
//!     });
//!     let client = world.client();
//!     world.run(async move {
//!         let mut peer = Peer::connect(&client, &address).await.unwrap();
//!         peer.send(b"hello\n").await.unwrap();
//!         assert_eq!(peer.read_to_end().await.0, b"hello\n");
//!     });
//! });
//! ```

mod conn;
mod datagrams;
mod exec;
mod faults;
mod kernel;
mod net;
mod peer;
mod rng;
mod trace;
mod world;

pub use datagrams::SimDatagrams;
pub use faults::{Faults, Reach};
pub use net::{Sim, SimBell, SimListener, SimPackedConnection, SimRx, SimSocket, SimTx};
pub use peer::{End, Peer};
pub use rng::Rng;
pub use world::{Endpoint, World, at, check, seeds};

#[cfg(test)]
#[path = "conformance.rs"]
mod conformance;
#[cfg(test)]
mod tests;
