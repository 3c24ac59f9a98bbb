//! The media types worth compressing.

/// Patterns for media types: `text/html`, `text/*`, `+json`.
#[derive(Debug)]
pub(super) struct MediaTypes {
    /// In lower case.
    patterns: Box<[Box<str>]>,
}

impl MediaTypes {
    /// Takes patterns in any case.
    pub(super) fn new<'p>(patterns: impl Iterator<Item = &'p str>) -> Self {
        Self {
            patterns: patterns
                .map(|pattern| pattern.to_ascii_lowercase().into())
                .collect(),
        }
    }

    /// Whether a pattern matches the value of Content-Type. Parameters do not count.
    pub(super) fn contain(&self, content_type: &[u8]) -> bool {
        let name = content_type.split(|&byte| byte == b';').next();
        let name = name.unwrap_or_default().trim_ascii();
        self.patterns.iter().any(|pattern| {
            let pattern = pattern.as_bytes();
            match pattern {
                [main @ .., b'*'] => {
                    let start = name.get(..main.len());
                    start.is_some_and(|start| start.eq_ignore_ascii_case(main))
                }
                [b'+', ..] => {
                    let at = name.len().checked_sub(pattern.len());
                    let end = at.and_then(|at| name.get(at..));
                    end.is_some_and(|end| end.eq_ignore_ascii_case(pattern))
                }
                _ => name.eq_ignore_ascii_case(pattern),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_names_ends_and_main_types() {
        let types = MediaTypes::new(["text/*", "+JSON", "application/wasm"].into_iter());
        for matching in [
            "text/html",
            "TEXT/plain; charset=utf-8",
            "text/event-stream",
            "application/problem+json",
            "application/ld+JSON;profile=x",
            "application/wasm",
            " application/wasm ; x",
        ] {
            assert!(types.contain(matching.as_bytes()), "{matching}");
        }
        for other in [
            "",
            "text",
            "image/png",
            "application/json",
            "application/x+json+zip",
            "application/wasm2",
            "x-text/html",
            "json",
        ] {
            assert!(!types.contain(other.as_bytes()), "{other}");
        }
    }
}
