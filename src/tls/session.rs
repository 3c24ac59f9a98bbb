//! A TLS session, which both halves of a connection share.
//!
//! rustls decrypts received records in place. It returns the plaintext of each record as a vector, which is copied into
//! a block, and it writes each sealed record by copying into one of our blocks. These copies and allocations are the
//! price of its interface.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, ReadTraffic, UnbufferedStatus,
    WriteTraffic,
};
use rustls::{Error, HandshakeKind, ProtocolVersion, ServerConfig};

use super::failure::{TlsFailure, describe};
use super::incoming_records::IncomingRecords;
use super::requested_name::{Hello, RequestedName};
use crate::io::{Charge, Chunk, OutBlock, Pool, Tx};
use crate::limits::{
    BLOCK_BYTES, IDLE_TLS_BYTES, RECORD_BYTES_MAX, RECORD_OVERHEAD_BYTES_MAX, SEALED_BYTES_HIGH,
};

/// The connection of rustls, on either side.
pub(super) enum TlsSide {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// The state that both halves share.
pub(super) struct Session<T: Tx> {
    pub(super) side: TlsSide,
    pub(super) raw: T,
    pub(super) pool: Pool,
    _rest: Charge,
    /// Allocated while the connection is busy, so that connections at rest stay small.
    active: Option<Box<ActiveBuffers>>,
    flight: SealedBytes,
    /// The handshake is complete.
    pub(super) is_open: bool,
    /// The peer has sent a TLS close.
    pub(super) is_ended: bool,
    pub(super) failure: Option<TlsFailure>,
    /// The server name that the client has requested.
    pub(super) requested_name: RequestedName,
    /// The failure in rustls' words, for the log.
    pub(super) cause: Option<Box<str>>,
    /// The settings for a client that offers to resume a session, until rustls has seen its first bytes.
    pub(super) renewing: Option<Arc<ServerConfig>>,
    /// The server asks the client for a certificate, and verifies it.
    pub(super) asks_for_certificate: bool,
    /// The TLS close leaves with the queued data.
    ends_with_data: bool,
    /// Weir has written its TLS close.
    wrote_end: bool,
    /// Weir has sent its TLS close.
    sent_end: bool,
}

/// The buffers of a busy connection.
pub(super) struct ActiveBuffers {
    pool: Pool,
    pub(super) incoming: IncomingRecords,
    /// Decrypted bytes that the caller has not taken.
    pub(super) plain: VecDeque<Chunk>,
    /// Bytes to encrypt.
    pending: VecDeque<Chunk>,
    pending_bytes: usize,
    /// Encrypted bytes to send.
    open: Option<OutBlock>,
    /// rustls has produced a handshake message.
    has_sent: bool,
    /// The peer has sent a TLS close. rustls reports that only once, whichever call came first.
    is_ended: bool,
}

/// The result of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadOutcome {
    /// Plaintext has arrived.
    Data,
    /// The peer has sent a TLS close.
    End,
    /// The handshake needs more bytes.
    Blocked,
    /// The handshake is complete, and reading needs more bytes.
    Open,
    /// The requested record is written.
    Written,
    /// The next step may bring more.
    More,
}

/// What to write as soon as rustls allows it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WriteRequest {
    Nothing,
    Record,
    Close,
}

/// Tells how much plaintext corresponds to the encrypted bytes that the kernel has not taken.
#[derive(Default)]
struct SealedBytes {
    plain: usize,
    sealed: usize,
}

impl SealedBytes {
    fn left(&self, queued: usize) -> usize {
        match self.sealed {
            0 => 0,
            sealed => (self.plain as u64 * queued.min(sealed) as u64 / sealed as u64) as usize,
        }
    }

    fn add(&mut self, queued: usize, plain: usize, sealed: usize) {
        self.plain = self.left(queued) + plain;
        self.sealed = queued + sealed;
    }
}

impl<T: Tx> Session<T> {
    pub(super) fn new(side: TlsSide, raw: T, pool: Pool) -> Self {
        Self {
            side,
            raw,
            _rest: pool.charge(IDLE_TLS_BYTES),
            pool,
            active: None,
            flight: SealedBytes::default(),
            is_open: false,
            is_ended: false,
            failure: None,
            requested_name: RequestedName::Unknown,
            cause: None,
            renewing: None,
            asks_for_certificate: false,
            ends_with_data: false,
            wrote_end: false,
            sent_end: false,
        }
    }

