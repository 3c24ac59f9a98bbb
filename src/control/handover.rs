//! What passes between a process and the one that replaces it, over a socket pair that is the new process's standard
//! input. First the old process sends a [`Handover`] and the descriptors of the sockets. Then each side
//! sends one word: the new process when it serves, the old one when it accepts no more.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

use super::endpoint_overrides::EndpointOverrides;
use crate::tls::ExportedTicketKeys;

/// The environment variable that marks standard input as a socket of the process that this one replaces. Its value is the
/// number of that process.
pub(super) const VARIABLE: &str = "WEIR_UPGRADE";

/// The version of [`Handover`]. A Weir refuses any other.
pub(super) const VERSION: u32 = 1;

/// Descriptors in one message. The kernel allows 253.
const FDS_AT_ONCE: usize = 128;

/// The largest [`Handover`], bytes.
const BYTES_MAX: u32 = 64 << 20;

/// The largest reason for a failure, bytes.
const REASON_BYTES_MAX: u64 = 64 << 10;

/// The word of the new process, sent when it serves.
const UP: &str = "up\n";

/// The word of the old process, sent when it accepts no more.
const GO: &str = "go\n";

/// What a process hands to the one that replaces it, besides descriptors.
#[derive(Deserialize, Serialize)]
pub(super) struct Handover {
    pub(super) version: u32,
    /// The driver of the cores. The sockets of one driver are in a mode that the other does not support.
    pub(super) driver: String,
    /// In the order of the descriptors.
    pub(super) sockets: Vec<HandedSocket>,
    /// Changes of endpoints that persist.
    pub(super) overrides: EndpointOverrides,
    /// What checks have found about endpoints.
    #[serde(default)]
    pub(super) verdicts: Vec<HandedVerdict>,
    pub(super) tickets: Vec<ExportedTicketKeys>,
}

/// What checks have found about an endpoint.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct HandedVerdict {
    pub(super) upstream: String,
    pub(super) endpoint: String,
    /// Whether it passes its checks.
    pub(super) is_up: bool,
}

/// A listening socket that is handed over.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct HandedSocket {
    /// The address in the configuration, whose port may be 0.
    pub(super) address: String,
    pub(super) purpose: SocketPurpose,
    /// A service manager has made it and may use it again.
    pub(super) is_inherited: bool,
}

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SocketPurpose {
    Listener,
    /// A listener for datagrams.
    Datagrams,
    Admin,
}

