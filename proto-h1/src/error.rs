//! Why the machines refuse input, or a step of the caller.

use core::fmt;

/// Why a message cannot go on. Every error ends the connection that the message came from, because
/// the bytes that follow have no certain meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// Request line that does not have its three parts, or has bytes between or after them.
    /// HTTP/0.9 too.
    BadRequestLine,
    /// Method that is not a token. Binary input usually fails here.
    BadMethod,
    /// Method longer than any registered one.
    MethodTooLong,
    /// Target with a byte that targets may not contain, or in a form that its method does not
    /// allow.
    BadTarget,
    /// Target beyond [`Limits::target_bytes_max`](crate::Limits::target_bytes_max).
    TargetTooLong,
    /// Version that is not `HTTP/` DIGIT `.` DIGIT.
    BadVersion,
    /// Version whose major number is not 1.
    UnsupportedVersion,
    /// Status line without a three-digit status, or with an invalid reason.
    BadStatusLine,
    /// Too many empty lines before a request.
    TooManyEmptyLines,
    /// LF without CR before it.
    BareLf,
    /// CR without LF after it.
    BareCr,
    /// NUL in a field value.
    NulByte,
    /// Whitespace at the start of a field line: line folding, deprecated in 2014.
    ObsFold,
    /// Whitespace between a field name and its colon.
    SpaceBeforeColon,
    /// Field line without a colon.
    MissingColon,
    /// Field name that is empty or not a token.
    BadFieldName,
    /// Control byte in a field value.
    BadFieldValue,
    /// Head beyond [`Limits::head_bytes_max`](crate::Limits::head_bytes_max).
    HeadTooLarge,
    /// More field lines than [`Limits::fields_max`](crate::Limits::fields_max).
    TooManyFields,
    /// HTTP/1.1 request without Host.
    MissingHost,
    /// More than one Host.
    RepeatedHost,
    /// Host, or authority of the target, that is not a host with an optional port.
    BadHost,
    /// Content-Length that is not a number below 2^63.
    BadContentLength,
    /// Content-Lengths that differ.
    ConflictingContentLength,
    /// Content-Length and Transfer-Encoding in one head.
    LengthAndEncoding,
    /// Transfer-Encoding that is malformed, repeats chunked, or does not end with chunked.
    BadTransferEncoding,
    /// Transfer-Encoding with another coding before chunked.
    UnsupportedTransferCoding,
    /// Transfer-Encoding in an HTTP/1.0 message.
    EncodingInHttp10,
    /// Too many options in Connection.
    TooManyConnectionOptions,
    /// Expectation other than 100-continue.
    BadExpectation,
    /// Path with a percent sign that is not followed by two hexadecimal digits.
    BadPercentEncoding,
    /// Path with a backslash. It must be percent-encoded, because browsers treat it as a slash.
    Backslash,
    /// Path with `%00`.
    EncodedNul,
    /// Chunk size that is not hexadecimal, too long, or too large.
    BadChunkSize,
    /// Control byte in a chunk's framing, or missing CR or LF.
    BadChunk,
    /// Size line beyond [`Limits::chunk_line_bytes_max`](crate::Limits::chunk_line_bytes_max), or
    /// too many bytes of extensions in one body.
    ChunkLineTooLong,
    /// Trailer section beyond its limit in bytes or lines.
    TrailersTooLarge,
    /// The peer closed before the message was complete.
    Truncated,
    /// 101 without an upgrade request, or for a protocol that was not offered.
    UnexpectedSwitch,
    /// Bytes from an endpoint that no request asked for.
    UnexpectedBytes,
    /// Too many interim responses to one request.
    TooManyInterim,
    /// The caller sends a body longer than announced.
    BodyOverrun,
    /// The caller ends a body before the announced length.
    BodyUnderrun,
    /// The state of the machine does not allow this step of the caller.
    OutOfOrder,
}

impl Error {
    /// The status for the client. If an endpoint caused the error, the client gets 502 instead.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::HeadTooLarge | Self::TooManyFields | Self::TrailersTooLarge => 431,
            Self::UnsupportedVersion => 505,
            Self::MethodTooLong | Self::UnsupportedTransferCoding => 501,
            Self::BadExpectation => 417,
            Self::BadStatusLine
            | Self::UnexpectedSwitch
            | Self::UnexpectedBytes
            | Self::TooManyInterim
            | Self::BodyUnderrun
            | Self::BodyOverrun => 502,
            Self::OutOfOrder => 500,
            _ => 400,
        }
    }

    /// A stable name for logs, metrics and test cases: the variant in snake case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BadRequestLine => "bad_request_line",
            Self::BadMethod => "bad_method",
            Self::MethodTooLong => "method_too_long",
            Self::BadTarget => "bad_target",
            Self::TargetTooLong => "target_too_long",
            Self::BadVersion => "bad_version",
            Self::UnsupportedVersion => "unsupported_version",
            Self::BadStatusLine => "bad_status_line",
            Self::TooManyEmptyLines => "too_many_empty_lines",
            Self::BareLf => "bare_lf",
            Self::BareCr => "bare_cr",
            Self::NulByte => "nul_byte",
            Self::ObsFold => "obs_fold",
            Self::SpaceBeforeColon => "space_before_colon",
            Self::MissingColon => "missing_colon",
            Self::BadFieldName => "bad_field_name",
            Self::BadFieldValue => "bad_field_value",
            Self::HeadTooLarge => "head_too_large",
            Self::TooManyFields => "too_many_fields",
            Self::MissingHost => "missing_host",
            Self::RepeatedHost => "repeated_host",
            Self::BadHost => "bad_host",
            Self::BadContentLength => "bad_content_length",
            Self::ConflictingContentLength => "conflicting_content_length",
            Self::LengthAndEncoding => "length_and_encoding",
            Self::BadTransferEncoding => "bad_transfer_encoding",
            Self::UnsupportedTransferCoding => "unsupported_transfer_coding",
            Self::EncodingInHttp10 => "encoding_in_http10",
            Self::TooManyConnectionOptions => "too_many_connection_options",
            Self::BadExpectation => "bad_expectation",
            Self::BadPercentEncoding => "bad_percent_encoding",
            Self::Backslash => "backslash",
            Self::EncodedNul => "encoded_nul",
            Self::BadChunkSize => "bad_chunk_size",
            Self::BadChunk => "bad_chunk",
            Self::ChunkLineTooLong => "chunk_line_too_long",
            Self::TrailersTooLarge => "trailers_too_large",
            Self::Truncated => "truncated",
            Self::UnexpectedSwitch => "unexpected_switch",
            Self::UnexpectedBytes => "unexpected_bytes",
            Self::TooManyInterim => "too_many_interim",
            Self::BodyOverrun => "body_overrun",
            Self::BodyUnderrun => "body_underrun",
            Self::OutOfOrder => "out_of_order",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for Error {}
