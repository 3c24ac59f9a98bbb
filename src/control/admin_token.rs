//! The token that clients of the admin API show.

use std::fmt;
use std::hint::black_box;
use std::path::Path;

use weir_config::limits::ADMIN_TOKEN_CHARS_MIN;
use weir_config::{Code, Config, Diagnostic, NamedFile, Severity};

use super::limits;
use crate::files;
use crate::tls::FileStamp;

/// A token. It never appears in messages.
pub struct AdminToken(Box<[u8]>);

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken")
    }
}

impl AdminToken {
    /// Reads the token of a configuration, if it has one. `name` is the configuration's own name, for diagnostics. With
    /// `skips_missing`, a file that does not exist here is no error.
    ///
    /// # Errors
    /// The file cannot be read, or holds no token.
    pub(super) fn load(
        config: &Config,
        skips_missing: bool,
        name: &str,
    ) -> Result<Option<Self>, Vec<Diagnostic>> {
        let file = config.admin.as_ref();
        let Some(file) = file.and_then(|admin| admin.token_file.as_ref()) else {
            return Ok(None);
        };
        if skips_missing && FileStamp::now(&file.path).is_none() {
            return Ok(None);
        }
        let diagnostic = |message| Diagnostic {
            severity: Severity::Error,
            code: Code::NamedFile,
            message,
            file: name.to_owned(),
            excerpt: file.excerpt.clone(),
            help: vec![HELP.to_owned()],
        };
        let token = Self::read(file).map_err(|message| vec![diagnostic(message)])?;
        Ok(Some(token))
    }

    fn read(file: &NamedFile) -> Result<Self, String> {
        read_token(&file.path).map(|text| Self::of_text(&text))
    }

    pub(super) fn of_text(text: &str) -> Self {
        Self(text.as_bytes().into())
    }

    /// Whether `shown` is the token. How long it takes depends on the token's own length alone.
    pub(super) fn is(&self, shown: &[u8]) -> bool {
        let mut differences = u8::from(shown.len() != self.0.len());
        for (at, own) in self.0.iter().enumerate() {
            differences |= black_box(own ^ shown.get(at).copied().unwrap_or_default());
        }
        black_box(differences) == 0
    }
}

const HELP: &str =
    "`openssl rand -hex 32 > FILE` makes a token; let only Weir's user and its operators read it";

/// Reads a token from a file. White space around it does not count.
///
/// # Errors
/// The file cannot be read, or holds no token. The message does not quote it.
pub fn read_token(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let content = files::read(path, limits::ADMIN_TOKEN_BYTES_MAX);
    let content = content.map_err(|error| format!("cannot read {shown}: {error}"))?;
    let token = content.trim_ascii();
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(format!(
            "{shown} holds no token: it has spaces, line breaks or characters other than ASCII inside"
        ));
    }
    if token.len() < ADMIN_TOKEN_CHARS_MIN {
        let length = token.len();
        return Err(format!(
            "the token in {shown} has {length} characters, at least {ADMIN_TOKEN_CHARS_MIN} are needed"
        ));
    }
    Ok(String::from_utf8_lossy(token).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_is_the_token() {
        let token = AdminToken::of_text("0123456789abcdef");
        assert!(token.is(b"0123456789abcdef"));
        for wrong in [
            "",
            "0",
            "0123456789abcde",
            "0123456789abcdeF",
            "0123456789abcdef0",
            "0123456789abcdef\0",
        ] {
            assert!(!token.is(wrong.as_bytes()), "{wrong:?}");
        }
        assert_eq!(format!("{token:?}"), "AdminToken");
    }

    #[test]
    fn a_file_holds_one_token_of_16_characters() {
        let dir = std::env::temp_dir().join(format!("weir-token-{}", std::process::id()));
        let read = |content: &str| {
            std::fs::write(&dir, content).expect("it can be written");
            read_token(&dir)
        };
        assert_eq!(
            read("0123456789abcdef\n").as_deref(),
            Ok("0123456789abcdef")
        );
        let short = read("0123456789abcde\n").expect_err("too short");
        assert!(short.contains("has 15 characters"), "{short}");
        assert!(!short.contains("0123456789"), "{short}");
        assert!(read("0123456789 abcdef").is_err());
        assert!(read("0123456789abcdef\n0123456789abcdef\n").is_err());
        assert!(read("").is_err());
        std::fs::remove_file(&dir).expect("it can be removed");
        assert!(read_token(&dir).is_err_and(|why| why.contains("cannot read")));
    }
}
