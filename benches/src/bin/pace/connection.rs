//! One client connection: sends a request, finds the end of its answer.

use rustix::io::Errno;
use weir_benches::http::{Chunks, Framing, Head};
use weir_benches::net::{EventFlags, Moved};

use crate::stream::Stream;

/// A longer response head counts as an error.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What became of the request in flight when the connection was driven.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing in flight, or not finished.
    Pending,
    /// The whole answer is there; `reusable` says whether the connection can carry another.
    Done { ok: bool, reusable: bool },
    /// The connection is over; a request in flight is lost.
    Broken,
}

/// The bytes that every request of a run consists of, and room to read into.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) head: Vec<u8>,
    pub(crate) upload_bytes: u64,
    /// Where uploads are sent from and answers thrown into.
    pub(crate) block: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: Stream,
    sending: Option<Sending>,
    answer: Answer,
    kept: Vec<u8>,
}

#[derive(Debug)]
enum Sending {
    Head { sent: usize },
    Body { left: u64 },
}

#[derive(Debug)]
enum Answer {
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
            answer: Answer::NotDue,
            kept: Vec::new(),
        }
    }

    /// Starts a request. While the connection is still being opened, `drive` sends it.
    pub(crate) fn start(&mut self, shared: &Shared, opened: bool) -> Result<(), Errno> {
        self.sending = Some(Sending::Head { sent: 0 });
        self.answer = Answer::Head;
        if opened { self.send(shared) } else { Ok(()) }
    }

    /// Does what `flags` allows.
    pub(crate) fn drive(&mut self, flags: EventFlags, shared: &mut Shared) -> Progress {
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
            // A handshake may be over now.
            if progress == Progress::Pending && self.sending.is_some() && self.send(shared).is_err()
            {
                return Progress::Broken;
            }
            return progress;
        }
        Progress::Pending
    }

    fn send(&mut self, shared: &Shared) -> Result<(), Errno> {
        while let Some(sending) = &mut self.sending {
            let (bytes, left) = match sending {
                Sending::Head { sent } => (
                    shared.head.get(*sent..).unwrap_or_default(),
                    shared.upload_bytes,
                ),
                Sending::Body { left } => (
                    &shared.block[..(*left).min(shared.block.len() as u64) as usize],
                    *left,
                ),
            };
            let Moved::Bytes(moved) = self.stream.send(bytes)? else {
                return Ok(());
            };
            match sending {
                Sending::Head { sent } if moved < bytes.len() => *sent += moved,
                Sending::Head { .. } if left == 0 => self.sending = None,
                Sending::Head { .. } => *sending = Sending::Body { left },
                Sending::Body { .. } if left == moved as u64 => self.sending = None,
                Sending::Body { left } => *left -= moved as u64,
            }
        }
        Ok(())
    }

    fn receive(&mut self, shared: &mut Shared) -> Progress {
        loop {
            let moved = match &self.answer {
                Answer::Body {
                    framing: Framing::Length(left),
                    ..
                } => {
                    let room = (*left).min(shared.block.len() as u64) as usize;
                    self.stream.discard(&mut shared.block[..room])
                }
                Answer::Body {
                    framing: Framing::UntilClose,
                    ..
                } => self.stream.discard(&mut shared.block),
                _ => self.receive_kept(),
            };
            match moved {
                Err(_) => return Progress::Broken,
                Ok(Moved::Later) => return Progress::Pending,
                Ok(Moved::Closed) => return self.closed(),
                Ok(Moved::Bytes(bytes)) => {
                    let progress = self.advance(bytes);
                    if progress != Progress::Pending {
                        return progress;
                    }
                }
            }
        }
    }

    /// Receives bytes that have to be looked at, and keeps them.
    fn receive_kept(&mut self) -> Result<Moved, Errno> {
        let mut buffer = [0; 16 * 1024];
        let moved = self.stream.receive(&mut buffer)?;
        if let Moved::Bytes(bytes) = moved {
            self.kept.extend_from_slice(&buffer[..bytes]);
        }
        Ok(moved)
    }

    /// Goes on after `bytes` more have come (for a body of known length they are gone already).
    fn advance(&mut self, bytes: usize) -> Progress {
        match &mut self.answer {
            // Bytes that nobody asked for.
            Answer::NotDue => Progress::Broken,
            Answer::Head => self.find_head(),
            Answer::Body {
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
            Answer::Body {
                framing: Framing::UntilClose,
                ..
            } => Progress::Pending,
            Answer::Body {
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
                    self.answer = Answer::Body {
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
            self.answer = Answer::Body {
                ok,
                close,
                framing,
                chunks: Chunks::default(),
            };
            return Progress::Pending;
        }
    }

    fn done(&mut self, ok: bool, close: bool) -> Progress {
        self.answer = Answer::NotDue;
        // An answer that came before the upload was read leaves the connection out of step.
        Progress::Done {
            ok,
            reusable: !close && self.sending.is_none(),
        }
    }

    fn closed(&mut self) -> Progress {
        match self.answer {
            Answer::Body {
                framing: Framing::UntilClose,
                ok,
                ..
            } => self.done(ok, true),
            _ => Progress::Broken,
        }
    }
}