    /// Adds received bytes.
    pub(super) fn add(&mut self, chunk: Chunk) {
        self.active().incoming.add(chunk);
    }

    /// Whether received bytes are unprocessed or incomplete.
    pub(super) fn has_incoming(&self) -> bool {
        self.active
            .as_ref()
            .is_some_and(|active| !active.incoming.is_empty())
    }

    /// How many bytes the incomplete record lacks.
    pub(super) fn missing(&self) -> usize {
        self.active
            .as_ref()
            .map_or(0, |active| active.incoming.missing())
    }

    /// Takes decrypted bytes.
    pub(super) fn take_plain(&mut self) -> Option<Chunk> {
        self.active.as_mut()?.plain.pop_front()
    }

    /// Whether decrypted bytes wait to be taken.
    pub(super) fn has_plain(&self) -> bool {
        self.active
            .as_ref()
            .is_some_and(|active| !active.plain.is_empty())
    }

    fn pending(&self) -> usize {
        self.active
            .as_ref()
            .map_or(0, |active| active.pending_bytes)
    }

    fn active(&mut self) -> &mut ActiveBuffers {
        self.active
            .get_or_insert_with(|| ActiveBuffers::new(&self.pool))
    }

    /// Processes received bytes until there is a result for the caller or more bytes are needed.
    pub(super) fn read(&mut self) -> Result<ReadOutcome, TlsFailure> {
        loop {
            let outcome = self.process_step(WriteRequest::Nothing)?;
            match outcome {
                ReadOutcome::Blocked | ReadOutcome::Open => {
                    let Self { active, pool, .. } = self;
                    if !active
                        .as_mut()
                        .is_some_and(|active| active.incoming.advance(pool))
                    {
                        return Ok(outcome);
                    }
                }
                outcome => return Ok(outcome),
            }
        }
    }

