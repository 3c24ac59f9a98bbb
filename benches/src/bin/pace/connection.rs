//! A client connection: sends a request and finds the end of its response.

use rustix::io::Errno;
use weir_benches::http::{Chunks, Framing, Head};
use weir_benches::net::{EventFlags, Transfer};

use crate::stream::Stream;

/// A longer response head counts as an error.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What `drive` did for the request in flight.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// No request is in flight, or it has not finished.
    Pending,
    /// The response is complete. `reusable` tells whether the connection can carry another request.
    Done { ok: bool, reusable: bool },
    /// The connection is over, and a request in flight is lost.
    Broken,
}

/// The bytes of every request, and a buffer that all connections share.
#[derive(Debug)]
pub(crate) struct SharedBuffers {
    /// The heads, which requests take in turn. There is at least one.
    pub(crate) heads: Vec<Vec<u8>>,
    /// The head that the next request takes.
    pub(crate) next: usize,
    pub(crate) upload_bytes: u64,
    /// The block that uploads are sent from and responses are discarded into.
    pub(crate) block: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    sending: Option<Sending>,
    response: ResponseState,
    kept: Vec<u8>,
}

#[derive(Debug)]
enum Sending {
    Head { which: usize, sent: usize },
    Body { left: u64 },
}

#[derive(Debug)]
enum ResponseState {
    NotDue,
    Head,
    Body {
        ok: bool,
        close: bool,
        framing: Framing,
        chunks: Chunks,
    },
}

