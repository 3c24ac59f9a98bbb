//! Finds endpoints while the process runs: addresses of host names, and endpoints that files, DNS, URLs and Consul list.
//!
//! All of it is one mechanism. The [`Resolver`] keeps the last good answer to each question and the time of the next one; a
//! start, a reload and the loop in `watch` ask. Whenever a good answer differs from the one before, control compiles new
//! endpoint sets. A question that fails changes nothing.

mod consul;
mod dns;
mod found;
mod hosts_file;
mod page;
mod question;
mod records;
mod resolver;
mod server_list;
mod srv;
mod watch;

pub use found::FoundEndpoints;
pub use resolver::Resolver;