impl Handover {
    /// Sends it with the descriptors of its sockets. Blocks.
    ///
    /// # Errors
    /// The other process is gone or does not read.
    pub(super) fn send(&self, to: &UnixStream, fds: &[OwnedFd]) -> io::Result<()> {
        let text = serde_json::to_vec(self).map_err(io::Error::other)?;
        let length = u32::try_from(text.len()).map_err(io::Error::other)?;
        let mut writer = to;
        writer.write_all(&length.to_be_bytes())?;
        writer.write_all(&text)?;
        for fds in fds.chunks(FDS_AT_ONCE) {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
                return Err(io::Error::other("too many descriptors"));
            }
            let byte = [IoSlice::new(&[0])];
            sendmsg(to, &byte, &mut control, SendFlags::empty())?;
        }
        Ok(())
    }

    /// Receives one. Blocks.
    ///
    /// # Errors
    /// The other process is gone, sends nothing, or is another version of Weir that this one does not understand.
    pub(super) fn receive(from: &UnixStream) -> io::Result<(Self, Vec<OwnedFd>)> {
        let mut reader = from;
        let mut length = [0; 4];
        reader.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > BYTES_MAX {
            return Err(io::Error::other("the state is too large"));
        }
        let mut text = vec![0; length as usize];
        reader.read_exact(&mut text)?;
        let versioned: Versioned = serde_json::from_slice(&text).map_err(io::Error::other)?;
        if versioned.version != VERSION {
            let version = versioned.version;
            return Err(io::Error::other(format!(
                "the old process hands over version {version} of its state, this one takes {VERSION}; restart instead"
            )));
        }
        let handover: Self = serde_json::from_slice(&text).map_err(io::Error::other)?;
        let mut fds = Vec::new();
        while fds.len() < handover.sockets.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_AT_ONCE))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let mut slices = [IoSliceMut::new(&mut byte)];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let got = recvmsg(from, &mut slices, &mut control, flags)?;
            let before = fds.len();
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    fds.extend(received);
                }
            }
            if got.bytes == 0 || fds.len() == before {
                return Err(io::Error::other("sockets are missing"));
            }
        }
        Ok((handover, fds))
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Says that this process, the new one, serves. Returns when the old one accepts no more. Blocks.
///
/// # Errors
/// The old process has given up.
pub(super) fn say_up(mut socket: &UnixStream) -> io::Result<()> {
    socket.write_all(UP.as_bytes())?;
    let mut word = [0; GO.len()];
    socket.read_exact(&mut word)?;
    match word == *GO.as_bytes() {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Says that this process, the old one, accepts no more. Blocks.
///
/// # Errors
/// The new process is gone.
pub(super) fn say_go(mut socket: &UnixStream) -> io::Result<()> {
    socket.write_all(GO.as_bytes())
}

/// Waits until the new process serves. Blocks.
///
/// # Errors
/// Why it does not.
pub(super) fn wait_for_up(mut socket: &UnixStream) -> Result<(), String> {
    let mut word = [0; UP.len()];
    match socket.read_exact(&mut word) {
        Ok(()) if word == *UP.as_bytes() => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Err("it does not come up in time".to_owned());
        }
        Err(_) => return Err("it has ended without serving".to_owned()),
        Ok(()) => {}
    }
    let mut reason = word.to_vec();
    let _ = socket.take(REASON_BYTES_MAX).read_to_end(&mut reason);
    Err(String::from_utf8_lossy(&reason).trim_end().to_owned())
}

/// Says why this process, the new one, does not serve.
pub(super) fn say_failed(mut socket: &UnixStream, why: &str) {
    // If the old process is gone, the log still has the reason.
    let _ = socket.write_all(why.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handover_arrives_with_all_descriptors() {
        let (old, new) = UnixStream::pair().unwrap();
        let sockets = (0..300).map(|port| HandedSocket {
            address: format!("127.0.0.1:{port}"),
            purpose: SocketPurpose::Listener,
            is_inherited: port % 2 == 0,
        });
        let handover = Handover {
            version: VERSION,
            driver: "ring".to_owned(),
            sockets: sockets.collect(),
            overrides: EndpointOverrides::default(),
            verdicts: Vec::new(),
            tickets: Vec::new(),
        };
        let file = std::fs::File::open("/dev/null").unwrap();
        let fds: Vec<OwnedFd> = (0..300).map(|_| file.try_clone().unwrap().into()).collect();
        let sender = std::thread::spawn(move || {
            handover.send(&old, &fds).unwrap();
            wait_for_up(&old).unwrap();
            say_go(&old).unwrap();
        });
        let (got, fds) = Handover::receive(&new).unwrap();
        assert_eq!((got.sockets.len(), fds.len()), (300, 300));
        assert_eq!(got.sockets[299].address, "127.0.0.1:299");
        say_up(&new).unwrap();
        sender.join().unwrap();
    }

    #[test]
    fn a_failure_arrives_with_its_reason() {
        let (old, new) = UnixStream::pair().unwrap();
        say_failed(&new, "error: no such upstream\n");
        drop(new);
        assert_eq!(wait_for_up(&old), Err("error: no such upstream".to_owned()));
        let (old, new) = UnixStream::pair().unwrap();
        drop(new);
        assert!(wait_for_up(&old).unwrap_err().contains("has ended"));
        let (old, _new) = UnixStream::pair().unwrap();
        old.set_read_timeout(Some(std::time::Duration::from_millis(1)))
            .unwrap();
        assert!(wait_for_up(&old).unwrap_err().contains("in time"));
    }
}
