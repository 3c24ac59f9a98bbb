//! The machinery that turns a TOML tree into typed values. It knows no key of the file.

pub(crate) mod amounts;
pub(crate) mod decoder;
pub(crate) mod field_group;
pub(crate) mod kind;
pub(crate) mod kinds;
pub(crate) mod preset;
pub(crate) mod reader;
pub(crate) mod redact;
pub(crate) mod shape;
pub(crate) mod syntax;
pub(crate) mod table;
