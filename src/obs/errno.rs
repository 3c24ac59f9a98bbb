//! The names of system errors.

use std::io::Write;

use rustix::io::Errno;

/// The errors that a connect may return, and those of a machine that runs out of something.
const NAMES: &[(Errno, &str)] = &[
    (Errno::PERM, "EPERM"),
    (Errno::NOENT, "ENOENT"),
    (Errno::IO, "EIO"),
    (Errno::AGAIN, "EAGAIN"),
    (Errno::NOMEM, "ENOMEM"),
    (Errno::ACCESS, "EACCES"),
    (Errno::NOTDIR, "ENOTDIR"),
    (Errno::INVAL, "EINVAL"),
    (Errno::NFILE, "ENFILE"),
    (Errno::MFILE, "EMFILE"),
    (Errno::LOOP, "ELOOP"),
    (Errno::PROTOTYPE, "EPROTOTYPE"),
    (Errno::AFNOSUPPORT, "EAFNOSUPPORT"),
    (Errno::ADDRINUSE, "EADDRINUSE"),
    (Errno::ADDRNOTAVAIL, "EADDRNOTAVAIL"),
    (Errno::NETDOWN, "ENETDOWN"),
    (Errno::NETUNREACH, "ENETUNREACH"),
    (Errno::CONNABORTED, "ECONNABORTED"),
    (Errno::CONNRESET, "ECONNRESET"),
    (Errno::NOBUFS, "ENOBUFS"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
    (Errno::CONNREFUSED, "ECONNREFUSED"),
    (Errno::HOSTDOWN, "EHOSTDOWN"),
    (Errno::HOSTUNREACH, "EHOSTUNREACH"),
];

/// The name of an error, or its number, which is written into `digits`. Returns `None` for 0, which is no error.
pub(super) fn name(code: u16, digits: &mut [u8; 8]) -> Option<&[u8]> {
    if code == 0 {
        return None;
    }
    let is_it = |(errno, _): &&(Errno, &str)| errno.raw_os_error() == i32::from(code);
    match NAMES.iter().find(is_it) {
        Some((_, name)) => Some(name.as_bytes()),
        None => {
            let mut rest = &mut digits[..];
            // A number has at most five digits, so it fits.
            let _ = write!(rest, "{code}");
            let left = rest.len();
            let len = digits.len() - left;
            digits.get(..len)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_errors_have_names_and_others_numbers() {
        let show = |code| name(code, &mut [0; 8]).map(<[u8]>::to_vec);
        assert_eq!(show(0), None);
        assert_eq!(show(111).as_deref(), Some(&b"ECONNREFUSED"[..]));
        assert_eq!(show(24).as_deref(), Some(&b"EMFILE"[..]));
        assert_eq!(show(65_000).as_deref(), Some(&b"65000"[..]));
    }
}
