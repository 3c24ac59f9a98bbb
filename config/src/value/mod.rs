//! Values that several parts of the file have in common.

pub(crate) mod address;
pub(crate) mod algorithm;
pub(crate) mod authority;
pub(crate) mod braces;
pub(crate) mod cookie_name;
pub(crate) mod failure_set;
pub(crate) mod fetch_url;
pub(crate) mod field;
pub(crate) mod file_path;
pub(crate) mod media_type;
pub(crate) mod named_part;
pub(crate) mod network;
pub(crate) mod placeholder;
pub(crate) mod plain_name;
pub(crate) mod regex;
pub(crate) mod server_url;
pub(crate) mod status_set;
pub(crate) mod template;
pub(crate) mod upstream_names;
pub(crate) mod variable;
