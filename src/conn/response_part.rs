//! A response, part by part.

use crate::io::Chunk;

/// A part of an endpoint's response. `poll_response` writes a head into the caller's buffers.
pub enum ResponsePart {
    /// An interim head (1xx). The final one follows.
    Interim,
    /// The final head.
    Head,
    /// The head of a 101. Raw bytes follow.
    Switch,
    /// A piece of the body.
    Data(Chunk),
    /// The end of the response.
    End,
}
