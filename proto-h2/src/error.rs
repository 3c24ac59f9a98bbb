//! What went wrong with a peer's input or with a step of the caller.

use core::fmt;

use crate::code::ErrorCode;

macro_rules! errors {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $code:ident;)*) => {
        /// Why a connection, a stream or a step cannot go on.
        ///
        /// As the `Err` of [`Connection::receive`](crate::Connection::receive) it ends the
        /// connection, and in [`Event::Failed`](crate::Event::Failed) a stream. In
        /// [`Event::Refused`](crate::Event::Refused) it ends nothing, and the caller responds to
        /// the request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Error {
            $($(#[$doc])* $variant,)*
        }

        impl Error {
            /// Every error, at the index that [`Error::index`] returns.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The position in [`Error::ALL`], for counters.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }

            /// A stable name for logs, metrics and test cases.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The error code for the peer.
            #[must_use]
            pub const fn code(self) -> ErrorCode {
                match self {
                    $(Self::$variant => ErrorCode::$code,)*
                }
            }
        }
    };
}

errors! {
    /// The connection does not start with the HTTP/2 preface.
    BadPreface = "bad_preface", PROTOCOL_ERROR;
    /// The first frame is not SETTINGS.
    MissingSettings = "missing_settings", PROTOCOL_ERROR;
    /// A frame larger than [`FRAME_BYTES_MAX`](crate::config::FRAME_BYTES_MAX).
    FrameTooLarge = "frame_too_large", FRAME_SIZE_ERROR;
    /// The length of a frame is wrong for its type.
    BadFrameLength = "bad_frame_length", FRAME_SIZE_ERROR;
    /// Padding as long as the payload or longer.
    BadPadding = "bad_padding", PROTOCOL_ERROR;
    /// A connection frame on a stream, a stream frame on stream 0, or a stream number that the peer
    /// cannot open.
    BadStreamId = "bad_stream_id", PROTOCOL_ERROR;
    /// A frame other than HEADERS or PRIORITY for a stream that was never opened.
    IdleStream = "idle_stream", PROTOCOL_ERROR;
    /// A priority of RFC 7540 that makes a stream depend on itself.
    SelfDependency = "self_dependency", PROTOCOL_ERROR;
    /// HEADERS or DATA for a stream that has ended, or that their sender has ended.
    ClosedStream = "closed_stream", STREAM_CLOSED;
    /// Another frame within a field block, or a CONTINUATION outside of one.
    BrokenBlock = "broken_block", PROTOCOL_ERROR;
    /// PUSH_PROMISE, which is never allowed, or a frame that only the other role sends.
    UnexpectedFrame = "unexpected_frame", PROTOCOL_ERROR;
    /// A setting with an invalid value.
    BadSetting = "bad_setting", PROTOCOL_ERROR;
    /// An initial window over 2^31 - 1.
    BadInitialWindow = "bad_initial_window", FLOW_CONTROL_ERROR;
    /// An acknowledgement of SETTINGS that were not sent.
    UnexpectedAck = "unexpected_ack", PROTOCOL_ERROR;
    /// A field block that RFC 7541 does not allow. No later block can be decoded.
    Compression = "compression", COMPRESSION_ERROR;
    /// More data than the window allows.
    WindowExceeded = "window_exceeded", FLOW_CONTROL_ERROR;
    /// A WINDOW_UPDATE or SETTINGS that takes a window beyond 2^31 - 1.
    WindowOverflow = "window_overflow", FLOW_CONTROL_ERROR;
    /// A WINDOW_UPDATE with an increment of 0.
    ZeroIncrement = "zero_increment", PROTOCOL_ERROR;

    /// Beyond [`FloodLimits::resets_max`](crate::FloodLimits::resets_max).
    TooManyResets = "too_many_resets", ENHANCE_YOUR_CALM;
    /// Beyond [`FloodLimits::settings_max`](crate::FloodLimits::settings_max).
    TooManySettings = "too_many_settings", ENHANCE_YOUR_CALM;
    /// Beyond [`FloodLimits::pings_max`](crate::FloodLimits::pings_max).
    TooManyPings = "too_many_pings", ENHANCE_YOUR_CALM;
    /// Beyond [`FloodLimits::priorities_max`](crate::FloodLimits::priorities_max).
    TooManyPriorities = "too_many_priorities", ENHANCE_YOUR_CALM;
    /// Beyond [`FloodLimits::window_updates_max`](crate::FloodLimits::window_updates_max).
    TooManyWindowUpdates = "too_many_window_updates", ENHANCE_YOUR_CALM;
    /// Beyond [`FloodLimits::empty_data_max`](crate::FloodLimits::empty_data_max).
    TooMuchEmptyData = "too_much_empty_data", ENHANCE_YOUR_CALM;
    /// Beyond [`FloodLimits::tiny_data_max`](crate::FloodLimits::tiny_data_max).
    TooMuchTinyData = "too_much_tiny_data", ENHANCE_YOUR_CALM;
    /// Beyond [`FloodLimits::unknown_max`](crate::FloodLimits::unknown_max).
    TooManyUnknownFrames = "too_many_unknown_frames", ENHANCE_YOUR_CALM;
    /// Beyond [`FloodLimits::idle_max`](crate::FloodLimits::idle_max).
    TooManyIdleFrames = "too_many_idle_frames", ENHANCE_YOUR_CALM;
    /// Beyond [`FloodLimits::continuations_max`](crate::FloodLimits::continuations_max).
    TooManyContinuations = "too_many_continuations", ENHANCE_YOUR_CALM;
    /// Beyond [`FloodLimits::block_bytes_max`](crate::FloodLimits::block_bytes_max).
    BlockTooLarge = "block_too_large", ENHANCE_YOUR_CALM;
    /// The peer does not read the responses to its frames.
    OutputFull = "output_full", ENHANCE_YOUR_CALM;

    /// A required pseudo-field is missing.
    MissingPseudo = "missing_pseudo", PROTOCOL_ERROR;
    /// A pseudo-field that this kind of message cannot have.
    UnknownPseudo = "unknown_pseudo", PROTOCOL_ERROR;
    /// A pseudo-field that appears twice.
    RepeatedPseudo = "repeated_pseudo", PROTOCOL_ERROR;
    /// A pseudo-field after a field.
    LatePseudo = "late_pseudo", PROTOCOL_ERROR;
    /// A pseudo-field in trailers.
    PseudoInTrailers = "pseudo_in_trailers", PROTOCOL_ERROR;
    /// A field name that is empty, not a token, or contains an upper-case letter.
    BadFieldName = "bad_field_name", PROTOCOL_ERROR;
    /// A field value with a control byte or with surrounding whitespace.
    BadFieldValue = "bad_field_value", PROTOCOL_ERROR;
    /// A connection-specific field of HTTP/1.1.
    ConnectionField = "connection_field", PROTOCOL_ERROR;
    /// TE with a value other than `trailers`.
    BadTe = "bad_te", PROTOCOL_ERROR;
    /// A method that is not a token.
    BadMethod = "bad_method", PROTOCOL_ERROR;
    /// A scheme other than `http` and `https`.
    BadScheme = "bad_scheme", PROTOCOL_ERROR;
    /// A path that is empty, contains a byte that targets may not contain, or has a form that its
    /// method does not allow.
    BadPath = "bad_path", PROTOCOL_ERROR;
    /// An authority that is not a host with an optional port.
    BadAuthority = "bad_authority", PROTOCOL_ERROR;
    /// Neither `:authority` nor Host.
    MissingAuthority = "missing_authority", PROTOCOL_ERROR;
    /// A Host that differs from `:authority`, or more than one Host.
    BadHost = "bad_host", PROTOCOL_ERROR;
    /// CONNECT with other pseudo-fields than it may have, or with a `:protocol` that is not
    /// enabled.
    BadConnect = "bad_connect", PROTOCOL_ERROR;
    /// Content-Length that is not a number below 2^63, or several that differ.
    BadContentLength = "bad_content_length", PROTOCOL_ERROR;
    /// More data than Content-Length announces.
    BodyTooLong = "body_too_long", PROTOCOL_ERROR;
    /// Less data than Content-Length announces.
    BodyTooShort = "body_too_short", PROTOCOL_ERROR;
    /// Data in a response that cannot have a body, or before the head of a response.
    UnexpectedData = "unexpected_data", PROTOCOL_ERROR;
    /// A status that is not three digits, or 101.
    BadStatus = "bad_status", PROTOCOL_ERROR;
    /// An interim response that ends the stream.
    EndedInterim = "ended_interim", PROTOCOL_ERROR;
    /// Too many interim responses to one request.
    TooManyInterim = "too_many_interim", ENHANCE_YOUR_CALM;
    /// Trailers that do not end the stream.
    UnendedTrailers = "unended_trailers", PROTOCOL_ERROR;

    /// More streams than announced. The stream is refused, so its request may be repeated.
    TooManyStreams = "too_many_streams", REFUSED_STREAM;
    /// A stream after the last one that this side accepts.
    ShuttingDown = "shutting_down", REFUSED_STREAM;
    /// A field section beyond [`Config::list_bytes_max`](crate::Config::list_bytes_max).
    HeadTooLarge = "head_too_large", PROTOCOL_ERROR;
    /// More fields than [`Config::fields_max`](crate::Config::fields_max).
    TooManyFields = "too_many_fields", PROTOCOL_ERROR;
    /// A path beyond [`Config::target_bytes_max`](crate::Config::target_bytes_max).
    TargetTooLong = "target_too_long", PROTOCOL_ERROR;
    /// A method longer than any registered one.
    MethodTooLong = "method_too_long", PROTOCOL_ERROR;
    /// An expectation other than 100-continue.
    BadExpectation = "bad_expectation", PROTOCOL_ERROR;

    /// The caller: the peer did not acknowledge SETTINGS in time.
    SettingsTimeout = "settings_timeout", SETTINGS_TIMEOUT;
    /// The caller: a field block did not end in time.
    BlockTimeout = "block_timeout", ENHANCE_YOUR_CALM;
    /// The caller: the peer does not read.
    NotReading = "not_reading", NO_ERROR;
    /// The caller: the connection holds too much memory.
    HoldsTooMuch = "holds_too_much", ENHANCE_YOUR_CALM;
    /// The caller: the peer did not answer a PING in time.
    PingTimeout = "ping_timeout", NO_ERROR;
    /// The caller: the stream is gone or was never opened.
    StreamGone = "stream_gone", INTERNAL_ERROR;
    /// The caller: the state does not allow this step.
    OutOfOrder = "out_of_order", INTERNAL_ERROR;
    /// The caller: more data than the windows allow now.
    NoRoom = "no_room", INTERNAL_ERROR;
    /// The caller: no stream can be opened now.
    CannotOpen = "cannot_open", INTERNAL_ERROR;
    /// The caller: a body longer than announced. The caller must reset the stream.
    BodyOverrun = "body_overrun", INTERNAL_ERROR;
    /// The caller: a body shorter than announced. The caller must reset the stream.
    BodyUnderrun = "body_underrun", INTERNAL_ERROR;
}

impl Error {
    /// The status of the response to a request that is refused for this error. For a request that
    /// was reset instead, the status in the log: 400.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::TargetTooLong => 414,
            Self::MethodTooLong => 501,
            Self::BadExpectation => 417,
            Self::TooManyStreams | Self::ShuttingDown => 503,
            Self::StreamGone
            | Self::OutOfOrder
            | Self::NoRoom
            | Self::CannotOpen
            | Self::BodyOverrun
            | Self::BodyUnderrun => 500,
            _ => 400,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for Error {}
