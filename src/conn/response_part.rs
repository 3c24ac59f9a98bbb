//! What an endpoint answers, part by part.

use crate::io::Chunk;

/// A part of an endpoint's response. Heads are stored where the caller of `poll_answer` says.
pub enum ResponsePart {
    /// An interim head (1xx); the final one is still to come.
    Interim,
    /// The final head.
    Head,
    /// The head that switches protocols: what follows is not HTTP.
    Switch,
    /// A piece of the body.
    Data(Chunk),
    /// The response is complete.
    End,
}
