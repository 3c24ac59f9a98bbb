//! The memory of an idle connection.

use super::counting_allocator::Tally;
use super::e2e::eventually;
use super::{Core, GET, ask, connect, endpoint};

/// What an idle connection in the clear may have allocated: its task and its socket. `src/ARCHITECTURE.md` has a table
/// of all that it holds. The core's tables have room for it already; assertions beside them bound the size of a place.
const PLAIN_BYTES_MAX: f64 = 232.0;

/// The test compares this many idle connections with that many.
const CONNECTIONS: (usize, usize) = (48, 496);

/// The counts stay the same for as many looks, 5 ms apart: longer than a connection keeps the memory of its last
/// request.
const CALM_LOOKS: usize = 60;

#[test]
fn an_idle_connection_holds_few_bytes() {
    let core = Core::start("", endpoint(GET, "HTTP/1.1 204 No Content\r\n\r\n"), None);
    let mut clients = Vec::new();
    let mut open = |count| {
        clients.resize_with(count, || connect(core.address));
        clients.iter_mut().for_each(|client| ask(client, GET, 1));
        at_rest(core.tally)
    };
    let (few, many) = CONNECTIONS;
    let (before, after) = (open(few), open(many));
    drop(clients);
    core.stop();
    let each: Vec<_> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| (before.0, after.1 - before.1))
        .filter(|each| each.1 != 0)
        .collect();
    let bytes: i64 = each.iter().map(|(bytes, pieces)| bytes * pieces).sum();
    let bytes = bytes as f64 / (many - few) as f64;
    assert!(
        bytes <= PLAIN_BYTES_MAX,
        "{bytes:.1} bytes for each of {} connections; (bytes, pieces) are {each:?}",
        many - few
    );
}

/// What the core's thread has allocated once it allocates and frees no more.
fn at_rest(tally: &Tally) -> Vec<(i64, i64)> {
    let (mut last, mut looks) = (tally.live(), 0);
    eventually("a core at rest", || {
        let live = tally.live();
        looks = if live == last { looks + 1 } else { 0 };
        last.clone_from(&live);
        (looks > CALM_LOOKS).then_some(live)
    })
}
