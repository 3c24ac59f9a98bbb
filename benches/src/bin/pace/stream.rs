//! The transport of a connection: plain TCP or TLS.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use weir_benches::net::{self, Transfer};
use weir_benches::tls::AnyCertificate;

/// The transport of one connection.
#[derive(Debug)]
pub(crate) struct Stream {
    fd: OwnedFd,
    tls: Option<Box<ClientConnection>>,
}

impl Stream {
    pub(crate) fn new(fd: OwnedFd, tls: Option<&TlsOptions>) -> Result<Self, Errno> {
        let tls = tls.map(|tls| ClientConnection::new(tls.config.clone(), tls.name.clone()));
        let tls = tls.transpose().map_err(|_| Errno::PROTO)?.map(Box::new);
        Ok(Self { fd, tls })
    }

    /// Sends what fits. Over TLS everything fits after the handshake, because rustls buffers it.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<Transfer, Errno> {
        let Some(tls) = &mut self.tls else {
            return net::send(&self.fd, bytes);
        };
        if tls.is_handshaking() || tls.wants_write() {
            flush(tls, &self.fd)?;
            if tls.is_handshaking() || tls.wants_write() {
                return Ok(Transfer::WouldBlock);
            }
        }
        let written = tls.writer().write(bytes).map_err(|_| Errno::PROTO)?;
        flush(tls, &self.fd)?;
        Ok(Transfer::Bytes(written))
    }

    /// Sends data that rustls has buffered.
    pub(crate) fn flush(&mut self) -> Result<(), Errno> {
        match &mut self.tls {
            Some(tls) => flush(tls, &self.fd),
            None => Ok(()),
        }
    }

    pub(crate) fn receive(&mut self, buffer: &mut [u8]) -> Result<Transfer, Errno> {
        let Some(tls) = &mut self.tls else {
            return net::receive(&self.fd, buffer);
        };
        loop {
            match tls.reader().read(buffer) {
                Ok(0) => return Ok(Transfer::Closed),
                Ok(n) => return Ok(Transfer::Bytes(n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(Errno::PROTO),
            }
            match tls.read_tls(&mut SocketStream(&self.fd)) {
                Ok(0) => return Ok(Transfer::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Transfer::WouldBlock);
                }
                Err(_) => return Err(Errno::CONNRESET),
            }
            tls.process_new_packets().map_err(|_| Errno::PROTO)?;
            flush(tls, &self.fd)?;
        }
    }

    pub(crate) fn discard(&mut self, scratch: &mut [u8]) -> Result<Transfer, Errno> {
        match self.tls {
            Some(_) => self.receive(scratch),
            None => net::discard(&self.fd, scratch),
        }
    }
}

fn flush(tls: &mut ClientConnection, fd: &OwnedFd) -> Result<(), Errno> {
    while tls.wants_write() {
        match tls.write_tls(&mut SocketStream(fd)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(_) => return Err(Errno::CONNRESET),
        }
    }
    Ok(())
}

/// The socket as rustls reads and writes it.
struct SocketStream<'a>(&'a OwnedFd);

impl Read for SocketStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        moved(net::receive(self.0.as_fd(), buffer))
    }
}

impl Write for SocketStream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        moved(net::send(self.0.as_fd(), bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn moved(moved: Result<Transfer, Errno>) -> io::Result<usize> {
    match moved? {
        Transfer::Bytes(n) => Ok(n),
        Transfer::Closed => Ok(0),
        Transfer::WouldBlock => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Options of TLS. Any certificate is accepted, because only speed is measured.
#[derive(Clone, Debug)]
pub(crate) struct TlsOptions {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsOptions {
    pub(crate) fn new(
        host: &str,
        resume: bool,
        is_12: bool,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let version = if is_12 {
            &rustls::version::TLS12
        } else {
            &rustls::version::TLS13
        };
        let builder =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version])?;
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate));
        let mut config = builder.with_no_client_auth();
        if !resume {
            config.resumption = Resumption::disabled();
        }
        Ok(Self {
            config: Arc::new(config),
            name: ServerName::try_from(host.to_owned())?,
        })
    }
}
