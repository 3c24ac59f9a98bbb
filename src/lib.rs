//! Weir: an edge proxy, load balancer and API gateway in one binary.
#![deny(unsafe_code)]

#[allow(unsafe_code)]
pub mod io;
pub mod limits;
