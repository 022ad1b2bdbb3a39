//! A cross-process wakeup over an eventfd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// A cross-process wakeup: one side owns it and waits, the other has a copy and notifies.
///
/// # Guarantees
///
/// A [`Doorbell::notify`] that happens before a wait is not lost: the wait returns at once. Several notifications may
/// come together as one. A wakeup without a cause is possible; always look again after waking.
///
/// # Implementation notes
///
/// An eventfd in non-blocking mode. A notify is one `write`, a drain one `read`.
#[derive(Debug)]
pub struct Doorbell {
    fd: OwnedFd,
}

impl Doorbell {
    /// A new doorbell. Costs one system call and one file descriptor.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptors left, or the kernel no memory.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { fd: event.into() })
    }

    /// A doorbell that was received from the peer.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Another handle on the same doorbell.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
        })
    }

    /// Wakes the owner, now or when it next waits. One system call; never blocks.
    ///
    /// # Errors
    ///
    /// Only if the file descriptor is not a doorbell. A counter that is full already stands for a wakeup.
    pub fn notify(&self) -> io::Result<()> {
        loop {
            match nix::unistd::write(&self.fd, &1_u64.to_ne_bytes()) {
                Ok(_) | Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Takes pending notifications back, so that the next wait waits. One system call; never blocks.
    ///
    /// # Errors
    ///
    /// Only if the file descriptor is not a doorbell.
    pub fn drain(&self) -> io::Result<()> {
        let mut counter = [0_u8; 8];
        loop {
            match nix::unistd::read(&self.fd, &mut counter) {
                Ok(_) | Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Doorbell {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn is_ringing(doorbell: &Doorbell) -> bool {
        let mut fds = [PollFd::new(doorbell.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).expect("poll") == 1
    }

    #[test]
    fn a_notification_before_the_wait_is_kept_and_many_are_drained_at_once() {
        let owner = Doorbell::new().expect("eventfd");
        let peer = owner.try_clone().expect("dup");
        assert!(!is_ringing(&owner));
        peer.notify().expect("notify");
        peer.notify().expect("notify");
        assert!(is_ringing(&owner));
        owner.drain().expect("drain");
        assert!(!is_ringing(&owner));
        owner.drain().expect("an empty doorbell drains too");
    }
}
