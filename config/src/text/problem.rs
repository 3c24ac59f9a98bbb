//! What is wrong with a string.

/// What is wrong with a string, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// What is wrong, without a full stop.
    pub(crate) message: String,
    /// What to write instead.
    pub(crate) help: Option<String>,
    /// The bytes of the string that are wrong; `None` for all.
    pub(crate) at: Option<std::ops::Range<usize>>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
            at: None,
        }
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn at(mut self, start: usize, length: usize) -> Self {
        self.at = Some(start..start + length);
        self
    }
}

/// Why a value that is not from a file is invalid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError {
    /// What is wrong, without a full stop.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl std::fmt::Display for ValueError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        self.help
            .as_ref()
            .map_or(Ok(()), |help| write!(f, " ({help})"))
    }
}

impl std::error::Error for ValueError {}

impl From<Problem> for ValueError {
    fn from(problem: Problem) -> Self {
        Self {
            message: problem.message,
            help: problem.help,
        }
    }
}
