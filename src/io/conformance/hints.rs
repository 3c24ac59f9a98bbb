//! Programs about hints: they may change when something happens, but never what.

use super::*;

/// The last bytes may leave with the end.
pub(super) async fn bytes_held_for_the_end_arrive<N: Net>(mut network: TestNetwork<N>) {
    for is_finished in [false, true] {
        let (mut near, mut far) = network.pair().await;
        let most = network.rng.size(300_000);
        let bytes = network.rng.bytes(most);
        let want = bytes.clone();
        let send = async move {
            near.tx.hold_for_end();
            near.send(&bytes).await.unwrap();
            if is_finished {
                near.finish();
            }
            // Without that, dropping the connection ends it.
            is_finished.then_some(near)
        };
        let (_near, got) = join(send, far.read_to_end()).await;
        assert!(
            got == (want, End::Orderly),
            "{} bytes, {:?}",
            got.0.len(),
            got.1
        );
    }
}

/// A receiver that expects silence learns late of bytes and ends, but it learns of them.
pub(super) async fn unexpected_news_is_noticed<N: Net>(network: TestNetwork<N>) {
    let (mut near, mut far) = network.pair().await;
    let patience = Duration::from_secs(10);
    for _ in 0..3 {
        far.send(b"unexpected").await.unwrap();
        let news = within(&network.net, patience, receive_patiently(&mut near.rx));
        assert!(news.await.is_some_and(|news| news > Some(0)));
    }
    drop(far);
    while let Some(more) = within(&network.net, patience, receive_patiently(&mut near.rx)).await {
        if more.is_none() {
            return;
        }
    }
    panic!("the end was not noticed");
}

async fn receive_patiently(rx: &mut impl Rx) -> Option<usize> {
    let received = poll_fn(|cx| {
        rx.expect_silence();
        rx.poll_recv(cx)
    });
    received.await.unwrap().map(|chunk| chunk.len())
}
