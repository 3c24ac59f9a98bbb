//! Programs in which bytes pass from one connection to another through a pipe.

use super::*;

/// Mixes passes, receives and pushes at random and waits for each for a short time only. The bytes must arrive in the
/// order in which they were queued.
pub(super) async fn bytes_that_pass_keep_their_place<N: Net>(mut network: TestNetwork<N>) {
    let (mut near, from) = network.pair().await;
    let (to, mut far) = network.pair().await;
    let most = network.rng.size(network.much.min(2_000_000));
    let bytes = network.rng.bytes(most);
    let net = network.net.clone();
    let mut relay = MixedRelay {
        net: net.clone(),
        rng: network.rng.fork(),
        from: from.rx,
        to: to.tx,
        taken: 0,
        queued: Vec::new(),
        at_most: 1,
    };
    let receive = async {
        let mut got = Vec::new();
        let mut rng = network.rng.fork();
        while let Some(part) = far.recv().await.unwrap() {
            got.extend(part);
            if rng.chance(50) {
                let pause = Duration::from_micros(rng.below(500) as u64);
                net.sleep_until(net.now() + pause).await;
            }
        }
        got
    };
    let sent = join(send_all(&net, &mut near.tx, &bytes), relay.run(&bytes));
    let (_, got) = join(sent, receive).await;
    assert_eq!(relay.taken, bytes.len());
    assert!(got == relay.queued, "{} bytes", got.len());
}

struct MixedRelay<N: Net> {
    net: N,
    rng: Rng,
    from: N::Rx,
    to: N::Tx,
    /// Bytes taken from the first connection.
    taken: usize,
    /// All bytes queued on the second.
    queued: Vec<u8>,
    at_most: usize,
}

impl<N: Net> MixedRelay<N> {
    /// Relays until the end of the stream, which consists of `bytes`.
    async fn run(&mut self, bytes: &[u8]) {
        loop {
            let Self { net, from, to, .. } = self;
            let patience = Duration::from_micros(self.rng.between(1, 400) as u64);
            let mut took = 0;
            if self.rng.chance(100) {
                let len = self.rng.between(1, 5_000);
                let own = self.rng.bytes(len);
                to.push(net.pool().copy(&own));
                self.queued.extend(own);
            } else if self.rng.chance(700) {
                let at_most = self.at_most;
                let pass = poll_fn(|cx| {
                    let passed = net.poll_pass(cx, from, to, at_most);
                    let _ = to.poll_send(cx);
                    passed
                });
                took = within(net, patience, pass).await.unwrap_or(0);
                assert!(took <= at_most);
            } else {
                let receive = poll_fn(|cx| {
                    let _ = to.poll_send(cx);
                    from.poll_recv(cx)
                });
                match within(net, patience, receive).await.map(Result::unwrap) {
                    None => {}
                    Some(None) => break,
                    Some(Some(chunk)) => {
                        took = chunk.len();
                        to.push(chunk);
                    }
                }
            }
            if took > 0 {
                let end = self.taken + took;
                self.queued.extend_from_slice(&bytes[self.taken..end]);
                self.taken = end;
                self.at_most = self.rng.size(300_000);
            }
        }
        poll_fn(|cx| self.to.poll_send(cx)).await.unwrap();
        self.to.finish();
    }
}

/// Passing bytes must not hide how the stream ended.
pub(super) async fn passing_bytes_do_not_hide_a_reset<N: Net>(mut network: TestNetwork<N>) {
    for is_reset in [false, true] {
        let (mut near, mut from) = network.pair().await;
        let (mut to, mut far) = network.pair().await;
        let len = network.rng.between(1, 3_000);
        let bytes = network.rng.bytes(len);
        near.send(&bytes).await.unwrap();
        let net = network.net.clone();
        // At least one byte arrives before the end.
        let first = poll_fn(|cx| net.poll_pass(cx, &mut from.rx, &mut to.tx, 1 << 20));
        let mut passed = first.await;
        if is_reset {
            near.reset();
        } else {
            near.finish();
        }
        let end = loop {
            let pass = poll_fn(|cx| {
                let passed = net.poll_pass(cx, &mut from.rx, &mut to.tx, 1 << 20);
                let _ = to.tx.poll_send(cx);
                passed
            });
            match pass.await {
                0 => match poll_fn(|cx| from.rx.poll_recv(cx)).await {
                    Ok(None) => break End::Orderly,
                    Err(error) => break End::Failed(error.kind()),
                    Ok(Some(chunk)) => {
                        passed += chunk.len();
                        to.tx.push(chunk);
                    }
                },
                n => passed += n,
            }
        };
        match is_reset {
            true => assert_eq!(end, End::Failed(ErrorKind::ConnectionReset)),
            false => assert_eq!((end, passed), (End::Orderly, bytes.len())),
        }
        poll_fn(|cx| to.tx.poll_send(cx)).await.unwrap();
        to.finish();
        assert_eq!(
            far.read_to_end().await,
            (bytes[..passed].to_vec(), End::Orderly)
        );
    }
}

/// Gives a connection up while bytes are in a pipe. The peer must not take them for the whole stream, and no other
/// connection may get them.
pub(super) async fn bytes_in_a_pipe_end_with_their_connection<N: Net>(mut network: TestNetwork<N>) {
    // The bytes must fill the buffers of two connections.
    let bytes = network.rng.bytes(2 * network.much);
    let net = network.net.clone();
    let (mut near, mut from) = network.pair().await;
    let (mut to, mut far) = network.pair().await;
    let send = async {
        for part in bytes.chunks(60_000) {
            near.tx.push(net.pool().copy(part));
        }
        poll_fn(|cx| near.tx.poll_send(cx)).await
    };
    let stuck = async {
        loop {
            let pass = poll_fn(|cx| {
                let passed = net.poll_pass(cx, &mut from.rx, &mut to.tx, 1 << 20);
                let _ = to.tx.poll_send(cx);
                passed
            });
            match within(&net, Duration::from_millis(30), pass).await {
                None => return,
                Some(0) => {
                    let received = poll_fn(|cx| from.rx.poll_recv(cx)).await;
                    to.tx.push(received.unwrap().unwrap());
                }
                Some(_) => {}
            }
        }
    };
    // Then sending cannot make progress either, and the test gives it up.
    let either = async {
        let (mut send, mut stuck) = (std::pin::pin!(send), std::pin::pin!(stuck));
        poll_fn(|cx| {
            assert!(send.as_mut().poll(cx).is_pending(), "nothing reads");
            stuck.as_mut().poll(cx)
        })
        .await;
    };
    either.await;
    assert!(to.tx.queued() > 0);
    to.reset();
    let (got, end) = far.read_to_end().await;
    assert!(got.len() < bytes.len() && bytes.starts_with(&got));
    assert!(matches!(end, End::Failed(_)), "{end:?}");
    drop((near, from));

    let (mut near, mut from) = network.pair().await;
    let (mut to, mut far) = network.pair().await;
    near.send(b"fresh").await.unwrap();
    let mut passed = 0;
    while passed < 5 {
        let pass = poll_fn(|cx| net.poll_pass(cx, &mut from.rx, &mut to.tx, 5 - passed));
        match pass.await {
            0 => {
                let chunk = poll_fn(|cx| from.rx.poll_recv(cx)).await.unwrap().unwrap();
                passed += chunk.len();
                to.tx.push(chunk);
            }
            n => passed += n,
        }
        poll_fn(|cx| to.tx.poll_send(cx)).await.unwrap();
    }
    assert_eq!(far.read_exact(5).await.unwrap(), b"fresh");
}
