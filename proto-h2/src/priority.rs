//! Priorities of RFC 9218, in the `priority` field and in PRIORITY_UPDATE.

/// How urgent a response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Priority {
    /// 0 is the most urgent, 7 the least.
    pub urgency: u8,
    /// Whether the client can use the response in parts. Incremental responses share the
    /// connection; others of the same urgency are sent one after the other.
    pub is_incremental: bool,
}

impl Default for Priority {
    /// Urgency 3, not incremental (RFC 9218, section 4).
    fn default() -> Self {
        Self {
            urgency: 3,
            is_incremental: false,
        }
    }
}

impl Priority {
    /// The priority of responses without a stated one: they share the connection.
    pub(crate) const SHARED: Self = Self {
        urgency: 3,
        is_incremental: true,
    };

    /// Parses a dictionary of structured fields. Ignores unknown members and values out of range.
    #[must_use]
    pub fn parse(value: &[u8]) -> Self {
        Self::default().merged(value)
    }

    /// Applies the members of a dictionary to a priority.
    //= rfc9218#4
    // Unknown parameters, values out of range and of the wrong type are ignored.
    pub(crate) fn merged(self, value: &[u8]) -> Self {
        let mut priority = self;
        for member in value.split(|&byte| byte == b',') {
            let member = member.split(|&byte| byte == b';').next();
            match member.unwrap_or_default().trim_ascii() {
                [b'u', b'=', digit @ b'0'..=b'7'] => priority.urgency = digit - b'0',
                b"i" | b"i=?1" => priority.is_incremental = true,
                b"i=?0" => priority.is_incremental = false,
                _ => {}
            }
        }
        priority
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parsed_and_nonsense_is_ignored() {
        let of = |urgency, is_incremental| Priority {
            urgency,
            is_incremental,
        };
        for (text, want) in [
            (&b""[..], of(3, false)),
            (b"u=0", of(0, false)),
            (b"u=7, i", of(7, true)),
            (b"i=?1,u=1", of(1, true)),
            (b"i, i=?0", of(3, false)),
            (b"u=5;x=1", of(5, false)),
            (b"u=8, i=1, x=\"y\"", of(3, false)),
            (b"u=-1", of(3, false)),
            (b"u=2, u=4", of(4, false)),
            (b"\xff,,;=", of(3, false)),
        ] {
            assert_eq!(Priority::parse(text), want, "{text:?}");
        }
        assert_eq!(of(1, true).merged(b"u=5"), of(5, true));
        assert_eq!(of(1, true).merged(b"i=?0"), of(1, false));
    }
}
