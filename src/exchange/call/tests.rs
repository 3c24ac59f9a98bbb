use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::core::{ConnectionCounts, CoreListener};
use crate::io::sim::{self, Peer, Reach, Sim, World, at};
use crate::limits::DETACHED_CALLS_MAX;
use crate::obs::CoreObs;
use crate::plan::{EndpointSets, ListenerId, Plan, UpstreamId};
use crate::policy::{AnswerBody, CallRequest};
use crate::upstream::{CoreUpstreams, UpstreamRegistry};

const ENDPOINT: &str = "10.2.0.1:8080";

/// A core without listeners.
struct Rig {
    core: Rc<Core<Sim>>,
    plan: Rc<CorePlan<Sim>>,
    upstreams: Rc<CoreUpstreams<Sim>>,
    context: ConnectionContext,
    payer: Timer,
}

impl Rig {
    fn new(net: Sim, keys: &str) -> Self {
        let file = format!(
            "[listen.\"10.1.0.1:80\"]\n[upstream.app]\nservers = [\"{ENDPOINT}\"]\n{keys}\n\
             [[route]]\nmatch = \"/*\"\nto = \"app\"\n"
        );
        let (config, _) = weir_config::parse("call.toml", &file).unwrap();
        let plan = Plan::compile(&config).unwrap();
        let endpoints = EndpointSets::compile(&config, &|_, _| Ok(Vec::new())).unwrap();
        let counts = Arc::new(ConnectionCounts::new(1));
        let obs = CoreObs::detached(&plan, &endpoints);
        let listener = CoreListener::new(ListenerId(0), &plan.listeners[0], &counts);
        let core = Core::new(net, (0, counts), obs, 1, || {});
        let registry = Arc::new(UpstreamRegistry::new(1));
        let post = Box::new(|_, notice| Err(notice));
        let upstreams = CoreUpstreams::new(0, registry, core.obs.clone(), post);
        let plan = CorePlan::new(Arc::new(plan), Arc::new(endpoints), None, 1, &upstreams);
        Self {
            payer: core.timers.timer(),
            plan: Rc::new(plan),
            upstreams,
            context: ConnectionContext {
                listener,
                address: Some(([192, 0, 2, 1], 5_000).into()),
                tls: None,
                identity: None,
                sni: None,
            },
            core,
        }
    }

    /// The future of one call on behalf of the payer.
    fn call(&self, call: Call) -> impl Future<Output = Result<CallAnswer, Reason>> {
        let permit = self.core.calls.begin_awaited().unwrap();
        let caller = Caller {
            context: &self.context,
            timer: Some(&self.payer),
            id: None,
            copy: None,
        };
        run(&self.core, &self.plan, caller, Box::new(call), permit)
    }

    fn detach(&self, call: Call) -> bool {
        let copy = CopiedBody {
            kind: BodyKind::None,
            pieces: Vec::new(),
            accepts_trailers: false,
            held: self.core.calls.begin_mirror(),
        };
        let (core, plan) = (&self.core, self.plan.clone());
        detach(core, plan, &self.context, Box::new(call), copy)
    }
}

/// Runs `test` as the main task of a core, in several worlds.
fn on_core<F>(
    keys: &'static str,
    set: impl Fn(&World),
    test: impl Fn(Rc<Rig>) -> F + Copy + 'static,
) where
    F: Future<Output = ()> + 'static,
{
    sim::check(20, |world| {
        set(world);
        let net = world.core(0);
        let is_done = Rc::new(RefCell::new(false));
        let done = is_done.clone();
        world.start(0, async move {
            let caller = Rc::new(Rig::new(net.clone(), keys));
            let core = caller.core.clone();
            net.spawn(caller.upstreams.clone().watch_idle());
            net.spawn(async move {
                loop {
                    let tick = core.net.now() + Duration::from_millis(10);
                    core.net.sleep_until(tick).await;
                    core.timers.fire(core.net.now());
                }
            });
            // Each poll has a share of the core's work.
            let core = caller.core.clone();
            guarded(&core, Box::pin(test(caller))).await.unwrap();
            *done.borrow_mut() = true;
        });
        world.run_until(|| *is_done.borrow());
    });
}

fn get(target: &str) -> Call {
    let mut request = CallRequest::default();
    request.begin(b"GET", b"auth.test", target.as_bytes());
    request.field(b"Cookie", b"session=1");
    Call {
        upstream: UpstreamId(0),
        request,
        timeout: Duration::from_secs(5),
        body: AnswerBody::Collected,
        body_bytes_max: 100,
    }
}

/// An endpoint that answers each request with what `answer` makes of the request's head.
fn answers(world: &World, answer: fn(&str) -> String) {
    world.endpoint(&at(ENDPOINT), move |mut peer: Peer<Sim>| async move {
        while let Ok(head) = peer.read_until(b"\r\n\r\n").await {
            let head = String::from_utf8(head).unwrap();
            if peer.send(answer(&head).as_bytes()).await.is_err() {
                return;
            }
        }
    });
}

