//! Cookies that Weir sets.

use std::fmt;

use crate::tls::Marker;

/// A cookie that Weir sets: everything but its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookiePlan {
    /// Its name, a token.
    pub name: Box<str>,
    /// What stands behind its value, without `Secure`, which depends on the request.
    pub attributes: Box<str>,
}

impl fmt::Display for CookiePlan {
    /// Writes its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl CookiePlan {
    /// A cookie for the whole site that ends with the browser's session.
    #[must_use]
    pub fn of_session(name: Box<str>) -> Self {
        Self {
            name,
            attributes: "; Path=/; HttpOnly; SameSite=Lax".into(),
        }
    }

    /// A name that follows from the key of a marker and shows nothing of it: names in the file may have characters that
    /// a cookie cannot have, and clients need not see them.
    pub(super) fn name(prefix: &str, marker: &Marker) -> Box<str> {
        let mark = marker.mark("cookie");
        let digits = mark.iter().take(8).map(|digit| char::from(*digit));
        prefix.chars().chain(digits).collect()
    }
}
