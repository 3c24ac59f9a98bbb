//! Scripted endpoints. The request itself says in `x-answer` what to answer. A ledger records the requests.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use weir::io::sim::{Endpoint, Peer, Rng, Sim, World, at};
use weir::io::{Net, Tx};

use super::message::{Framing, Head, announce, body_of, frame, read_body};

/// The requests that all endpoints have received.
#[derive(Clone, Default)]
pub struct Ledger {
    seen: Rc<RefCell<Vec<SeenRequest>>>,
    /// Milliseconds that endpoints wait before each answer, beside what the request asks for.
    slow: Rc<RefCell<HashMap<String, u64>>>,
}

/// A request as an endpoint received it.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    pub id: u64,
    pub method: String,
    pub endpoint: String,
    /// The endpoint read the whole body. False if it answered before.
    pub complete: bool,
}

/// How an endpoint answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub len: usize,
    pub framing: Framing,
    /// The endpoint waits this long before it answers.
    pub delay_ms: u64,
    pub behaviour: Behaviour,
}

/// How the endpoint deviates from a plain answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Not at all.
    None,
    /// Sends an interim answer first.
    Interim,
    /// Answers without reading the request's body, and closes.
    Early,
    /// Sends `Connection: close` and closes.
    Close,
    /// Closes after the answer without announcing it.
    CloseSilently,
    /// Closes as soon as it has the request's head.
    CloseBefore,
    /// Resets as soon as it has the request's head.
    ResetBefore,
    /// Closes in the middle of the answer's body.
    CloseWithin,
    /// Resets in the middle of the answer's body.
    ResetWithin,
    /// Never answers.
    Silent,
    /// Stops in the middle of the body and keeps the connection open.
    Stall,
}

impl Behaviour {
    pub const ALL: [Self; 11] = [
        Self::None,
        Self::Interim,
        Self::Early,
        Self::Close,
        Self::CloseSilently,
        Self::CloseBefore,
        Self::ResetBefore,
        Self::CloseWithin,
        Self::ResetWithin,
        Self::Silent,
        Self::Stall,
    ];
}

impl Answer {
    /// The value of `x-answer`.
    pub fn encode(&self) -> String {
        let framing = match self.framing {
            Framing::None => 'n',
            Framing::Length => 'l',
            Framing::Chunked => 'c',
            Framing::Close => 'e',
        };
        let behaviour = Behaviour::ALL
            .iter()
            .position(|&behaviour| behaviour == self.behaviour);
        let (status, len, delay) = (self.status, self.len, self.delay_ms);
        format!(
            "{status} {len} {framing} {delay} {}",
            behaviour.expect("listed")
        )
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut words = text.split(' ');
        let mut number = || words.next().expect("a word").to_owned();
        let (status, len, framing) = (number(), number(), number());
        let (delay, behaviour) = (number(), number());
        Self {
            status: status.parse().expect("a status"),
            len: len.parse().expect("a length"),
            framing: match &*framing {
                "n" => Framing::None,
                "l" => Framing::Length,
                "c" => Framing::Chunked,
                _ => Framing::Close,
            },
            delay_ms: delay.parse().expect("a delay"),
            behaviour: Behaviour::ALL[behaviour.parse::<usize>().expect("a behaviour")],
        }
    }
}

impl Ledger {
    /// How often endpoints received a request.
    pub fn count(&self, id: u64) -> usize {
        self.seen
            .borrow()
            .iter()
            .filter(|seen| seen.id == id)
            .count()
    }

    /// Makes an endpoint wait so long before each answer.
    pub fn slow_down(&self, endpoint: &str, milliseconds: u64) {
        let mut slow = self.slow.borrow_mut();
        slow.insert(endpoint.to_owned(), milliseconds);
    }

    fn extra_delay(&self, endpoint: &str) -> u64 {
        self.slow.borrow().get(endpoint).copied().unwrap_or(0)
    }

    /// All requests received so far.
    pub fn all(&self) -> Vec<SeenRequest> {
        self.seen.borrow().clone()
    }

    pub(super) fn add(&self, seen: SeenRequest) -> usize {
        let mut all = self.seen.borrow_mut();
        all.push(seen);
        all.len() - 1
    }

    /// Records that the endpoint read the whole body.
    pub(super) fn complete(&self, seen: usize) {
        self.seen.borrow_mut()[seen].complete = true;
    }

