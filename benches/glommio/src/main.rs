//! The servers of `benches/src/bin/runtime` on glommio, with the same command line.

#![forbid(unsafe_code)]

use std::error::Error;
use std::net::SocketAddr;

use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use glommio::net::{TcpListener, TcpStream};
use glommio::{LocalExecutorBuilder, Placement};

/// As in the other servers.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n\
0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const BUFFER_BYTES: usize = 16 * 1024;
const RING_ENTRIES: usize = 4096;

#[derive(Clone, Copy, Debug)]
enum Service {
    Echo,
    Relay { to: SocketAddr },
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (listen, service) = match words[..] {
        ["glommio", "echo", "--listen", listen] => (listen, Service::Echo),
        ["glommio", "relay", "--listen", listen, "--to", to] => {
            (listen, Service::Relay { to: to.parse()? })
        }
        _ => {
            return Err(
                "usage: weir-bench-glommio glommio echo|relay --listen IP:PORT [--to IP:PORT]"
                    .into(),
            );
        }
    };
    serve(listen.parse()?, service)
}

fn serve(listen: SocketAddr, service: Service) -> Result<(), Box<dyn Error>> {
    LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth(RING_ENTRIES)
        .spawn(move || async move {
            accept(listen, service)
                .await
                .map_err(|error| error.to_string())
        })?
        .join()
        .map_err(|error| error.to_string())??;
    Ok(())
}

async fn accept(listen: SocketAddr, service: Service) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(listen)?;
    let mut incoming = listener.incoming();
    while let Some(stream) = incoming.next().await {
        let stream = stream?;
        stream.set_nodelay(true)?;
        match service {
            Service::Echo => glommio::spawn_local(echo(stream)).detach(),
            Service::Relay { to } => glommio::spawn_local(relay(stream, to)).detach(),
        };
    }
    Ok(())
}

async fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; BUFFER_BYTES];
    while let Ok(1..) = stream.read(&mut buffer).await {
        if stream.write_all(RESPONSE).await.is_err() {
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
