//! What was wrong with what a peer sent, or with a caller's step.

use core::fmt;

use crate::code::ErrorCode;

macro_rules! errors {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $code:ident;)*) => {
        /// Why a connection, a stream or a step cannot go on.
        ///
        /// As the `Err` of [`Connection::receive`](crate::Connection::receive) it ends the
        /// connection, in [`Event::Failed`](crate::Event::Failed) a stream, in
        /// [`Event::Refused`](crate::Event::Refused) nothing: that request is to be answered.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Error {
            $($(#[$doc])* $variant,)*
        }

        impl Error {
            /// Every error, in the order of [`Error::index`].
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Its place in [`Error::ALL`], for counts by error.
            #[must_use]
            pub const fn index(self) -> usize {
                self as usize
            }

            /// A stable word for logs, metrics and test tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The code that the peer is told.
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
    /// The connection does not begin with the preface of HTTP/2.
    BadPreface = "bad_preface", PROTOCOL_ERROR;
    /// The first frame is no SETTINGS.
    MissingSettings = "missing_settings", PROTOCOL_ERROR;
    /// A frame larger than [`FRAME_BYTES_MAX`](crate::config::FRAME_BYTES_MAX).
    FrameTooLarge = "frame_too_large", FRAME_SIZE_ERROR;
    /// A frame of a length its type cannot have.
    BadFrameLength = "bad_frame_length", FRAME_SIZE_ERROR;
    /// Padding as long as the payload or longer.
    BadPadding = "bad_padding", PROTOCOL_ERROR;
    /// A frame of the connection on a stream, one of a stream on none, or a stream of a number that
    /// the peer cannot open.
    BadStreamId = "bad_stream_id", PROTOCOL_ERROR;
    /// A frame other than HEADERS or PRIORITY for a stream that nobody has opened.
    IdleStream = "idle_stream", PROTOCOL_ERROR;
    /// A priority of RFC 7540 by which a stream depends on itself.
    SelfDependency = "self_dependency", PROTOCOL_ERROR;
    /// HEADERS or DATA for a stream that has ended, or whose sender has ended it.
    ClosedStream = "closed_stream", STREAM_CLOSED;
    /// Another frame between the frames of a field block, or a CONTINUATION outside of one.
    BrokenBlock = "broken_block", PROTOCOL_ERROR;
    /// PUSH_PROMISE, which we do not allow, or a frame that only the other role sends.
    UnexpectedFrame = "unexpected_frame", PROTOCOL_ERROR;
    /// A setting with a value it cannot have.
    BadSetting = "bad_setting", PROTOCOL_ERROR;
    /// An initial window over 2^31 - 1.
    BadInitialWindow = "bad_initial_window", FLOW_CONTROL_ERROR;
    /// SETTINGS acknowledged that were not sent.
    UnexpectedAck = "unexpected_ack", PROTOCOL_ERROR;
    /// A field block that RFC 7541 does not allow: what follows cannot be understood.
    Compression = "compression", COMPRESSION_ERROR;
    /// More data than the window lets through.
    WindowExceeded = "window_exceeded", FLOW_CONTROL_ERROR;
    /// A window that would grow beyond 2^31 - 1.
    WindowOverflow = "window_overflow", FLOW_CONTROL_ERROR;
    /// A WINDOW_UPDATE by nothing.
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
    /// The peer does not read the answers that it provokes.
    OutputFull = "output_full", ENHANCE_YOUR_CALM;

    /// A pseudo-field that must be there and is not.
    MissingPseudo = "missing_pseudo", PROTOCOL_ERROR;
    /// A pseudo-field that this kind of message does not have.
    UnknownPseudo = "unknown_pseudo", PROTOCOL_ERROR;
    /// A pseudo-field twice.
    RepeatedPseudo = "repeated_pseudo", PROTOCOL_ERROR;
    /// A pseudo-field after a field.
    LatePseudo = "late_pseudo", PROTOCOL_ERROR;
    /// A pseudo-field in trailers.
    PseudoInTrailers = "pseudo_in_trailers", PROTOCOL_ERROR;
    /// A field name that is empty, no token, or has an upper-case letter.
    BadFieldName = "bad_field_name", PROTOCOL_ERROR;
    /// A field value with a control byte, or with white space around it.
    BadFieldValue = "bad_field_value", PROTOCOL_ERROR;
    /// A field that is for one connection of HTTP/1.1 only.
    ConnectionField = "connection_field", PROTOCOL_ERROR;
    /// TE that says anything but `trailers`.
    BadTe = "bad_te", PROTOCOL_ERROR;
    /// A method that is no token.
    BadMethod = "bad_method", PROTOCOL_ERROR;
    /// A scheme other than `http` and `https`.
    BadScheme = "bad_scheme", PROTOCOL_ERROR;
    /// A path that is empty, has a byte that no target may hold, or a form its method does not
    /// allow.
    BadPath = "bad_path", PROTOCOL_ERROR;
    /// An authority that is no host with an optional port.
    BadAuthority = "bad_authority", PROTOCOL_ERROR;
    /// Neither `:authority` nor Host.
    MissingAuthority = "missing_authority", PROTOCOL_ERROR;
    /// A Host that is not what `:authority` says, or more than one.
    BadHost = "bad_host", PROTOCOL_ERROR;
    /// CONNECT with pseudo-fields that it cannot have, or with a `:protocol` that is not enabled.
    BadConnect = "bad_connect", PROTOCOL_ERROR;
    /// Content-Length that is no number below 2^63, or Content-Lengths that differ.
    BadContentLength = "bad_content_length", PROTOCOL_ERROR;
    /// More data than Content-Length says.
    BodyTooLong = "body_too_long", PROTOCOL_ERROR;
    /// The stream ended before the length was reached.
    BodyTooShort = "body_too_short", PROTOCOL_ERROR;
    /// Data in an answer that cannot have any, or before its head.
    UnexpectedData = "unexpected_data", PROTOCOL_ERROR;
    /// A status that is not three digits, or 101.
    BadStatus = "bad_status", PROTOCOL_ERROR;
    /// An interim answer that ends the stream.
    EndedInterim = "ended_interim", PROTOCOL_ERROR;
    /// More interim answers than one request may get.
    TooManyInterim = "too_many_interim", ENHANCE_YOUR_CALM;
    /// Trailers that do not end the stream.
    UnendedTrailers = "unended_trailers", PROTOCOL_ERROR;

    /// More streams than announced. The stream is refused: it may be repeated.
    TooManyStreams = "too_many_streams", REFUSED_STREAM;
    /// A stream that came after the last that was to be taken.
    ShuttingDown = "shutting_down", REFUSED_STREAM;
    /// A field section beyond [`Config::list_bytes_max`](crate::Config::list_bytes_max).
    HeadTooLarge = "head_too_large", PROTOCOL_ERROR;
    /// More fields than [`Config::fields_max`](crate::Config::fields_max).
    TooManyFields = "too_many_fields", PROTOCOL_ERROR;
    /// A path beyond [`Config::target_bytes_max`](crate::Config::target_bytes_max).
    TargetTooLong = "target_too_long", PROTOCOL_ERROR;
    /// A method longer than any that is known.
    MethodTooLong = "method_too_long", PROTOCOL_ERROR;
    /// An expectation other than 100-continue.
    BadExpectation = "bad_expectation", PROTOCOL_ERROR;

    /// The caller: our SETTINGS were not acknowledged in time.
    SettingsTimeout = "settings_timeout", SETTINGS_TIMEOUT;
    /// The caller: a field block has begun and its end did not come in time.
    BlockTimeout = "block_timeout", ENHANCE_YOUR_CALM;
    /// The caller: the peer takes nothing of what is sent.
    NotReading = "not_reading", NO_ERROR;
    /// The caller: the connection holds more memory than can be had.
    HoldsTooMuch = "holds_too_much", ENHANCE_YOUR_CALM;
    /// The caller: the peer gives no sign of life.
    PingTimeout = "ping_timeout", NO_ERROR;
    /// The caller: the stream has ended or never was.
    StreamGone = "stream_gone", INTERNAL_ERROR;
    /// The caller: a step that the state does not allow.
    OutOfOrder = "out_of_order", INTERNAL_ERROR;
    /// The caller: more data than the window lets through now.
    NoRoom = "no_room", INTERNAL_ERROR;
    /// The caller: no stream may be opened now.
    CannotOpen = "cannot_open", INTERNAL_ERROR;
    /// The caller: a body longer than announced. It has to be reset.
    BodyOverrun = "body_overrun", INTERNAL_ERROR;
    /// The caller: a body shorter than announced. It has to be reset.
    BodyUnderrun = "body_underrun", INTERNAL_ERROR;
}

impl Error {
    /// The status to answer a request with that is refused for this; 400 for what is reset
    /// unanswered, where it stands in logs.
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
