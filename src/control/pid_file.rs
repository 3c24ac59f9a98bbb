//! The pid file.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::process::{Pid, geteuid, test_kill_process};

use super::listen::OwnedFile;
use crate::files;
use crate::obs::process;

/// The largest file that may hold just a number.
const NUMBER_BYTES_MAX: u64 = 32;

/// Writes the number of this process into a file, atomically. Dropping the result removes the file. It may be the file of
/// `predecessor`, the process that this one replaces.
///
/// # Errors
/// The file is that of another running process, or not a pid file.
pub(super) fn write(path: &Path, predecessor: Option<u32>) -> Result<OwnedFile, String> {
    let left = check(path, predecessor)?;
    if let Some(left) = left.filter(|left| Some(*left) != predecessor) {
        process::info(format_args!(
            "{}: replaced; process {left} is gone",
            path.display()
        ));
    }
    replace(path).map_err(|error| cannot(path, &error.to_string()))
}

/// Checks that the file can be written. Returns the number in it if a process that has ended left it behind.
///
/// # Errors
/// The file cannot be written; see [`write`].
pub(super) fn check(path: &Path, predecessor: Option<u32>) -> Result<Option<u32>, String> {
    let left = read(path, Owner::Ours).map_err(|why| cannot(path, &why))?;
    files::may_be_made(path).map_err(|error| cannot(path, &error.to_string()))?;
    let is_other = |left: &u32| Some(*left) != predecessor && is_running(*left);
    match left.filter(is_other) {
        None => Ok(left),
        Some(other) => {
            let why = format!(
                "process {other} runs with it; end that process first, or give each its own file"
            );
            Err(cannot(path, &why))
        }
    }
}

/// Who may own a file that Weir replaces.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Root or this user.
    Ours,
    /// Anyone, because another user than this one will replace it.
    Any,
}

/// The number in the file at this path, if there is a file.
///
/// # Errors
/// Weir must not replace what is there.
pub(super) fn read(path: &Path, owner: Owner) -> Result<Option<u32>, String> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let kind = found.file_type();
    if !kind.is_file() {
        let what = match kind.is_symlink() {
            true => "a symbolic link",
            false if kind.is_dir() => "a directory",
            false if kind.is_fifo() => "a pipe",
            false => "not a regular file",
        };
        return Err(format!("it is {what}, which Weir does not replace"));
    }
    let uid = found.uid();
    if owner == Owner::Ours && uid != 0 && uid != geteuid().as_raw() {
        return Err(format!("it belongs to another user, {uid}"));
    }
    let text = match found.len() {
        0..=NUMBER_BYTES_MAX => fs::read_to_string(path).map_err(|error| error.to_string())?,
        _ => "more than a number".to_owned(),
    };
    match text.trim().parse() {
        Ok(pid) => Ok(Some(pid)),
        Err(_) if text.trim().is_empty() => Ok(None),
        Err(_) => Err("it holds something else than a process number".to_owned()),
    }
}

/// Whether another Weir runs under this number. Other programs may reuse numbers.
fn is_running(pid: u32) -> bool {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let Some(other) = raw.filter(|_| pid != std::process::id()) else {
        return false;
    };
    if test_kill_process(other) == Err(rustix::io::Errno::SRCH) {
        return false;
    }
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.starts_with("weir"))
}

fn replace(path: &Path) -> io::Result<OwnedFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let pid = std::process::id();
    let fresh = path.with_file_name(format!(".{name}.{pid}"));
    // A process of the same number may have left it behind.
    let _ = fs::remove_file(&fresh);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&fresh)?;
    let written = file
        .write_all(format!("{pid}\n").as_bytes())
        .and_then(|()| fs::rename(&fresh, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    OwnedFile::new(path)
}

/// The message for a pid file that cannot be written.
pub(super) fn cannot(path: &Path, why: &str) -> String {
    format!("cannot write pid_file {}: {why}", path.display())
}
