//! From the tree of a TOML file to typed values: the machinery that every part of the file uses. Nothing here knows a
//! key of the file.

pub(crate) mod amounts;
pub(crate) mod decoder;
pub(crate) mod kind;
pub(crate) mod kinds;
pub(crate) mod preset;
pub(crate) mod reader;
pub(crate) mod shape;
pub(crate) mod syntax;
pub(crate) mod table;