    fn process_step(&mut self, write: WriteRequest) -> Result<ReadOutcome, TlsFailure> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let Self {
            side,
            active,
            pool,
            requested_name,
            renewing,
            ..
        } = self;
        let active = active.get_or_insert_with(|| ActiveBuffers::new(pool));
        let outcome = match side {
            TlsSide::Server(side) => {
                // Once rustls has seen a part of the hello, it keeps its settings.
                let renewing = renewing.take();
                if *requested_name == RequestedName::Unknown
                    && let Some(hello) = Hello::read(active.incoming.bytes(pool))
                {
                    *requested_name = hello.requested_name();
                    if let Some(config) = renewing.filter(|_| hello.offers_session())
                        && let Ok(fresh) = UnbufferedServerConnection::new(config)
                    {
                        *side = fresh;
                    }
                }
                active.process_step(side, write)
            }
            TlsSide::Client(side) => active.process_step(side, write),
        };
        self.is_ended |= active.is_ended;
        // rustls reports a TLS close only after the handshake.
        self.is_open |= self.is_ended;
        match outcome {
            Ok(outcome) => {
                self.is_open |= matches!(
                    outcome,
                    ReadOutcome::Open | ReadOutcome::Data | ReadOutcome::Written
                );
                Ok(outcome)
            }
            Err(error) => {
                self.cause = Some(describe(&error).into());
                let failure = TlsFailure::of(&error, self.is_open);
                let is_told = matches!(error, Error::AlertReceived(_));
                if !is_told
                    && self.can_send_plain_alert()
                    && let Some(alert) = failure.alert()
                {
                    self.write_alert(alert);
                }
                Err(self.fail(failure))
            }
        }
    }

    /// Whether rustls has failed without an alert, and the peer would understand one because nothing is encrypted yet.
    /// rustls sends no alert about messages that are too long or interleaved, or about keys that the client cannot
    /// verify.
    fn can_send_plain_alert(&self) -> bool {
        let TlsSide::Server(side) = &self.side else {
            return false;
        };
        let is_first = self.active.as_ref().is_some_and(|active| !active.has_sent);
        let is_full_12 = side.protocol_version() == Some(ProtocolVersion::TLSv1_2)
            && side.handshake_kind() == Some(HandshakeKind::Full);
        !self.is_open && !side.has_output() && (is_first || is_full_12)
    }

    /// Writes a fatal alert in plaintext.
    //= rfc8446#6
    fn write_alert(&mut self, alert: u8) {
        let record = [21, 3, 3, 0, 2, 2, alert];
        let active = self.active();
        room(&mut active.open, &active.pool, record.len()).put(&record);
    }

    /// Fails the session and writes the alert of rustls, if it has one. Nothing can be read or written afterwards.
    pub(super) fn fail(&mut self, failure: TlsFailure) -> TlsFailure {
        let Self {
            side, active, pool, ..
        } = self;
        let active = active.get_or_insert_with(|| ActiveBuffers::new(pool));
        active.drop_pending();
        match side {
            TlsSide::Server(side) => active.take_alert(side),
            TlsSide::Client(side) => active.take_alert(side),
        }
        active.incoming = IncomingRecords::default();
        self.failure = Some(failure);
        failure
    }

    /// Fails a session whose handshake has just completed, and discards the bytes behind the handshake.
    pub(super) fn refuse(&mut self, failure: TlsFailure) {
        self.fail(failure);
        self.active().plain.clear();
        self.is_open = false;
    }

    /// Queues application data.
    pub(super) fn push(&mut self, chunk: Chunk) {
        if !chunk.is_empty() && self.failure.is_none() {
            let active = self.active();
            active.pending_bytes += chunk.len();
            active.pending.push_back(chunk);
        }
    }

    /// Application data that the kernel has not taken.
    pub(super) fn queued(&self) -> usize {
        self.pending() + self.flight.left(self.raw.queued())
    }

    /// Encrypts and sends the queued data. Ready once the kernel has taken all of it.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.pending() > 0 && self.raw.queued() < SEALED_BYTES_HIGH {
                let before = self.pending();
                match self.process_step(WriteRequest::Record) {
                    // Sending waits for the end of the handshake.
                    Ok(ReadOutcome::Blocked) => break,
                    Ok(_) => {}
                    Err(failure) => {
                        let _ = self.poll_flush(cx);
                        return Poll::Ready(Err(failure.into()));
                    }
                }
                if self.ends_with_data && self.pending() == 0 {
                    self.write_end();
                }
                self.hand_over(before - self.pending());
            }
            ready!(self.poll_flush_ahead_of_tickets(cx))?;
            match self.failure {
                Some(failure) => return Poll::Ready(Err(failure.into())),
                None if self.pending() == 0 => return Poll::Ready(Ok(())),
                None if !self.is_open => return Poll::Pending,
                None => {}
            }
        }
    }

    /// Sends the encrypted bytes.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.hand_over(0);
        self.poll_send_raw(cx)
    }

    fn poll_send_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.raw.queued() == 0 {
            // An error shows up when there is something to send.
            return Poll::Ready(Ok(()));
        }
        self.raw.poll_send(cx)
    }

    /// Sends the encrypted bytes, except tickets of TLS 1.3 that no data follows yet. They leave with the first data or
    /// with the end, which saves a send for each connection. AWS-LC's own TLS does the same.
    pub(super) fn poll_flush_ahead_of_tickets(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        // Data and closes never stay in the open block, so it has only what came with the end of the handshake.
        let holds_tickets = self.is_open && self.failure.is_none() && self.is_server_of_13();
        match holds_tickets {
            true => self.poll_send_raw(cx),
            false => self.poll_flush(cx),
        }
    }

    fn is_server_of_13(&self) -> bool {
        matches!(&self.side, TlsSide::Server(side) if side.protocol_version() == Some(ProtocolVersion::TLSv1_3))
    }

    /// Whether the next step of the handshake may cost a signature or a key exchange. A server of TLS 1.3 has done both
    /// once it has answered the hello, unless it asks for a certificate, which it verifies later.
    pub(super) fn is_step_costly(&self) -> bool {
        let TlsSide::Server(side) = &self.side else {
            return true;
        };
        let has_answered = matches!(
            side.handshake_kind(),
            Some(HandshakeKind::Full | HandshakeKind::Resumed)
        );
        self.asks_for_certificate || !has_answered || !self.is_server_of_13()
    }

    fn hand_over(&mut self, plain: usize) {
        let open = self.active.as_mut().and_then(|active| active.open.take());
        if let Some(open) = open.filter(|open| !open.is_empty()) {
            self.flight.add(self.raw.queued(), plain, open.len());
            self.raw.push(open.freeze());
        }
    }

    /// Sends a TLS close and ends the sending direction. Ready once that is sent, or cannot be.
    pub(super) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.sent_end {
            if self.failure.is_none() {
                if self.pending() > 0 && ready!(self.poll_send(cx)).is_err() {
                    return Poll::Ready(());
                }
                self.write_end();
            }
            let sent = ready!(self.poll_flush(cx));
            self.sent_end = true;
            if sent.is_ok() {
                self.raw.finish();
            }
        }
        self.raw.poll_send(cx).map(drop)
    }

    /// Lets the TLS close leave with the data that is queued last.
    pub(super) fn hold_for_end(&mut self) {
        self.ends_with_data = true;
        self.raw.hold_for_end();
    }

    fn write_end(&mut self) {
        if !self.wrote_end && self.is_open {
            self.wrote_end = true;
            // If rustls cannot write it, the session has failed and the end is not orderly.
            let _ = self.process_step(WriteRequest::Close);
        }
    }

    /// Frees what only a busy connection needs.
    pub(super) fn rest(&mut self) {
        if self.active.as_ref().is_some_and(|active| active.is_empty()) {
            self.active = None;
        }
        self.raw.rest();
    }

    /// Whether application data waits for encryption or its records wait to be handed over.
    pub(super) fn has_pending(&self) -> bool {
        self.active
            .as_ref()
            .is_some_and(|active| active.pending_bytes > 0 || active.open.is_some())
    }
}

