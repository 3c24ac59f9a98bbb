//! The configuration of Weir: TOML text in, a typed [`Config`] or a list of diagnostics out.
//!
//! [`parse`] reads a file, reports everything that is wrong with it at once, and gives back plain
//! data in which every name is resolved and every value is parsed. [`schema()`] and [`reference()`]
//! come from the declarations that the decoder runs, so they cannot disagree with it.
//!
//! ```
//! let text = r#"
//!     [listen."127.0.0.1:8080"]
//!     [upstream]
//!     app = ["127.0.0.1:9000"]
//!     [[route]]
//!     match = "/*"
//!     to = "app"
//! "#;
//! let (config, warnings) = weir_config::parse("edge.toml", text).expect("a right file");
//! assert_eq!(config.routes.len(), 1);
//! assert!(warnings.is_empty());
//!
//! let errors = weir_config::parse("edge.toml", "[listn]").expect_err("a wrong file");
//! assert!(weir_config::to_text(&errors).contains("did you mean `listen`?"));
//! ```
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod limits;

mod address;
mod amounts;
mod check;
mod decode;
mod diagnostic;
mod file;
mod foreign;
mod forms;
mod json;
mod kinds;
mod layers;
mod model;
mod overlap;
mod pattern;
mod pattern_index;
mod placeholders;
mod process;
mod reference;
mod request;
mod routes;
mod schema;
mod scopes;
mod shape;
mod source;
mod suggest;
mod syntax;
mod table;
mod tls;
mod units;

pub use address::ValueError;
pub use diagnostic::{Code, Diagnostic, Place, Places, Severity, Spot, bounded, to_json, to_text};
pub use layers::{
    Http2, Limits, LimitsPatch, Pool, PoolPatch, Retries, RetriesPatch, Timeouts, TimeoutsPatch,
};
pub use model::*;
pub use process::Account;
pub use reference::reference;
pub use schema::schema;
pub use tls::{
    CertFiles, Cipher, ClientCert, ListenTls, NamedFile, ProxyProtocol, TlsVersion, UpstreamTls,
    Verify, is_certificate_name,
};
pub use units::{show_duration, show_size};

use crate::decode::{Decoder, Kind};
use crate::source::Source;

/// Reads the configuration `text` of the file `name`. The name appears in diagnostics, and its folder is where relative
/// paths of other files begin; none is opened.
///
/// Gives the configuration and warnings in the order of the file.
///
/// # Errors
///
/// Everything that is wrong with the file, in its order, warnings included; at most
/// [`limits::DIAGNOSTICS_MAX`] and one that counts the rest.
pub fn parse(name: &str, text: &str) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    let source = Source::new(name, text);
    let mut cx = Decoder::new(&source);
    if text.len() > limits::FILE_BYTES_MAX {
        let message = format!("a file has at most {} bytes", limits::FILE_BYTES_MAX);
        cx.file_error(Code::TooMany, message);
        return Err(cx.finish().0);
    }
    let (tree, errors) = toml::de::DeTable::parse_recoverable(text);
    syntax::report(text, &errors, tree.get_ref(), &mut cx);
    let span = tree.span();
    let value = toml::Spanned::new(span, toml::de::DeValue::Table(tree.into_inner()));
    let config = file::File::decode(&value, &mut cx).map(|file| {
        let root = value.get_ref().as_table();
        root.map(|root| check::check(file, root, &mut cx))
    });
    let (diagnostics, failed) = cx.finish();
    match config.flatten() {
        Some(config) if !failed => Ok((config, diagnostics)),
        _ => Err(diagnostics),
    }
}
