//! The files that `errors` names as pages. They are read with the configuration.

use std::path::Path;

use weir_config::{Code, Config, Diagnostic, NamedFile, Severity, bounded};

use crate::files;
use crate::limits::ERROR_PAGE_BYTES_MAX;
use crate::policy::errors::PageFiles;

/// Reads all pages that `config` names. `name` is the configuration's own, for diagnostics. With `is_elsewhere`, the
/// file is for another machine, so a page that does not exist here is no error.
///
/// # Errors
/// A page is missing, too large, or not UTF-8.
pub(super) fn read(
    config: &Config,
    name: &str,
    is_elsewhere: bool,
) -> Result<PageFiles, Vec<Diagnostic>> {
    let mut pages = PageFiles::new();
    let mut errors: Vec<Diagnostic> = Vec::new();
    for file in config.error_files() {
        let is_skipped = is_elsewhere && !file.path.exists();
        if is_skipped || pages.contains_key(&file.path) {
            continue;
        }
        match read_page(&file.path) {
            Ok(text) => drop(pages.insert(file.path.clone(), text.into())),
            Err(why) => {
                let error = unreadable(file, &why, name);
                // A page of the top level comes once for each route.
                if !errors.contains(&error) {
                    errors.push(error);
                }
            }
        }
    }
    match errors.is_empty() {
        true => Ok(pages),
        false => Err(bounded(errors)),
    }
}

fn read_page(path: &Path) -> Result<String, String> {
    let bytes = files::read(path, ERROR_PAGE_BYTES_MAX).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())
}

fn unreadable(file: &NamedFile, why: &str, name: &str) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        code: Code::NamedFile,
        message: format!("cannot read {}: {why}", file.path.display()),
        file: name.to_owned(),
        excerpt: file.excerpt.clone(),
        help: Vec::new(),
    }
}
