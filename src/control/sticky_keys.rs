//! The keys that mark endpoints in cookies. They are read with the configuration.

use weir_config::{Code, Config, Diagnostic, NamedFile, Severity, bounded};

use super::limits::{STICKY_KEY_BYTES_MAX, STICKY_KEY_BYTES_MIN};
use crate::files;
use crate::plan::StickyKeys;

const HELP: &str = "make one with: head -c 32 /dev/urandom > KEY_FILE";

/// Reads all keys that `config` names. `name` is the configuration's own, for diagnostics. With `skips_missing`, a file
/// that does not exist here is no error.
///
/// # Errors
/// A file cannot be read, or is too short or too long.
pub(super) fn read(
    config: &Config,
    name: &str,
    skips_missing: bool,
) -> Result<StickyKeys, Vec<Diagnostic>> {
    let (mut keys, mut errors) = (StickyKeys::default(), Vec::new());
    for file in config.sticky_key_files() {
        let is_skipped = skips_missing && !file.path.exists();
        if is_skipped || keys.0.contains_key(&file.path) {
            continue;
        }
        match read_key(file) {
            Ok(key) => drop(keys.0.insert(file.path.clone(), key)),
            Err(why) => errors.push(Diagnostic {
                severity: Severity::Error,
                code: Code::NamedFile,
                message: format!("cannot use {}: {why}", file.path.display()),
                file: name.to_owned(),
                excerpt: file.excerpt.clone(),
                help: vec![HELP.to_owned()],
            }),
        }
    }
    match errors.is_empty() {
        true => Ok(keys),
        false => Err(bounded(errors)),
    }
}

fn read_key(file: &NamedFile) -> Result<Vec<u8>, String> {
    let key = files::read(&file.path, STICKY_KEY_BYTES_MAX).map_err(|error| error.to_string())?;
    match key.len() {
        len if len < STICKY_KEY_BYTES_MIN => Err(format!(
            "a key has at least {STICKY_KEY_BYTES_MIN} bytes, and this file has {len}"
        )),
        _ => Ok(key),
    }
}
