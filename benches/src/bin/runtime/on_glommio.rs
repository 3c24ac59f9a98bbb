//! On glommio: the same tasks as on monoio.

use std::error::Error;
use std::net::SocketAddr;

use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};

use crate::{ANSWER, BUFFER_BYTES, RING_ENTRIES, Work};

pub(crate) fn serve(listen: SocketAddr, work: Work) -> Result<(), Box<dyn Error>> {
    LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth(RING_ENTRIES as usize)
        .spawn(move || async move {
            accept(listen, work)
                .await
                .map_err(|error| error.to_string())
        })?
        .join()
        .map_err(|error| error.to_string())??;
    Ok(())
}

async fn accept(listen: SocketAddr, work: Work) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(listen)?;
    let mut incoming = listener.incoming();
    while let Some(stream) = incoming.next().await {
        let stream = stream?;
        stream.set_nodelay(true)?;
        match work {
            Work::Echo => glommio::spawn_local(echo(stream)).detach(),
            Work::Relay { to } => glommio::spawn_local(relay(stream, to)).detach(),
        };
    }
    Ok(())
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(1..) = stream.read(&mut buffer).await {
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}

async fn relay(down: TcpStream, to: SocketAddr) {
    let Ok(up) = TcpStream::connect(to).await else {
        return;
    };
    if up.set_nodelay(true).is_err() {
        return;
    }
    let (down_read, down_write) = futures_lite::io::split(down);
    let (up_read, up_write) = futures_lite::io::split(up);
    glommio::spawn_local(pass(down_read, up_write)).detach();
    pass(up_read, down_write).await;
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(received @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..received]).await.is_err() {
            return;
        }
    }
    let _ = to.close().await;
}