    /// Starts an endpoint that answers as requests ask it to.
    pub fn endpoint(&self, world: &World, address: &str) -> Endpoint {
        let (ledger, name) = (self.clone(), address.to_owned());
        let seed = world.rng(99).next();
        world.endpoint(&at(address), move |peer| {
            serve(peer, ledger.clone(), name.clone(), Rng::new(seed))
        })
    }
}

async fn serve(mut peer: Peer<Sim>, ledger: Ledger, endpoint: String, mut rng: Rng) {
    while let Some(head) = Head::read(&mut peer).await {
        let id = head.get("x-id").expect("an id").parse().expect("a number");
        let method = head.line.split(' ').next().expect("a method").to_owned();
        let seen = ledger.add(SeenRequest {
            id,
            method: method.clone(),
            endpoint: endpoint.clone(),
            complete: false,
        });
        let answer = Answer::parse(head.get("x-answer").expect("what to answer"));
        match answer.behaviour {
            Behaviour::CloseBefore => return,
            Behaviour::ResetBefore => return peer.reset(),
            Behaviour::Silent => return until_closed(peer).await,
            Behaviour::Early => {}
            _ => {
                let (body, complete) =
                    read_body(&mut peer, &head, head.framing(Framing::None)).await;
                let want = body_of(id, false, body.len());
                assert!(
                    body == want,
                    "request {id}: its body was changed on the way"
                );
                if !complete {
                    return;
                }
                let whole = head.get("x-body").expect("a length").parse::<usize>();
                assert_eq!(
                    body.len(),
                    whole.expect("a number"),
                    "request {id} was cut short"
                );
                ledger.complete(seen);
            }
        }
        let answer = Answer {
            delay_ms: answer.delay_ms + ledger.extra_delay(&endpoint),
            ..answer
        };
        if !reply(&mut peer, id, &method, answer, &mut rng).await {
            return;
        }
    }
}

/// Sends the answer. Returns whether the connection stays open.
async fn reply(peer: &mut Peer<Sim>, id: u64, method: &str, answer: Answer, rng: &mut Rng) -> bool {
    let net = peer.net().clone();
    if answer.delay_ms > 0 {
        let until = net.now() + Duration::from_millis(answer.delay_ms);
        net.sleep_until(until).await;
    }
    let mut wire = String::new();
    if answer.behaviour == Behaviour::Interim {
        wire += "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n";
    }
    let (status, len, framing) = (answer.status, answer.len, answer.framing);
    wire += &format!(
        "HTTP/1.1 {status} Whatever\r\nX-Id: {id}\r\nX-Length: {len}\r\nContent-Type: text/plain\r\n"
    );
    let bodiless = matches!(status, 204 | 304);
    if !bodiless {
        wire += &announce(framing, len);
    }
    if matches!(answer.behaviour, Behaviour::Close | Behaviour::Early) || framing == Framing::Close
    {
        wire += "Connection: close\r\n";
    }
    wire += "\r\n";
    let mut wire = wire.into_bytes();
    let mut whole = wire.len();
    if method != "HEAD" && !bodiless {
        let mut body = frame(framing, &body_of(id, true, len), rng);
        whole += body.len();
        if matches!(
            answer.behaviour,
            Behaviour::CloseWithin | Behaviour::ResetWithin | Behaviour::Stall
        ) {
            body.truncate(rng.below(body.len()));
        }
        wire.extend_from_slice(&body);
    }
    if peer.send(&wire).await.is_err() {
        return false;
    }
    let cut = wire.len() < whole;
    match answer.behaviour {
        Behaviour::ResetWithin => peer.tx.abort(),
        // The endpoint reads the rest of the request, because closing with unread bytes would reset the connection and
        // lose the answer.
        Behaviour::Early => {
            peer.finish();
            while let Ok(Some(_)) = peer.recv().await {}
        }
        Behaviour::Stall if cut => while let Ok(Some(_)) = peer.recv().await {},
        Behaviour::Stall => return framing != Framing::Close,
        Behaviour::None | Behaviour::Interim => return framing != Framing::Close,
        _ => {}
    }
    false
}

async fn until_closed(mut peer: Peer<Sim>) {
    while let Ok(Some(_)) = peer.recv().await {}
}