/// A connection of rustls on either side.
trait UnbufferedConnection {
    type Data;

    /// Whether rustls has bytes to send.
    fn has_output(&self) -> bool;

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl UnbufferedConnection for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn has_output(&self) -> bool {
        self.wants_write()
    }

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
}

impl UnbufferedConnection for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn has_output(&self) -> bool {
        self.wants_write()
    }

    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
}

impl ActiveBuffers {
    fn new(pool: &Pool) -> Box<Self> {
        Box::new(Self {
            pool: pool.clone(),
            incoming: IncomingRecords::default(),
            plain: VecDeque::new(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            open: None,
            has_sent: false,
            is_ended: false,
        })
    }

    fn is_empty(&self) -> bool {
        self.incoming.is_empty()
            && self.plain.is_empty()
            && self.pending_bytes == 0
            && self.open.is_none()
    }

    fn process_step<M: UnbufferedConnection>(
        &mut self,
        machine: &mut M,
        write: WriteRequest,
    ) -> Result<ReadOutcome, Error> {
        loop {
            let Self {
                incoming,
                plain,
                pool,
                open,
                has_sent,
                is_ended,
                ..
            } = &mut *self;
            let UnbufferedStatus { discard, state, .. } = machine.process(incoming.bytes(pool));
            let outcome = match state {
                Err(error) => Err(error),
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    *has_sent = true;
                    encode(data, open, pool)
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => {
                    sent.done();
                    Ok(ReadOutcome::More)
                }
                Ok(ConnectionState::ReadTraffic(traffic)) => take(traffic, plain, pool),
                Ok(ConnectionState::PeerClosed) => {
                    *is_ended = true;
                    Ok(ReadOutcome::End)
                }
                // Weir has sent its TLS close too, so it can write nothing more.
                Ok(ConnectionState::Closed) if write != WriteRequest::Nothing => {
                    return Err(Error::General("written to after its end".to_owned()));
                }
                Ok(ConnectionState::Closed) => Ok(ReadOutcome::End),
                Ok(ConnectionState::WriteTraffic(traffic)) => match write {
                    WriteRequest::Nothing => Ok(ReadOutcome::Open),
                    WriteRequest::Record => self.seal(traffic),
                    WriteRequest::Close => close(traffic, open, pool),
                },
                // Weir never accepts early data.
                Ok(_) => Ok(ReadOutcome::Blocked),
            };
            self.incoming.consume(discard);
            match outcome? {
                ReadOutcome::More => {}
                // Received data does not keep Weir from writing.
                ReadOutcome::Data | ReadOutcome::End if write != WriteRequest::Nothing => {}
                outcome => return Ok(outcome),
            }
        }
    }

    /// Takes the alert of a failed connection, to send it. Reads nothing more.
    fn take_alert<M: UnbufferedConnection>(&mut self, machine: &mut M) {
        while machine.has_output() {
            match machine.process(&mut []).state {
                Ok(ConnectionState::EncodeTlsData(data)) => {
                    if encode(data, &mut self.open, &self.pool).is_err() {
                        return;
                    }
                }
                Ok(ConnectionState::TransmitTlsData(sent)) => sent.done(),
                _ => return,
            }
        }
    }

    /// Encrypts one record of the queued data.
    fn seal<D>(&mut self, mut traffic: WriteTraffic<'_, D>) -> Result<ReadOutcome, Error> {
        let first = self.pending.front().map_or(0, |chunk| chunk.len());
        let (plain, sealed);
        if first >= RECORD_BYTES_MAX || first == self.pending_bytes {
            plain = first.min(RECORD_BYTES_MAX);
            let record = self
                .pending
                .front()
                .map_or(&[][..], |chunk| &chunk[..plain]);
            sealed = encrypt(&mut traffic, record, &mut self.open, &self.pool);
        } else {
            // Several small pieces share a record, because a record costs more than the copy.
            plain = self.pending_bytes.min(RECORD_BYTES_MAX);
            let mut gathered = self.pool.out(plain);
            for chunk in &self.pending {
                let room = plain - gathered.len();
                gathered.put(chunk.get(..room).unwrap_or(chunk));
            }
            sealed = encrypt(&mut traffic, &gathered.freeze(), &mut self.open, &self.pool);
        }
        sealed.map_err(|error| Error::General(error.to_string()))?;
        self.pending_bytes -= plain;
        let mut left = plain;
        while let Some(chunk) = self.pending.front_mut().filter(|_| left > 0) {
            let n = left.min(chunk.len());
            chunk.advance(n);
            left -= n;
            if chunk.is_empty() {
                self.pending.pop_front();
            }
        }
        Ok(ReadOutcome::Written)
    }

    fn drop_pending(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
    }
}

/// The block for the next record: the open one if there is one.
fn room<'o>(open: &'o mut Option<OutBlock>, pool: &Pool, bytes: usize) -> &'o mut OutBlock {
    open.get_or_insert_with(|| pool.out(bytes.max(BLOCK_BYTES[0])))
}