#[test]
fn a_call_gets_the_answer_to_exactly_its_request() {
    let echo = |world: &World| {
        answers(world, |head| {
            let lines = head.lines().filter(|line| !line.starts_with("Via"));
            let body = lines.collect::<Vec<_>>().join("|");
            assert_eq!(head.matches("Via: 1.1 weir-").count(), 1, "{head}");
            format!(
                "HTTP/1.1 401 Unauthorized\r\nX-One: 1\r\nConnection: keep-alive\r\n\
                 Content-Length: {}\r\nX-Two: 2\r\n\r\n{body}",
                body.len()
            )
        });
    };
    on_core("", echo, |caller: Rc<Rig>| async move {
        for _ in 0..3 {
            let answer = caller.call(get("/verify?a=b")).await.unwrap();
            assert_eq!(answer.status, 401);
            let want = "GET /verify?a=b HTTP/1.1|Host: auth.test|Cookie: session=1|";
            assert_eq!(answer.body, want.as_bytes());
            let names = answer.fields.iter().map(|(name, _)| &**name);
            assert_eq!(names.collect::<Vec<_>>(), [b"X-One", b"X-Two"]);
            assert_eq!(answer.values(b"x-two").next(), Some(&b"2"[..]));
        }
        assert_eq!(caller.core.timers.live(), 1, "the payer's");
    });
}

#[test]
fn calls_fail_for_the_reasons_of_ordinary_requests() {
    let too_large = |world: &World| {
        answers(world, |_| {
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc8\r\n{}\r\n0\r\n\r\n",
                "x".repeat(200)
            )
        });
    };
    on_core("", too_large, |caller: Rc<Rig>| async move {
        let answer = caller.call(get("/")).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.cut_by, Some(Reason::CallTooLarge));
        let mut dropped = get("/");
        dropped.body = AnswerBody::OfRefusals;
        let answer = caller.call(dropped).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 0));
        assert_eq!(answer.cut_by, None);
    });
    let refused = |world: &World| world.set_reach(&at(ENDPOINT), Reach::Refused);
    on_core("", refused, |caller: Rc<Rig>| async move {
        assert_eq!(caller.call(get("/")).await, Err(Reason::ConnectFailed));
    });
    let silent = |world: &World| {
        world.endpoint(&at(ENDPOINT), |mut peer| async move {
            peer.read_to_end().await;
        });
    };
    on_core("", silent, |caller: Rc<Rig>| async move {
        let began = caller.core.net.now();
        assert_eq!(caller.call(get("/")).await, Err(Reason::TotalTimeout));
        let took = caller.core.net.now().since(began);
        assert_eq!(took.as_secs(), 5);
    });
}

#[test]
fn a_dropped_call_leaves_nothing_behind() {
    let silent = |world: &World| {
        world.endpoint(&at(ENDPOINT), |mut peer| async move {
            peer.read_to_end().await;
        });
    };
    on_core("", silent, |caller: Rc<Rig>| async move {
        let mut calling = Box::pin(caller.call(get("/")));
        let until = caller.core.net.now() + Duration::from_secs(1);
        let mut sleep = std::pin::pin!(caller.core.net.sleep_until(until));
        std::future::poll_fn(|cx| {
            assert!(calling.as_mut().poll(cx).is_pending());
            sleep.as_mut().poll(cx)
        })
        .await;
        assert!(caller.core.net.pool().live_bytes() > 0);
        drop(calling);
        let until = caller.core.net.now() + Duration::from_secs(1);
        caller.core.net.sleep_until(until).await;
        assert_eq!(caller.core.net.pool().live_bytes(), 0);
        assert_eq!(caller.core.timers.live(), 1, "the payer's");
    });
}

#[test]
fn detached_calls_run_on_their_own_and_are_bounded() {
    let ok = |world: &World| {
        answers(world, |_| "HTTP/1.1 204 No Content\r\n\r\n".to_owned());
    };
    on_core(
        "pool = { connections = 10 }",
        ok,
        |caller: Rc<Rig>| async move {
            let sent = (0..DETACHED_CALLS_MAX + 5).filter(|_| caller.detach(get("/")));
            assert_eq!(sent.count(), DETACHED_CALLS_MAX);
            let until = caller.core.net.now() + Duration::from_secs(60);
            caller.core.net.sleep_until(until).await;
            assert_eq!(caller.core.timers.live(), 1, "all have ended");
            assert!(caller.detach(get("/")), "there is room again");
            caller.core.stop();
            let until = caller.core.net.now() + Duration::from_secs(1);
            caller.core.net.sleep_until(until).await;
            assert_eq!(caller.core.timers.live(), 1, "it has ended with the core");
            assert!(!caller.detach(get("/")), "the core stops");
        },
    );
}
