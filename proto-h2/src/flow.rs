//! Flow-control windows of both directions.

use crate::config::{MAX_31_BITS, WINDOW_QUICK_MS};

/// A smaller increment is sent only if it is half of a window.
const INCREMENT_BYTES_MIN: u32 = 16 * 1024;

/// What a peer may send, on a stream or on the whole connection.
///
/// Every byte of the window is in one of three states: the peer may send it; received and not
/// consumed; consumed and not yet returned to the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceiveWindow {
    /// What the peer may still send.
    window: u32,
    /// Consumed and not yet returned.
    consumed: u32,
    /// All bytes of the window.
    size: u32,
    size_max: u32,
    /// When counting of `consumed_recently` began.
    since_ms: u64,
    /// Consumed since then.
    consumed_recently: u32,
}

impl ReceiveWindow {
    pub(crate) fn new(size: u32, size_max: u32, now_ms: u64) -> Self {
        let size = size.min(MAX_31_BITS);
        Self {
            window: size,
            consumed: 0,
            size,
            size_max: size_max.clamp(size, MAX_31_BITS),
            since_ms: now_ms,
            consumed_recently: 0,
        }
    }

    /// Counts received bytes. Returns whether the window allows them.
    #[inline]
    pub(crate) fn receive(&mut self, bytes: u32) -> bool {
        let left = self.window.checked_sub(bytes);
        self.window = left.unwrap_or(self.window);
        left.is_some()
    }

    /// Bytes received and not consumed.
    #[inline]
    pub(crate) const fn unread(&self) -> u32 {
        self.size
            .saturating_sub(self.window)
            .saturating_sub(self.consumed)
    }

    /// All bytes of the window. The window grows.
    #[inline]
    pub(crate) const fn size(&self) -> u32 {
        self.size
    }

    /// Counts consumed bytes, but no more than were received. Returns the increment to send to the
    /// peer: usually 0, because half a window is returned at a time. The window grows by at most
    /// `growth_max`.
    #[inline]
    pub(crate) fn consume(&mut self, bytes: u32, now_ms: u64, growth_max: u32) -> u32 {
        self.take(bytes, now_ms, growth_max, self.size / 2)
    }

    /// Like [`ReceiveWindow::consume`], for a window that streams share. If slow streams leave most
    /// of it unread, an increment is returned as soon as it doubles what the peer may still send.
    #[inline]
    pub(crate) fn consume_shared(&mut self, bytes: u32, now_ms: u64) -> u32 {
        let increment_min = self.window.max(INCREMENT_BYTES_MIN).min(self.size / 2);
        self.take(bytes, now_ms, u32::MAX, increment_min)
    }

    fn take(&mut self, bytes: u32, now_ms: u64, growth_max: u32, increment_min: u32) -> u32 {
        let bytes = bytes.min(self.unread());
        self.consumed += bytes;
        self.consumed_recently = self.consumed_recently.saturating_add(bytes);
        if self.consumed < increment_min {
            return 0;
        }
        let mut increment = self.consumed;
        if self.consumed_recently >= self.size {
            if now_ms.saturating_sub(self.since_ms) <= WINDOW_QUICK_MS {
                let growth = self.size.min(self.size_max - self.size).min(growth_max);
                increment += growth;
                self.size += growth;
            }
            self.consumed_recently = 0;
            self.since_ms = now_ms;
        }
        self.window += increment;
        self.consumed = 0;
        increment
    }
}

/// What this side may send, on a stream or on the whole connection. SETTINGS can make it negative.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SendWindow(i32);

impl SendWindow {
    pub(crate) const fn new(window: u32) -> Self {
        Self(if window > MAX_31_BITS {
            i32::MAX
        } else {
            window as i32
        })
    }

    /// Bytes that may be sent now.
    #[inline]
    pub(crate) fn room(self) -> usize {
        self.0.max(0) as usize
    }

    /// Counts sent bytes, but no more than there is room for.
    #[inline]
    pub(crate) fn send(&mut self, bytes: usize) {
        self.0 -= bytes.min(self.room()) as i32;
    }

    /// Changes the window. Returns false, and changes nothing, if it would exceed its bounds.
    //= rfc9113#6.9.1
    // No window grows beyond 2^31 - 1.
    #[inline]
    pub(crate) fn change(&mut self, by: i64) -> bool {
        let window = i32::try_from(i64::from(self.0) + by);
        self.0 = window.unwrap_or(self.0);
        window.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_window_is_returned_at_a_time() {
        let mut receive_window = ReceiveWindow::new(100, 100, 0);
        assert!(
            receive_window.receive(60) && !receive_window.receive(41) && receive_window.receive(40)
        );
        assert_eq!(receive_window.consume(49, 0, u32::MAX), 0);
        assert_eq!(receive_window.consume(1, 0, u32::MAX), 50);
        assert_eq!(receive_window.unread(), 50);
        assert_eq!(
            receive_window.consume(1_000, 0, u32::MAX),
            50,
            "no more than was received"
        );
        assert!(receive_window.receive(100) && !receive_window.receive(1));
    }

    #[test]
    fn unread_streams_do_not_hold_back_others() {
        let mut receive_window = ReceiveWindow::new(1 << 20, 1 << 20, 0);
        assert!(receive_window.receive(900_000));
        assert_eq!(receive_window.consume_shared(100_000, 0), 0);
        assert_eq!(receive_window.consume_shared(50_000, 0), 150_000);
        assert_eq!(receive_window.unread(), 750_000);
        assert!(receive_window.receive(290_000));
        assert_eq!(
            receive_window.consume_shared(16_383, 0),
            0,
            "not increment_min a frame"
        );
        assert_eq!(receive_window.consume_shared(1, 0), 16_384);
    }

    #[test]
    fn a_quickly_consumed_window_doubles_up_to_its_limit() {
        let mut receive_window = ReceiveWindow::new(100, 300, 0);
        let mut pass = |now| {
            let bytes = receive_window.window;
            assert!(receive_window.receive(bytes));
            receive_window.consume(bytes, now, u32::MAX)
        };
        assert_eq!(pass(WINDOW_QUICK_MS + 1), 100, "too slow");
        assert_eq!(pass(2 * WINDOW_QUICK_MS), 200);
        assert_eq!(pass(3 * WINDOW_QUICK_MS), 300);
        assert_eq!(pass(4 * WINDOW_QUICK_MS), 300);
    }

    #[test]
    fn a_send_window_stays_within_bounds() {
        let mut send_window = SendWindow::new(10);
        send_window.send(4);
        assert!(send_window.change(-20));
        assert_eq!(send_window.room(), 0);
        assert!(send_window.change(15));
        assert_eq!(send_window.room(), 1);
        assert!(!send_window.change(i64::from(MAX_31_BITS)));
        assert_eq!(send_window.room(), 1, "an overflow changes nothing");
        assert!(send_window.change(i64::from(MAX_31_BITS) - 1));
    }
}