fn encrypt<D>(
    traffic: &mut WriteTraffic<'_, D>,
    record: &[u8],
    open: &mut Option<OutBlock>,
    pool: &Pool,
) -> Result<(), EncryptError> {
    let mut bytes = record.len() + RECORD_OVERHEAD_BYTES_MAX;
    let out = room(open, pool, bytes);
    loop {
        match traffic.encrypt(record, out.room(bytes)) {
            Ok(written) => {
                out.wrote(written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(more)) if more.required_size > bytes => {
                bytes = more.required_size;
            }
            Err(error) => return Err(error),
        }
    }
}

fn close<D>(
    mut traffic: WriteTraffic<'_, D>,
    open: &mut Option<OutBlock>,
    pool: &Pool,
) -> Result<ReadOutcome, Error> {
    let out = room(open, pool, RECORD_OVERHEAD_BYTES_MAX);
    let written = traffic.queue_close_notify(out.room(2 * RECORD_OVERHEAD_BYTES_MAX));
    out.wrote(written.map_err(|error| Error::General(error.to_string()))?);
    Ok(ReadOutcome::Written)
}

/// Takes a handshake message to send.
fn encode<D>(
    mut data: EncodeTlsData<'_, D>,
    open: &mut Option<OutBlock>,
    pool: &Pool,
) -> Result<ReadOutcome, Error> {
    let mut bytes = BLOCK_BYTES[0] / 2;
    let out = room(open, pool, bytes);
    loop {
        match data.encode(out.room(bytes)) {
            Ok(written) => {
                out.wrote(written);
                return Ok(ReadOutcome::More);
            }
            Err(EncodeError::InsufficientSize(more)) if more.required_size > bytes => {
                bytes = more.required_size;
            }
            Err(error) => return Err(Error::General(error.to_string())),
        }
    }
}

/// Takes decrypted records.
fn take<D>(
    mut traffic: ReadTraffic<'_, '_, D>,
    plain: &mut VecDeque<Chunk>,
    pool: &Pool,
) -> Result<ReadOutcome, Error> {
    while let Some(record) = traffic.next_record() {
        let payload = record?.payload;
        if !payload.is_empty() {
            plain.push_back(pool.copy(payload));
        }
    }
    Ok(if plain.is_empty() {
        ReadOutcome::More
    } else {
        ReadOutcome::Data
    })
}
