//! Scripted clients: they send requests and judge the answers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use weir::io::sim::{End, Peer, Rng, Sim, World, at};
use weir::io::{Address, Net, Tx};

use super::coding::decode;
use super::endpoint::{Answer, Behaviour};
use super::message::{Framing, Head, announce, body_of, frame, read_body};

/// A request, and the answer that the endpoint is to give.
#[derive(Clone, Debug)]
pub struct ScriptedRequest {
    pub id: u64,
    pub method: &'static str,
    pub path: &'static str,
    pub len: usize,
    pub framing: Framing,
    /// More fields, each with its name in lower case.
    pub fields: Vec<(&'static str, String)>,
    pub answer: Answer,
}

/// What became of a request.
#[derive(Debug)]
pub enum Outcome {
    /// The endpoint's answer arrived complete and correct.
    Answered,
    /// Weir answered itself, with this status and reason.
    Refused(u16, String),
    /// The authorization server's refusal arrived complete and correct.
    Unauthorized,
    /// Weir answered a preflight.
    Preflight,
    /// An answer arrived that is visibly incomplete.
    Truncated,
    /// The connection ended without an answer.
    Lost(End),
}

impl ScriptedRequest {
    /// A random request. Its answer is not a failure.
    pub fn random(id: u64, rng: &mut Rng) -> Self {
        let method = ["GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE"][rng.below(7)];
        let has_body = matches!(method, "POST" | "PUT");
        let framing = match rng.below(2) {
            _ if !has_body => Framing::None,
            0 => Framing::Length,
            _ => Framing::Chunked,
        };
        let answer = Answer {
            status: [200, 200, 200, 201, 204, 304, 404, 500][rng.below(8)],
            len: random_len(rng),
            framing: [Framing::Length, Framing::Chunked, Framing::Close][rng.below(3)],
            delay_ms: [0, 0, 0, 20][rng.below(4)],
            behaviour: [
                Behaviour::None,
                Behaviour::None,
                Behaviour::Interim,
                Behaviour::Close,
            ][rng.below(4)],
        };
        Self {
            id,
            method,
            path: "/",
            len: if has_body { random_len(rng) } else { 0 },
            framing,
            fields: Vec::new(),
            answer,
        }
    }

    /// A GET that the endpoint answers after `delay_ms` with five bytes.
    pub fn get(id: u64, delay_ms: u64) -> Self {
        Self {
            id,
            method: "GET",
            path: "/",
            len: 0,
            framing: Framing::None,
            fields: Vec::new(),
            answer: Answer {
                status: 200,
                len: 5,
                framing: Framing::Length,
                delay_ms,
                behaviour: Behaviour::None,
            },
        }
    }

    /// Whether Weir may repeat the request.
    pub fn is_idempotent(&self) -> bool {
        self.method != "POST"
    }

    /// The request's bytes.
    pub fn encode(&self, rng: &mut Rng) -> Vec<u8> {
        let (method, path, id, len) = (self.method, self.path, self.id, self.len);
        let (answer, framing) = (self.answer.encode(), announce(self.framing, len));
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: sim\r\nX-Id: {id}\r\nX-Body: {len}\r\n\
             X-Answer: {answer}\r\n{framing}"
        );
        for (name, value) in &self.fields {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        let mut wire = head.into_bytes();
        if self.framing != Framing::None {
            wire.extend(frame(self.framing, &body_of(id, false, len), rng));
        }
        wire
    }

    /// Reads the answer and judges it. A wrong answer panics; every possible outcome is returned. The flag says whether
    /// the connection stays open.
    pub async fn read(&self, peer: &mut Peer<Sim>) -> (Outcome, bool) {
        let head = loop {
            match Head::read(peer).await {
                Some(head) if head.line.contains(" 103 ") => {}
                Some(head) => break head,
                None => {
                    let (bytes, end) = peer.read_to_end().await;
                    assert!(
                        bytes.is_empty() || end != End::Orderly,
                        "the connection closed within a head"
                    );
                    return (Outcome::Lost(end), false);
                }
            }
        };
        let status: u16 = head.line[9..12].parse().expect("a status");
        let bodiless = self.method == "HEAD" || matches!(status, 204 | 304);
        let framing = match bodiless {
            true => Framing::None,
            false => head.framing(Framing::Close),
        };
        let (body, complete) = read_body(peer, &head, framing).await;
        let goes_on =
            complete && framing != Framing::Close && head.get("connection") != Some("close");
        if let Some(why) = head.get("proxy-status") {
            if !complete {
                return (Outcome::Truncated, false);
            }
            let why = why.split('"').nth(1).expect("details").to_owned();
            return (Outcome::Refused(status, why), goes_on);
        }
        let outcome = self.judge(status, |name| head.get(name), &body, complete);
        let is_whole = !matches!(outcome, Outcome::Truncated);
        (outcome, goes_on && is_whole)
    }

