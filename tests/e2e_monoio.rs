//! The driver for older kernels runs the tests that depend on a driver, with the real binary.
#![allow(
    clippy::unwrap_used,
    clippy::duplicate_mod,
    reason = "a test fails by panicking; each file stands for itself"
)]

#[path = "e2e_early.rs"]
mod early;
#[path = "e2e_fairness.rs"]
mod fairness;
#[path = "e2e_faults.rs"]
mod faults;
#[path = "e2e_forwarding.rs"]
mod forwarding;
#[path = "e2e_l4.rs"]
mod l4;
#[path = "e2e_long_bodies.rs"]
mod long_bodies;
#[path = "e2e_udp.rs"]
mod udp;
#[path = "e2e_upgrade.rs"]
mod upgrade;
