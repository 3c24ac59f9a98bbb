//! One side of an exchange as raw bytes, over HTTP/1.1 or HTTP/2.

use std::io;
use std::task::{Context, Poll};

use weir_proto_h1::Trailers;

use super::BufferedWire;
use super::http2::StreamHandle;
use crate::io::{Chunk, Net};
use crate::limits::QUEUED_BYTES_HIGH;

/// What carries one side of an exchange.
pub enum Carrier<'a, N: Net> {
    /// A connection of HTTP/1.1.
    Http1(&'a BufferedWire<N>),
    /// A stream of HTTP/2; `None` before the request has begun.
    Http2(Option<&'a StreamHandle<N>>),
    /// Memory, which takes every byte at once.
    Memory,
}

/// A [`Carrier`] to send and receive on.
pub enum CarrierMut<'a, N: Net> {
    /// A connection of HTTP/1.1.
    Http1(&'a mut BufferedWire<N>),
    /// A stream of HTTP/2; `None` before the request has begun.
    Http2(Option<&'a StreamHandle<N>>),
    /// Memory, which takes every byte at once.
    Memory,
}

/// One side of an exchange: it carries a message, or raw bytes after a switch of protocols.
///
/// A relay asks several of these at each step, where a call would take longer than the answer: hence `inline(always)`.
pub trait TunnelEnd<N: Net> {
    /// What carries this side.
    fn carrier(&self) -> Carrier<'_, N>;

    /// What carries this side, to send and receive on.
    fn carrier_mut(&mut self) -> CarrierMut<'_, N>;

    /// Bytes that have not left yet.
    #[inline(always)]
    fn queued(&self) -> usize {
        match self.carrier() {
            Carrier::Http1(wire) => wire.out.queued(),
            Carrier::Http2(stream) => stream.map_or(0, StreamHandle::queued_bytes),
            Carrier::Memory => 0,
        }
    }

    /// From this many queued bytes on, Weir must not read their source.
    #[inline(always)]
    fn queued_high(&self) -> usize {
        match self.carrier() {
            Carrier::Http1(_) | Carrier::Memory => QUEUED_BYTES_HIGH,
            Carrier::Http2(stream) => {
                stream.map_or(QUEUED_BYTES_HIGH, StreamHandle::queued_bytes_high)
            }
        }
    }

    /// Whether no more bytes should be queued now.
    #[inline(always)]
    fn is_full(&self) -> bool {
        self.queued() >= self.queued_high()
    }

    /// Bytes that have left, counted from some time before the exchange. A caller tells progress from a stall by them.
    #[inline]
    fn sent(&self) -> u64 {
        match self.carrier() {
            Carrier::Http1(wire) => wire.out.sent(),
            Carrier::Http2(stream) => stream.map_or(0, StreamHandle::framed_bytes),
            Carrier::Memory => 0,
        }
    }

    /// Sends the queued bytes. Ready once all of them have left.
    #[inline(always)]
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.carrier_mut() {
            CarrierMut::Http1(wire) => wire.out.poll_send(cx),
            CarrierMut::Http2(Some(stream)) => stream.poll_framed(cx),
            CarrierMut::Http2(None) | CarrierMut::Memory => Poll::Ready(Ok(())),
        }
    }

    /// Receives raw bytes. `None`: the peer has ended its direction.
    fn poll_raw(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        match self.carrier_mut() {
            CarrierMut::Http1(wire) => wire.poll_raw(cx),
            CarrierMut::Http2(Some(stream)) => stream.poll_raw(cx),
            CarrierMut::Http2(None) | CarrierMut::Memory => Poll::Ready(Ok(None)),
        }
    }

    /// Queues raw bytes.
    fn send_raw(&mut self, bytes: Chunk) {
        match self.carrier_mut() {
            CarrierMut::Http1(wire) => wire.out.raw(bytes),
            CarrierMut::Http2(Some(stream)) => stream.push(bytes),
            CarrierMut::Http2(None) | CarrierMut::Memory => {}
        }
    }

    /// Ends the sending direction in an orderly way, after raw bytes. Ready once the end has left.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.carrier_mut() {
            CarrierMut::Http1(wire) => wire.out.tx.poll_finish(cx),
            CarrierMut::Http2(Some(stream)) => {
                stream.end_message(&Trailers::default());
                // Dropping a stream before its end is framed would reset it.
                stream.poll_framed(cx).map(|_| ())
            }
            CarrierMut::Http2(None) | CarrierMut::Memory => Poll::Ready(()),
        }
    }
}
