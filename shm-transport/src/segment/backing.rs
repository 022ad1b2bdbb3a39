//! The file behind a segment: a memory file, or a nameless file in a directory.

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl, posix_fallocate};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::options::{Backing, Degraded};
use crate::disable::is_disabled;
use crate::error::{CreateError, OpenError};

const NAME: &CStr = c"mycelium-segment";
pub(super) const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW);
/// Names tried for a file that has one for a moment.
const NAME_ATTEMPTS: u32 = 16;

/// A file of the right length with all its memory, not yet sealed.
pub(super) struct NewFile {
    pub(super) fd: OwnedFd,
    pub(super) can_be_sealed: bool,
    /// That it is a memory file although another was asked for.
    pub(super) degraded: Option<Degraded>,
}

/// Makes the file, sized in full.
pub(super) fn create(backing: &Backing, len: usize) -> Result<NewFile, CreateError> {
    let mut degraded = None;
    if let Backing::File { directory } = backing {
        match create_nameless(directory) {
            Ok(file) => {
                let fd = OwnedFd::from(file);
                allocate(&fd, len, Some(directory))?;
                return Ok(NewFile {
                    fd,
                    can_be_sealed: false,
                    degraded: None,
                });
            }
            Err(error) => {
                let directory = directory.display();
                let reason = format!(
                    "no file in directory={directory}: {error}; name one that exists and is writable"
                );
                degraded = Some(Degraded {
                    option: "backing",
                    reason,
                });
            }
        }
    }
    let fd = create_memfd().map_err(|source| CreateError::Memfd { source })?;
    allocate(&fd, len, None)?;
    Ok(NewFile {
        fd,
        can_be_sealed: true,
        degraded,
    })
}

fn create_memfd() -> io::Result<OwnedFd> {
    if is_disabled("memfd") {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "switched off by MYCELIUM_DISABLE=memfd",
        ));
    }
    Ok(memfd_create(
        NAME,
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?)
}

/// A file that never had a name, or, where the file system has no such files, lost it at once.
fn create_nameless(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    match options
        .clone()
        .custom_flags(libc::O_TMPFILE)
        .open(directory)
    {
        Ok(file) => return Ok(file),
        // Which of these it is depends on the file system and the kernel.
        Err(error)
            if [libc::EOPNOTSUPP, libc::EISDIR, libc::EINVAL]
                .contains(&error.raw_os_error().unwrap_or(0)) => {}
        Err(error) => return Err(error),
    }
    options.create_new(true).custom_flags(libc::O_NOFOLLOW);
    for attempt in 0..NAME_ATTEMPTS {
        let name = format!(".mycelium-segment-{}-{attempt}", std::process::id());
        let path = directory.join(name);
        match options.open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Gives the file its length and its memory. A signal in the middle is no lack of space.
fn allocate(fd: &OwnedFd, len: usize, directory: Option<&Path>) -> Result<(), CreateError> {
    loop {
        match posix_fallocate(fd, 0, len as i64) {
            Ok(()) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => {
                return Err(CreateError::NoSpace {
                    len,
                    place: directory.map_or_else(
                        || "memory".to_owned(),
                        |directory| directory.display().to_string(),
                    ),
                    source: errno.into(),
                });
            }
        }
    }
}

/// Seals a memory file against shrinking, growing, and further seals.
pub(super) fn seal(fd: &OwnedFd) -> nix::Result<()> {
    let seals = SEALS | SealFlag::F_SEAL_SEAL;
    fcntl(fd, FcntlArg::F_ADD_SEALS(seals)).map(drop)
}

/// Whether a file that another process passed keeps its length for good. An error if it does not and this process has
/// no reason to trust whoever made it.
///
/// A file that cannot be sealed is taken if it belongs to the own user or to root: they can end this process anyway.
/// A memory file that could have been sealed, and was not, is refused.
pub(super) fn check_seals(fd: &OwnedFd) -> Result<bool, OpenError> {
    let io_error = |step| move |source: io::Error| OpenError::Io { step, source };
    let seals = match fcntl(fd, FcntlArg::F_GET_SEALS) {
        Ok(seals) => seals,
        // No file system but those in memory has seals.
        Err(Errno::EINVAL) => SealFlag::F_SEAL_SEAL.bits(),
        Err(errno) => return Err(io_error("seals")(errno.into())),
    };
    if seals & SEALS.bits() == SEALS.bits() {
        return Ok(true);
    }
    let invalid = |field, value, expected: String| {
        Err(OpenError::Invalid {
            field,
            value,
            expected,
        })
    };
    if seals != SealFlag::F_SEAL_SEAL.bits() {
        return invalid(
            "seals",
            seals as u64,
            "shrink and grow sealed, so that no access can fault".into(),
        );
    }
    let copy = fd.as_fd().try_clone_to_owned().map_err(io_error("fstat"))?;
    let metadata = File::from(copy).metadata().map_err(io_error("fstat"))?;
    if !metadata.is_file() {
        return invalid("file type", metadata.mode().into(), "a regular file".into());
    }
    let own = nix::unistd::geteuid().as_raw();
    if ![0, own].contains(&metadata.uid()) {
        return invalid(
            "owner",
            metadata.uid().into(),
            format!(
                "{own:#x} (this user) or 0x0, as the file is not sealed and its owner could cut it off"
            ),
        );
    }
    Ok(false)
}
