use weir_proto_h1::{Limits, Server};

use super::probe::{Action, Probe, in_words};
use super::*;

/// Runs a body through filters in pieces of these lengths, as the exchange does. Returns the framing, the body, whether
/// trailers are left, and how many budgets that took.
struct Run {
    framed: Framed,
    body: Vec<u8>,
    trailers: Trailers,
    budgets: usize,
    parts: usize,
}

fn run(
    filters: &[(Action, usize, u32)],
    body: &[u8],
    announced: BodyKind,
    cuts: &[usize],
    trailers: &Trailers,
) -> Result<Run, Fault> {
    let mut chain = chain(filters);
    let pool = Pool::new();
    let (mut edits, head) = (Edits::new(), Head::with_status(200));
    let mut run = Run {
        framed: chain.head(&head, &mut edits, announced),
        body: Vec::new(),
        trailers: Trailers::default(),
        budgets: 0,
        parts: 0,
    };
    let (mut rest, mut cuts) = (body, cuts.iter().cycle());
    let mut has_head = run.framed != Framed::Later;
    loop {
        match chain.pull(&pool)? {
            Some(Part::Head) => {
                assert!(!has_head, "the head leaves once");
                run.framed = chain.head(&head, &mut edits, BodyKind::None);
                has_head = run.framed != Framed::Later;
            }
            Some(Part::Data(data)) => {
                assert!(has_head && !data.is_empty());
                run.body.extend_from_slice(&data);
                run.parts += 1;
            }
            Some(Part::End) => break,
            None if chain.has_work() => {
                run.budgets += 1;
                chain.renew_budget();
            }
            None if rest.is_empty() => {
                assert!(!chain.has_ended(), "a chain ends");
                chain.end(trailers);
            }
            None => {
                let cut = *cuts.next().unwrap();
                let (piece, more) = rest.split_at(cut.clamp(1, rest.len()));
                chain.push(pool.copy(piece));
                rest = more;
                if cut % 2 == 0 {
                    chain.flush();
                }
            }
        }
    }
    assert!(!chain.has_work(), "nothing follows the end");
    assert_eq!(chain.received(), body.len() as u64);
    run.trailers = chain.trailers().clone();
    drop(chain);
    assert_eq!(pool.taken_bytes(), 0, "all memory is back");
    Ok(run)
}

fn chain(filters: &[(Action, usize, u32)]) -> Box<Chain> {
    let mut added = Filters::default();
    for &(action, step_bytes, step_us) in filters {
        added.add(Filter::Probe(Probe::new(action, step_bytes, step_us)));
    }
    added.into_chain().unwrap()
}

fn trailers() -> Trailers {
    let mut server = Server::new(Limits::default());
    let mut head = Head::new();
    let mut input =
        &b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 7\r\n\r\n"[..];
    while !server.is_received() {
        let received = server.receive(input, &mut head).unwrap();
        input = &input[received.consumed..];
    }
    server.trailers().clone()
}

fn random_body(rng: &mut fastrand::Rng) -> Vec<u8> {
    let len = rng.usize(..30_000);
    (0..len).map(|_| rng.u8(..)).collect()
}

fn model(filters: &[(Action, usize, u32)], body: &[u8], trailers: &Trailers) -> (Vec<u8>, bool) {
    let (mut body, mut has_trailers) = (body.to_vec(), !trailers.is_empty());
    for (action, ..) in filters {
        match action {
            Action::Double => body = body.iter().flat_map(|&byte| [byte, byte]).collect(),
            Action::AppendTrailers if std::mem::take(&mut has_trailers) => {
                body.extend_from_slice(&in_words(trailers));
            }
            _ => {}
        }
    }
    (body, has_trailers)
}

#[test]
fn any_chain_cut_in_any_way_gives_what_its_filters_say() {
    let mut rng = fastrand::Rng::with_seed(7);
    let (none, some) = (Trailers::default(), trailers());
    for _ in 0..600 {
        let actions = [
            Action::Pass,
            Action::Double,
            Action::Hold,
            Action::AppendTrailers,
        ];
        let filters: Vec<_> = (0..rng.usize(1..4))
            .map(|_| (actions[rng.usize(..4)], rng.usize(1..5_000), rng.u32(..200)))
            .collect();
        let body = random_body(&mut rng);
        let cuts: Vec<usize> = (0..5).map(|_| rng.usize(1..8_000)).collect();
        let kind = match rng.bool() {
            true => BodyKind::Length(body.len() as u64),
            false => BodyKind::Chunked,
        };
        let trailers = if rng.bool() { &some } else { &none };
        let run = run(&filters, &body, kind, &cuts, trailers).unwrap();
        let (expected, has_trailers) = model(&filters, &body, trailers);
        assert!(run.body == expected, "{filters:?} {cuts:?}");
        assert_eq!(!run.trailers.is_empty(), has_trailers, "{filters:?}");
        match run.framed {
            Framed::Now(BodyKind::Length(length)) => {
                assert_eq!(length, expected.len() as u64, "{filters:?}");
            }
            framed => assert_eq!(framed, Framed::Now(BodyKind::Chunked), "{filters:?}"),
        }
    }
}

#[test]
fn a_budget_bounds_the_work_between_two_turns() {
    let body = vec![7; 64 * 1024];
    let steps = body.len() / 1024;
    for step_us in [1, 20, FILTER_BUDGET_US, 1_000] {
        let filters = [(Action::Pass, 1024, step_us), (Action::Pass, 1024, step_us)];
        let run = run(
            &filters,
            &body,
            BodyKind::Chunked,
            &[65_537],
            &Trailers::default(),
        )
        .unwrap();
        let in_budget = FILTER_BUDGET_US.div_ceil(step_us) as usize;
        assert!(
            run.budgets >= 2 * steps / in_budget,
            "{step_us}: {}",
            run.budgets
        );
    }
}

#[test]
fn what_a_chain_holds_counts() {
    let pool = Pool::new();
    let mut chain = chain(&[(Action::Hold, 1024, 1)]);
    assert_eq!(
        chain.head(
            &Head::with_status(200),
            &mut Edits::new(),
            BodyKind::Chunked
        ),
        Framed::Later
    );
    assert_eq!(chain.held(), 0);
    for _ in 0..4 {
        chain.push(pool.copy(&[1; 20_000]));
    }
    assert!(chain.held() >= 80_000);
    chain.renew_budget();
    assert!(chain.pull(&pool).unwrap().is_none());
    assert!(chain.held() >= 80_000);
}

#[test]
fn a_failed_filter_fails_its_message() {
    let filters = [(Action::Double, 100, 1), (Action::Fail(900), 100, 1)];
    let body = vec![1; 10_000];
    assert!(
        run(
            &filters,
            &body,
            BodyKind::Chunked,
            &[70],
            &Trailers::default()
        )
        .is_err()
    );
}

#[test]
fn only_bodies_of_unknown_length_are_flushed_at_a_pause() {
    let pool = Pool::new();
    for (kind, flushes) in [(BodyKind::Chunked, true), (BodyKind::Length(10), false)] {
        let mut chain = chain(&[(Action::Pass, 100, 1)]);
        chain.head(&Head::with_status(200), &mut Edits::new(), kind);
        assert!(!chain.flush(), "nothing has come");
        chain.push(pool.copy(b"abc"));
        assert_eq!(chain.flush(), flushes);
        assert!(!chain.flush(), "once is enough");
    }
}