    /// Judges an answer that some server gave. `field` finds its fields.
    pub(super) fn judge<'f>(
        &self,
        status: u16,
        field: impl Fn(&str) -> Option<&'f str>,
        body: &[u8],
        is_whole: bool,
    ) -> Outcome {
        let id = self.id;
        if self.method == "OPTIONS" && field("x-id").is_none() {
            assert!(is_whole && body.is_empty(), "request {id}: a preflight");
            return Outcome::Preflight;
        }
        let is_refused = field("x-auth").is_some();
        let wanted = if is_refused { 403 } else { self.answer.status };
        assert_eq!(status, wanted, "request {id}");
        assert_eq!(
            field("x-id"),
            Some(&*id.to_string()),
            "the answer belongs to another request"
        );
        let is_bodiless = self.method == "HEAD" || matches!(status, 204 | 304);
        let want = match is_bodiless {
            true => Vec::new(),
            false => body_of(id, true, self.answer.len),
        };
        let (decoded, is_end) = match field("content-encoding") {
            Some(coding) => {
                let mut fields = self.fields.iter();
                let accepted = fields.find(|(name, _)| *name == "accept-encoding");
                let accepts = accepted.is_some_and(|(_, codings)| codings.contains(coding));
                assert!(accepts, "request {id}: {coding}");
                match is_bodiless {
                    true => (Vec::new(), true),
                    false => decode(coding, body),
                }
            }
            None => (body.to_vec(), true),
        };
        assert!(
            want.starts_with(&decoded),
            "request {id}: the answer was changed on the way"
        );
        if !is_whole {
            return Outcome::Truncated;
        }
        let (got, whole) = (decoded.len(), want.len());
        assert!(
            is_end && got == whole,
            "request {id}: a truncated answer looks complete: {got} of {whole} bytes"
        );
        match is_refused {
            true => Outcome::Unauthorized,
            false => Outcome::Answered,
        }
    }
}

fn random_len(rng: &mut Rng) -> usize {
    match rng.below(4) {
        0 => 0,
        1 => rng.size(3_000),
        _ => rng.size(150_000),
    }
}

/// Sends requests one after the other over as few connections as possible.
pub async fn ask_all(
    net: &Sim,
    to: &Address,
    asks: &[ScriptedRequest],
    rng: &mut Rng,
) -> Vec<Outcome> {
    let mut peer = None;
    let mut outcomes = Vec::new();
    for ask in asks {
        let mut open = match peer.take() {
            Some(open) => open,
            None => match Peer::connect(net, to).await {
                Ok(open) => open,
                Err(error) => {
                    outcomes.push(Outcome::Lost(End::Failed(error.kind())));
                    continue;
                }
            },
        };
        open.write(&ask.encode(rng));
        let (outcome, goes_on) = ask.read(&mut open).await;
        let whole = !matches!(outcome, Outcome::Truncated | Outcome::Lost(_));
        outcomes.push(outcome);
        // If the answer came before the request was sent, the rest of the request is not worth sending.
        if goes_on && open.tx.queued() == 0 {
            peer = Some(open);
        } else if !goes_on && whole {
            expect_end(open).await;
        }
    }
    if let Some(mut open) = peer {
        open.finish();
        expect_end(open).await;
    }
    outcomes
}

/// Sends all requests at once over one connection and reads the answers in order, as far as they come.
pub async fn pipeline(
    net: &Sim,
    to: &Address,
    asks: &[ScriptedRequest],
    rng: &mut Rng,
) -> Vec<Outcome> {
    let mut peer = Peer::connect(net, to).await.expect("Weir listens");
    let wire: Vec<u8> = asks.iter().flat_map(|ask| ask.encode(rng)).collect();
    peer.write(&wire);
    let mut outcomes = Vec::new();
    for ask in asks {
        let (outcome, goes_on) = ask.read(&mut peer).await;
        outcomes.push(outcome);
        if !goes_on {
            expect_end(peer).await;
            return outcomes;
        }
    }
    peer.finish();
    expect_end(peer).await;
    outcomes
}

