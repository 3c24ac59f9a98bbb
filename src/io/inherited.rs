//! Descriptors that the process inherits from its service manager.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor that a service manager passes on (sd_listen_fds).
const FIRST: i32 = 3;

/// Takes ownership of the first `count` inherited descriptors and marks them close-on-exec. An entry is `None` if that
/// descriptor is not open. Every later call gets nothing.
pub fn take_inherited(count: usize) -> Vec<Option<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Vec::new();
    }
    let fds = (FIRST..).take(count);
    fds.map(|fd| {
        // SAFETY: reads and sets flags of a descriptor; no memory is passed.
        let is_open = unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) == 0 };
        // SAFETY: the process's starter says that the descriptor is for us, and this function takes it only once.
        let fd = is_open.then(|| unsafe { OwnedFd::from_raw_fd(fd) })?;
        debug_assert!(fd.as_raw_fd() >= FIRST);
        Some(fd)
    })
    .collect()
}