impl Connection {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            sending: None,
            response: ResponseState::NotDue,
            kept: Vec::new(),
        }
    }

    /// Starts a request. If the connection is not open yet, `drive` sends it later.
    pub(crate) fn start(&mut self, shared: &mut SharedBuffers, opened: bool) -> Result<(), Errno> {
        let which = shared.next;
        shared.next = (which + 1) % shared.heads.len();
        self.sending = Some(Sending::Head { which, sent: 0 });
        self.response = ResponseState::Head;
        if opened { self.send(shared) } else { Ok(()) }
    }

    /// Makes the progress that `flags` allows.
    pub(crate) fn drive(&mut self, flags: EventFlags, shared: &mut SharedBuffers) -> Progress {
        if flags.intersects(EventFlags::OUT) {
            let sent = match self.sending {
                Some(_) => self.send(shared),
                None => self.stream.flush(),
            };
            if sent.is_err() {
                return Progress::Broken;
            }
        }
        if flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR)
        {
            let progress = self.receive(shared);
            // This may have completed a handshake.
            if progress == Progress::Pending && self.sending.is_some() && self.send(shared).is_err()
            {
                return Progress::Broken;
            }
            return progress;
        }
        Progress::Pending
    }

    fn send(&mut self, shared: &SharedBuffers) -> Result<(), Errno> {
        while let Some(sending) = &mut self.sending {
            let (bytes, left) = match sending {
                Sending::Head { which, sent } => (
                    shared.heads[*which].get(*sent..).unwrap_or_default(),
                    shared.upload_bytes,
                ),
                Sending::Body { left } => (
                    &shared.block[..(*left).min(shared.block.len() as u64) as usize],
                    *left,
                ),
            };
            let Transfer::Bytes(moved) = self.stream.send(bytes)? else {
                return Ok(());
            };
            match sending {
                Sending::Head { sent, .. } if moved < bytes.len() => *sent += moved,
                Sending::Head { .. } if left == 0 => self.sending = None,
                Sending::Head { .. } => *sending = Sending::Body { left },
                Sending::Body { .. } if left == moved as u64 => self.sending = None,
                Sending::Body { left } => *left -= moved as u64,
            }
        }
        Ok(())
    }

    fn receive(&mut self, shared: &mut SharedBuffers) -> Progress {
        loop {
            let moved = match &self.response {
                ResponseState::Body {
                    framing: Framing::Length(left),
                    ..
                } => {
                    let room = (*left).min(shared.block.len() as u64) as usize;
                    self.stream.discard(&mut shared.block[..room])
                }
                ResponseState::Body {
                    framing: Framing::UntilClose,
                    ..
                } => self.stream.discard(&mut shared.block),
                _ => self.receive_kept(),
            };
            match moved {
                Err(_) => return Progress::Broken,
                Ok(Transfer::WouldBlock) => return Progress::Pending,
                Ok(Transfer::Closed) => return self.closed(),
                Ok(Transfer::Bytes(bytes)) => {
                    let progress = self.advance(bytes);
                    if progress != Progress::Pending {
                        return progress;
                    }
                }
            }
        }
    }

    /// Receives and stores bytes that must be parsed.
    fn receive_kept(&mut self) -> Result<Transfer, Errno> {
        let mut buffer = [0; 16 * 1024];
        let moved = self.stream.receive(&mut buffer)?;
        if let Transfer::Bytes(bytes) = moved {
            self.kept.extend_from_slice(&buffer[..bytes]);
        }
        Ok(moved)
    }

    /// Processes `bytes` more bytes. For a body of known length they were discarded already.
    fn advance(&mut self, bytes: usize) -> Progress {
        match &mut self.response {
            // Bytes that belong to no request.
            ResponseState::NotDue => Progress::Broken,
            ResponseState::Head => self.find_head(),
            ResponseState::Body {
                framing: Framing::Length(left),
                ok,
                close,
                ..
            } => {
                *left -= bytes as u64;
                let (left, ok, close) = (*left, *ok, *close);
                if left == 0 {
                    self.done(ok, close)
                } else {
                    Progress::Pending
                }
            }
            ResponseState::Body {
                framing: Framing::UntilClose,
                ..
            } => Progress::Pending,
            ResponseState::Body {
                framing: Framing::Chunked,
                ok,
                close,
                chunks,
            } => match chunks.receive(&self.kept) {
                Err(_) => Progress::Broken,
                Ok((taken, ended)) => {
                    let (ok, close) = (*ok, *close || taken < self.kept.len());
                    self.kept.clear();
                    if ended {
                        self.done(ok, close)
                    } else {
                        Progress::Pending
                    }
                }
            },
        }
    }

    fn find_head(&mut self) -> Progress {
        loop {
            let Some(head) = Head::find(&self.kept) else {
                return if self.kept.len() > HEAD_BYTES_MAX {
                    Progress::Broken
                } else {
                    Progress::Pending
                };
            };
            let (bytes, status) = (head.bytes, head.status());
            if status.is_some_and(|status| status < 200) {
                self.kept.drain(..bytes);
                continue;
            }
            let ok = status.is_some_and(|status| (200..400).contains(&status));
            let (close, mut framing) = (head.close, head.response_framing());
            let here = self.kept.len() - bytes;
            match &mut framing {
                Framing::Length(left) if *left < here as u64 => return Progress::Broken,
                Framing::Length(left) => *left -= here as u64,
                Framing::Chunked => {
                    self.kept.drain(..bytes);
                    self.response = ResponseState::Body {
                        ok,
                        close,
                        framing,
                        chunks: Chunks::default(),
                    };
                    return self.advance(here);
                }
                Framing::UntilClose => {}
            }
            self.kept.clear();
            if framing == Framing::Length(0) {
                return self.done(ok, close);
            }
            self.response = ResponseState::Body {
                ok,
                close,
                framing,
                chunks: Chunks::default(),
            };
            return Progress::Pending;
        }
    }

    fn done(&mut self, ok: bool, close: bool) -> Progress {
        self.response = ResponseState::NotDue;
        // A response before the end of the upload leaves the connection out of step.
        Progress::Done {
            ok,
            reusable: !close && self.sending.is_none(),
        }
    }

    fn closed(&mut self) -> Progress {
        match self.response {
            ResponseState::Body {
                framing: Framing::UntilClose,
                ok,
                ..
            } => self.done(ok, true),
            _ => Progress::Broken,
        }
    }
}