/// Asserts that nothing follows the last answer.
pub async fn expect_end(mut peer: Peer<Sim>) {
    let (bytes, _) = peer.read_to_end().await;
    assert!(
        bytes.is_empty(),
        "{} bytes after the last answer",
        bytes.len()
    );
}

/// Clients that run side by side, with the outcome of each request.
#[derive(Clone, Default)]
pub struct ClientRun {
    left: Rc<Cell<usize>>,
    results: Rc<RefCell<Vec<(ScriptedRequest, Outcome)>>>,
}

impl ClientRun {
    /// Starts a client whose requests `send` sends.
    pub fn start<F>(
        &self,
        net: &Sim,
        requests: Vec<ScriptedRequest>,
        send: impl FnOnce(Vec<ScriptedRequest>) -> F + 'static,
    ) where
        F: Future<Output = Vec<Outcome>>,
    {
        let run = self.clone();
        self.left.set(self.left.get() + 1);
        net.spawn(async move {
            let outcomes = send(requests.clone()).await;
            run.results
                .borrow_mut()
                .extend(requests.into_iter().zip(outcomes));
            run.left.set(run.left.get() - 1);
        });
    }

    /// Starts up to three clients that each send a few random requests, changed by `change`, one after the other.
    pub fn start_random(
        &self,
        world: &World,
        to: &'static str,
        rng: &mut Rng,
        change: impl Fn(&mut ScriptedRequest),
    ) {
        for client in 0..rng.between(1, 4) as u64 {
            let ids = (client * 100..).take(rng.between(1, 6));
            let mut asks: Vec<_> = ids.map(|id| ScriptedRequest::random(id, rng)).collect();
            asks.iter_mut().for_each(&change);
            let (net, mut rng) = (world.client(), rng.fork());
            self.start(&net.clone(), asks, async move |asks| {
                ask_all(&net, &at(to), &asks, &mut rng).await
            });
        }
    }

    /// Whether every client is done.
    pub fn is_over(&self) -> bool {
        self.left.get() == 0
    }

    /// Runs until every client is done. Returns what became of each request.
    pub fn wait(&self, world: &World) -> Vec<(ScriptedRequest, Outcome)> {
        world.run_until(|| self.is_over());
        self.results.take()
    }
}

/// Clients that run side by side, and the requests that are done.
#[derive(Clone, Default)]
pub struct Clients {
    started: Rc<Cell<usize>>,
    finished: Rc<RefCell<Vec<Finished>>>,
}

/// A request that is done.
#[derive(Clone, Debug)]
pub struct Finished {
    pub id: u64,
    /// Time since the test started its client.
    pub took: Duration,
    /// `answered`, or the status and the reason of a refusal.
    pub outcome: String,
}

impl Clients {
    /// Starts a client that waits for `delay` and then sends its requests one after the other.
    pub fn start(&self, world: &World, to: &str, delay: Duration, requests: Vec<ScriptedRequest>) {
        let (net, finished, to) = (world.client(), self.finished.clone(), at(to));
        let (started_at, mut rng) = (world.now(), world.rng(requests[0].id));
        self.started.set(self.started.get() + requests.len());
        world.spawn(async move {
            net.sleep_until(net.now() + delay).await;
            let outcomes = ask_all(&net, &to, &requests, &mut rng).await;
            let took = net.now().since(started_at);
            for (request, outcome) in requests.iter().zip(outcomes) {
                let outcome = match &outcome {
                    Outcome::Answered => "answered".to_owned(),
                    Outcome::Refused(status, why) => format!("{status} {why}"),
                    other => format!("{other:?}"),
                };
                let id = request.id;
                finished.borrow_mut().push(Finished { id, took, outcome });
            }
        });
    }

    /// The number of requests started so far.
    pub fn started(&self) -> usize {
        self.started.get()
    }

    /// Whether every request is done.
    pub fn are_done(&self) -> bool {
        self.finished.borrow().len() == self.started.get()
    }

    /// Runs until every request is done. Returns them in the order in which they ended.
    pub fn wait(&self, world: &World) -> Vec<Finished> {
        world.run_until(|| self.are_done());
        self.started.set(0);
        self.finished.take()
    }
}

/// How many requests ended with this outcome.
pub fn count_outcomes(finished: &[Finished], outcome: &str) -> usize {
    let is_it = |one: &&Finished| one.outcome == outcome;
    finished.iter().filter(is_it).count()
}
