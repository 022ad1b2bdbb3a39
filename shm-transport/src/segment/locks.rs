//! One process per end of a shared ring, also across processes.
//!
//! Each end of each ring has one byte of the segment file, and whoever attaches an end holds a lock on its byte. The locks
//! are those of an open file description (`F_OFD_SETLK`, see fcntl_locking(2)): the kernel drops them with the last
//! descriptor, so a killed process leaves none behind. A descriptor that was passed over a socket shares the sender's
//! description, and with it the sender's locks; so every process opens the file anew, through `/proc/self/fd`.
//!
//! The lock says nothing about the bytes of the file, and a process that ignores it can still write there. It keeps
//! mistakes from corrupting a ring; a hostile peer can garble its own link in other ways, too.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::ring::{Claims, End};

/// Time between two looks at a lock that a predecessor still holds.
const RETRY: Duration = Duration::from_millis(1);

/// The locks of one process on one segment.
#[derive(Debug)]
pub(super) struct EndLocks {
    /// The segment file under a description of its own.
    file: File,
}

impl EndLocks {
    /// Opens the file anew.
    ///
    /// # Errors
    ///
    /// If there is no `/proc`, or it does not let this process open its own descriptor.
    pub(super) fn open(segment: BorrowedFd<'_>) -> io::Result<Self> {
        let path = format!("/proc/self/fd/{}", segment.as_raw_fd());
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self { file })
    }

    /// The locks of ring `number`.
    pub(super) fn of_ring(self: Arc<Self>, number: usize, patience: Duration) -> Box<dyn Claims> {
        Box::new(RingClaims {
            locks: self,
            number,
            patience,
        })
    }

    pub(super) fn set(&self, byte: usize, kind: libc::c_int) -> nix::Result<()> {
        let lock = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: byte as libc::off_t,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&self.file, FcntlArg::F_OFD_SETLK(&lock)).map(drop)
    }
}

#[derive(Debug)]
struct RingClaims {
    locks: Arc<EndLocks>,
    number: usize,
    patience: Duration,
}

impl RingClaims {
    /// The byte of the file that stands for an end. Python's SDK uses the same.
    fn byte(&self, end: End) -> usize {
        2 * self.number + usize::from(end == End::Consumer)
    }
}

impl Claims for RingClaims {
    fn take(&self, end: End) -> bool {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.locks.set(self.byte(end), libc::F_WRLCK) {
                Ok(()) => return true,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    if Instant::now() >= deadline {
                        return false;
                    }
                    std::thread::sleep(RETRY);
                }
                Err(errno) => {
                    // No lock is to be had here, which is no reason to refuse the link.
                    tracing::warn!(%errno, "a second process on one end of a ring will not be noticed: the segment cannot be locked");
                    return true;
                }
            }
        }
    }

    fn give_back(&self, end: End) {
        // Unlocking a byte fails only where locking it did.
        let _ = self.locks.set(self.byte(end), libc::F_UNLCK);
    }
}
