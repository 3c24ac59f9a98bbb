//! Opens the files that a configuration names without ever blocking on them. A FIFO without a peer, a device or a
//! directory in place of a file is an error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Doesn't wait for a peer, and doesn't make a terminal the controlling one.
const AT_ONCE: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);

/// Devices that accept log lines without blocking: `/dev/null` and `/dev/full`, by major and minor number.
const SINKS: [(u32, u32); 2] = [(1, 3), (1, 7)];

/// Reads a regular file of at most `bytes_max` bytes.
///
/// # Errors
/// The file is unreadable, too large, or not a regular file.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(AT_ONCE.bits().cast_signed())
        .open(path);
    let file = file.map_err(|error| match Errno::from_io_error(&error) {
        // `open` fails with this error on a socket.
        Some(Errno::NXIO) => not_regular(path, error),
        _ => error,
    })?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(refuse(&found, "a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let message = format!("it is larger than {}", weir_config::show_size(bytes_max));
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(bytes)
}

/// Opens a log for appending, and creates it, readable for owner and group, if it doesn't exist.
///
/// # Errors
/// The file cannot be opened, or is neither a regular file, nor a terminal, nor a FIFO with a reader.
pub fn open_log(path: &Path) -> io::Result<File> {
    open_log_with(path, true)
}

/// Checks whether [`open_log`] would succeed, without creating a file.
///
/// # Errors
/// The same as those of [`open_log`].
pub fn try_log(path: &Path) -> io::Result<()> {
    match open_log_with(path, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => may_be_made(path),
        outcome => outcome.map(drop),
    }
}

fn open_log_with(path: &Path, create: bool) -> io::Result<File> {
    // Checked before opening, because opening a device may have an effect.
    if let Ok(found) = fs::metadata(path) {
        takes_lines(&found)?;
    }
    let file = OpenOptions::new()
        .append(true)
        .create(create)
        .mode(0o640)
        .custom_flags(AT_ONCE.bits().cast_signed())
        .open(path);
    let file = file.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NXIO) => {
            io::Error::other("it is a FIFO that nobody reads; start its reader first")
        }
        _ => error,
    })?;
    let found = file.metadata()?;
    takes_lines(&found)?;
    if found.file_type().is_char_device() && !is_sink(&found) && !file.is_terminal() {
        return Err(refuse(&found, WANTED_OF_A_LOG));
    }
    Ok(file)
}

const WANTED_OF_A_LOG: &str = "a regular file, a FIFO or a terminal";

fn takes_lines(found: &fs::Metadata) -> io::Result<()> {
    let kind = found.file_type();
    if kind.is_file() || kind.is_fifo() || kind.is_char_device() {
        return Ok(());
    }
    Err(refuse(found, WANTED_OF_A_LOG))
}

fn is_sink(found: &fs::Metadata) -> bool {
    let device = found.rdev();
    SINKS.contains(&(rustix::fs::major(device), rustix::fs::minor(device)))
}

/// Checks that a file could be created at `path`: its directory exists, and this process may write to it.
///
/// # Errors
/// Says why not.
pub fn may_be_made(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let named =
        |error: &dyn std::fmt::Display| format!("the directory {}: {error}", folder.display());
    let found = fs::metadata(folder)
        .map_err(|error| io::Error::new(error.kind(), named(&plain(&error))))?;
    if !found.is_dir() {
        return Err(io::Error::new(
            io::ErrorKind::NotADirectory,
            named(&"it is not a directory"),
        ));
    }
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    let flags = rustix::fs::AtFlags::EACCESS;
    rustix::fs::accessat(rustix::fs::CWD, folder, access, flags).map_err(|errno| {
        let error = io::Error::from(errno);
        io::Error::new(error.kind(), named(&plain(&error)))
    })
}

/// The text of a system error without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn not_regular(path: &Path, error: io::Error) -> io::Error {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => refuse(&found, "a regular file"),
        _ => error,
    }
}

fn refuse(found: &fs::Metadata, wanted: &str) -> io::Error {
    let kind = found.file_type();
    let is = if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("it is {is}, and must be {wanted}"),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("weir-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn fifo(&self, name: &str) -> PathBuf {
            let path = self.0.join(name);
            mkfifoat(CWD, &path, Mode::from_raw_mode(0o600)).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let folder = Folder::new("read");
        let file = folder.0.join("file");
        fs::write(&file, "12345").unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"12345");
        let why = |path: &Path, max| read(path, max).unwrap_err().to_string();
        assert_eq!(why(&file, 4), "it is larger than 4B");
        let socket = folder.0.join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        for (path, is) in [
            (folder.fifo("fifo"), "a FIFO"),
            (folder.0.clone(), "a directory"),
            (socket, "a socket"),
            (PathBuf::from("/dev/zero"), "a device"),
        ] {
            assert_eq!(
                why(&path, 4),
                format!("it is {is}, and must be a regular file")
            );
        }
        assert!(read(&folder.0.join("none"), 4).is_err());
    }

    #[test]
    fn a_log_is_a_file_a_fifo_with_a_reader_or_a_terminal() {
        let folder = Folder::new("log");
        let file = folder.0.join("file");
        try_log(&file).unwrap();
        assert!(!file.exists(), "a check creates no file");
        open_log(&file).unwrap();
        assert!(file.exists());
        open_log(Path::new("/dev/null")).unwrap();
        let fifo = folder.fifo("fifo");
        let why = |path: &Path| {
            let (opened, tried) = (open_log(path).unwrap_err(), try_log(path).unwrap_err());
            assert_eq!(opened.to_string(), tried.to_string());
            opened.to_string()
        };
        assert!(why(&fifo).contains("nobody reads"));
        let _reader = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&fifo)
            .unwrap();
        open_log(&fifo).unwrap();
        assert!(why(&folder.0).contains("it is a directory"));
        assert!(why(Path::new("/dev/zero")).contains("it is a device"));
        let socket = folder.0.join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        assert!(why(&socket).contains("it is a socket"));
        let lost = folder.0.join("none/log");
        let why = try_log(&lost).unwrap_err().to_string();
        assert!(
            why.contains("the directory") && why.contains("No such file"),
            "{why}"
        );
    }
}
