#![doc = include_str!("ARCHITECTURE.md")]
#![deny(unsafe_code)]

// The rig of the tests under `tests/` also serves unit tests, and names the crate from outside.
#[cfg(test)]
extern crate self as weir;

pub mod cli;
pub mod conn;
pub mod control;
pub mod core;
pub mod exchange;
pub mod fault;
pub mod files;
pub mod ids;
#[allow(unsafe_code)]
pub mod io;
pub mod l4;
pub mod limits;
pub mod networks;
pub mod obs;
pub mod plan;
pub mod policy;
pub mod route;
pub mod serving;
pub mod shared;
pub mod tls;
pub mod upstream;
pub mod work_queue;
