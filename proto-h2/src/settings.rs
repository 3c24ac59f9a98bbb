//! SETTINGS of both sides (RFC 9113, section 6.5).

use alloc::vec::Vec;

use crate::config::{Config, FRAME_BYTES_MAX, MAX_31_BITS, STREAMS_BEFORE_SETTINGS, WINDOW_BYTES};
use crate::connection::Role;
use crate::error::Error;
use crate::frame::{FrameHeader, FrameType};

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;
const NO_RFC7540_PRIORITIES: u16 = 0x9;

/// The settings of the peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerSettings {
    pub(crate) table_bytes: u32,
    /// Concurrent streams that the peer accepts from this side.
    pub(crate) streams_max: u32,
    pub(crate) window: u32,
    pub(crate) frame_bytes_max: u32,
    pub(crate) extended_connect: bool,
    no_rfc7540_priorities: Option<bool>,
}

impl PeerSettings {
    /// The settings before the first SETTINGS frame.
    pub(crate) const fn new() -> Self {
        Self {
            table_bytes: crate::hpack::TABLE_BYTES,
            streams_max: STREAMS_BEFORE_SETTINGS,
            window: WINDOW_BYTES,
            frame_bytes_max: FRAME_BYTES_MAX,
            extended_connect: false,
            no_rfc7540_priorities: None,
        }
    }

    /// Applies a setting.
    //= rfc9113#6.5.2
    // A value out of range is a connection error. Unknown settings are ignored.
    pub(crate) fn take(&mut self, id: u16, value: u32, role: Role) -> Result<(), Error> {
        match id {
            HEADER_TABLE_SIZE => self.table_bytes = value,
            //= rfc9113#6.5.2
            // A server cannot enable push; a client may send 0 or 1.
            ENABLE_PUSH if value > u32::from(role == Role::Server) => {
                return Err(Error::BadSetting);
            }
            MAX_CONCURRENT_STREAMS => self.streams_max = value,
            INITIAL_WINDOW_SIZE if value > MAX_31_BITS => return Err(Error::BadInitialWindow),
            INITIAL_WINDOW_SIZE => self.window = value,
            MAX_FRAME_SIZE if !(16_384..1 << 24).contains(&value) => {
                return Err(Error::BadSetting);
            }
            // Larger frames would delay other streams.
            MAX_FRAME_SIZE => self.frame_bytes_max = value.min(FRAME_BYTES_MAX),
            //= rfc8441#3
            // The value is 0 or 1, and cannot return to 0.
            ENABLE_CONNECT_PROTOCOL => {
                if value > 1 || (self.extended_connect && value == 0) {
                    return Err(Error::BadSetting);
                }
                self.extended_connect = value == 1;
            }
            //= rfc9218#2.1
            // The value is 0 or 1, and cannot change after the first SETTINGS.
            NO_RFC7540_PRIORITIES => {
                let before = self.no_rfc7540_priorities.replace(value == 1);
                if value > 1 || before.is_some_and(|before| before != (value == 1)) {
                    return Err(Error::BadSetting);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Writes the only SETTINGS that this side sends.
pub(crate) fn write(out: &mut Vec<u8>, config: &Config, role: Role) {
    let window = config.stream_window_bytes;
    let settings: &[(u16, u32)] = match role {
        Role::Server => &[
            (MAX_CONCURRENT_STREAMS, config.streams_max),
            (INITIAL_WINDOW_SIZE, window),
            (MAX_HEADER_LIST_SIZE, config.list_bytes_max),
            (NO_RFC7540_PRIORITIES, 1),
            (ENABLE_CONNECT_PROTOCOL, 1),
        ],
        Role::Client => &[
            (ENABLE_PUSH, 0),
            (INITIAL_WINDOW_SIZE, window),
            (MAX_HEADER_LIST_SIZE, config.list_bytes_max),
            (NO_RFC7540_PRIORITIES, 1),
        ],
    };
    let skip = usize::from(role == Role::Server && !config.extended_connect);
    let settings = settings.get(..settings.len() - skip).unwrap_or_default();
    let head = FrameHeader {
        len: 6 * settings.len() as u32,
        kind: FrameType::Settings,
        flags: 0,
        stream: 0,
    };
    out.extend_from_slice(&head.bytes());
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}
