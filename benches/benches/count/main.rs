//! Runs a named case a given number of times under callgrind. `scripts/count` computes the
//! instructions for each operation.

#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    reason = "a case that cannot run must stop, or it would look cheap"
)]

mod balance;
mod connect;
mod exchange;
mod grpc;
mod handshake;
mod hpack;
mod http1;
mod http2;
mod http2_client;
mod jwt;
mod plan;
mod routing;

use std::error::Error;

const HELP: &str = "\
count: runs a case so that callgrind can count its instructions

usage: count --list
       count CASE TIMES
";

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A name, and a function that repeats the operation.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) run: fn(times: u64),
    /// A case that does the same except for the part that this case measures.
    pub(crate) base: Option<&'static str>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["--list"] => {
            cases().for_each(|case| println!("{} {}", case.name, case.base.unwrap_or("-")));
        }
        [name, times] => {
            let case = cases()
                .find(|case| case.name == name)
                .ok_or_else(|| format!("unknown case {name}"))?;
            (case.run)(times.parse()?);
        }
        _ => print!("{HELP}"),
    }
    Ok(())
}

fn cases() -> impl Iterator<Item = &'static Case> {
    let cases = http1::CASES.iter().chain(hpack::CASES).chain(http2::CASES);
    let cases = cases.chain(http2_client::CASES).chain(routing::CASES);
    let cases = cases.chain(plan::CASES).chain(exchange::CASES);
    let cases = cases.chain(connect::CASES);
    let cases = cases.chain(grpc::CASES).chain(jwt::CASES);
    cases.chain(balance::CASES).chain(handshake::CASES)
}
