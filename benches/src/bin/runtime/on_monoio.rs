//! monoio: one task for each connection and direction, and every operation through the ring.

use std::error::Error;
use std::net::SocketAddr;

use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, Splitable};
use monoio::net::{TcpListener, TcpStream};

use crate::{BUFFER_BYTES, RESPONSE, RING_ENTRIES, Service};

#[derive(Clone, Copy, Debug)]
pub(crate) enum RingFlags {
    None,
    Coop,
    Defer,
}

pub(crate) fn serve(
    listen: SocketAddr,
    service: Service,
    flags: RingFlags,
) -> Result<(), Box<dyn Error>> {
    let mut ring = io_uring::IoUring::builder();
    match flags {
        RingFlags::None => {}
        RingFlags::Coop => {
            ring.setup_single_issuer()
                .setup_coop_taskrun()
                .setup_taskrun_flag();
        }
        RingFlags::Defer => {
            ring.setup_single_issuer().setup_defer_taskrun();
        }
    }
    let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
        .uring_builder(ring)
        .with_entries(RING_ENTRIES)
        .build()?;
    runtime.block_on(accept(listen, service))
}

async fn accept(listen: SocketAddr, service: Service) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(listen)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        match service {
            Service::Echo => drop(monoio::spawn(echo(stream))),
            Service::Relay { to } => drop(monoio::spawn(relay(stream, to))),
        }
    }
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let (received, back) = stream.read(buffer).await;
        if !matches!(received, Ok(1..)) || stream.write_all(RESPONSE).await.0.is_err() {
            return;
        }
        buffer = back;
    }
}

async fn relay(down: TcpStream, to: SocketAddr) {
    let Ok(up) = TcpStream::connect_addr(to).await else {
        return;
    };
    if up.set_nodelay(true).is_err() {
        return;
    }
    let (down_read, down_write) = down.into_split();
    let (up_read, up_write) = up.into_split();
    drop(monoio::spawn(pass(down_read, up_write)));
    pass(up_read, down_write).await;
}

async fn pass(mut from: impl AsyncReadRent, mut to: impl AsyncWriteRent) {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let (received, filled) = from.read(buffer).await;
        if !matches!(received, Ok(1..)) {
            let _ = to.shutdown().await;
            return;
        }
        let (sent, back) = to.write_all(filled).await;
        if sent.is_err() {
            return;
        }
        buffer = back;
    }
}
