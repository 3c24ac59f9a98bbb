//! Descriptors that the process was started with.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first that a service manager passes on (sd_listen_fds).
const FIRST: i32 = 3;

/// Takes over this many, if nobody has before: `None` stands for one that is not open. They are not passed on to others
/// any more.
pub fn take_inherited(count: usize) -> Vec<Option<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Vec::new();
    }
    let fds = (FIRST..).take(count);
    fds.map(|fd| {
        // SAFETY: reads and sets flags of a descriptor; no memory is passed.
        let is_open = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) == 0 };
        // SAFETY: who has started the process says that it is for us, and it is taken once.
        let fd = is_open.then(|| unsafe { OwnedFd::from_raw_fd(fd) })?;
        debug_assert!(fd.as_raw_fd() >= FIRST);
        Some(fd)
    })
    .collect()
}
