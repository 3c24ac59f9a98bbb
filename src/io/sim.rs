//! A deterministic world for tests: the seam a second time, without a kernel.
//!
//! A [`World`] holds cores, scripted clients and endpoints, the connections between them, a virtual clock and one
//! scheduler for all. Everything that is left open by the seam is drawn from one seed: which task runs next, how many
//! bytes a receive or a send takes, when a completion becomes visible and in which order, how long a connect lasts.
//! Nothing ever sleeps; when no task can run, the clock jumps to the next event. The same seed gives the same run.
//!
//! The rules of the real world that programs most often get wrong hold here too: a close with unread bytes is a reset,
//! bytes for a closed socket are answered by a reset, a reset takes what is still under way with it, a full listener
//! queue drops connects, a task that wakes itself stops everything, cores may wake each other only by a bell.
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
mod exec;
mod faults;
mod kernel;
mod net;
mod peer;
mod rng;
mod trace;
mod world;

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
