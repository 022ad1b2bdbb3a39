//! A cross-process wakeup over an eventfd or a pair of sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use nix::sys::stat::{SFlag, fstat};

/// A cross-process wakeup: one side owns it and waits, the other has a copy and notifies.
///
/// # Guarantees
///
/// A [`Doorbell::notify`] that happens before a wait is not lost: the wait returns at once. Several notifications may
/// come together as one. A wakeup without a cause is possible; always look again after waking.
///
/// # Implementation notes
///
/// [`Doorbell::new`] is an eventfd in non-blocking mode, which both sides share. Whoever shares it can make it blocking and
/// fill its counter, and then a notify waits for as long as that side likes. So a side that must not trust the one that it wakes
/// uses [`Doorbell::pair`], two connected datagram sockets: each side can change its own only, and the notify says with the
/// call itself that it does not wait. A notify of a pair costs about half a microsecond more.
#[derive(Debug)]
pub struct Doorbell {
    fd: OwnedFd,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Event,
    Socket,
}

impl Doorbell {
    /// A new doorbell, for two sides that trust each other, or whose owner does not mind being waited for. Costs one
    /// system call and one file descriptor.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptors left, or the kernel no memory.
    pub fn new() -> io::Result<Self> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self {
            fd: event.into(),
            kind: Kind::Event,
        })
    }

    /// A new doorbell in two parts: the first notifies, the second is given to the one who waits. Whatever that one does
    /// with his part, a notify does not block. Costs one system call and two file descriptors.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptors left, or the kernel no memory.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (notify, wait) = socketpair(
            AddressFamily::Unix,
            SockType::Datagram,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )?;
        let part = |fd| Self {
            fd,
            kind: Kind::Socket,
        };
        Ok((part(notify), part(wait)))
    }

    /// A doorbell that was received from the peer.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        let is_socket = fstat(&fd).is_ok_and(|stat| {
            SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFSOCK
        });
        let kind = if is_socket { Kind::Socket } else { Kind::Event };
        Self { fd, kind }
    }

    /// Another handle on the same doorbell.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
            kind: self.kind,
        })
    }

    /// Wakes the owner, now or when it next waits. One system call. Never blocks, unless the one who waits shares a doorbell
    /// of [`Doorbell::new`] and means harm.
    ///
    /// # Errors
    ///
    /// Only if the file descriptor is not a doorbell, or the one who waits has broken it. A doorbell that is full already
    /// stands for a wakeup.
    pub fn notify(&self) -> io::Result<()> {
        let one = 1_u64.to_ne_bytes();
        loop {
            let sent = match self.kind {
                Kind::Event => nix::unistd::write(&self.fd, &one),
                Kind::Socket => send(
                    self.fd.as_raw_fd(),
                    &one,
                    MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
                ),
            };
            match sent {
                Ok(_) | Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Undoes what a peer that is gone may have done to a doorbell of [`Doorbell::new`] that it shared: one that is full wakes
    /// nobody, and one that blocks holds up who rings it. Two system calls.
    ///
    /// # Errors
    ///
    /// Only if the file descriptor is not a doorbell.
    pub fn reset(&self) -> io::Result<()> {
        fcntl(&self.fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        self.drain()
    }

    /// Takes pending notifications back, so that the next wait waits; of a pair one at a time, so that a later wait may
    /// find an old one. One system call; never blocks as long as the descriptor is non-blocking.
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

/// Notifications that one call of [`Doorbell::drain_all`] takes back at most.
#[cfg(feature = "tokio")]
const DRAINED_AT_ONCE: u32 = 64;

#[cfg(feature = "tokio")]
impl Doorbell {
    /// Takes every pending notification back, for whoever is told of *new* ones only: a pair that is full takes none. Says
    /// whether nothing is left; somebody who rings without end is not listened to for ever.
    ///
    /// # Errors
    ///
    /// Only if the file descriptor is not a doorbell.
    pub(crate) fn drain_all(&self) -> io::Result<bool> {
        let mut counter = [0_u8; 8];
        for _ in 0..DRAINED_AT_ONCE {
            match nix::unistd::read(&self.fd, &mut counter) {
                Err(Errno::EAGAIN) => return Ok(true),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(false)
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
    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

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

    #[test]
    fn a_pair_keeps_a_notification_and_is_recognised_by_its_descriptor() {
        let (notify, wait) = Doorbell::pair().expect("socket pair");
        let wait = Doorbell::from_fd(wait.fd);
        assert_eq!(wait.kind, Kind::Socket);
        assert!(!is_ringing(&wait));
        notify.notify().expect("notify");
        notify.try_clone().expect("dup").notify().expect("notify");
        assert!(is_ringing(&wait));
        wait.drain().expect("drain");
        wait.drain().expect("drain");
        assert!(!is_ringing(&wait));
        wait.drain().expect("an empty doorbell drains too");
    }
    #[test]
    fn a_full_and_blocking_doorbell_wakes_whoever_waits_for_an_edge_once_it_is_reset() {
        let owner = Doorbell::new().expect("eventfd");
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll");
        let edge = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 7);
        epoll.add(&owner, edge).expect("add");
        let rung = || {
            let mut events = [EpollEvent::empty()];
            epoll
                .wait(&mut events, EpollTimeout::ZERO)
                .expect("epoll_wait")
                == 1
        };
        let hostile = owner.try_clone().expect("dup");
        nix::unistd::write(&hostile.fd, &(u64::MAX - 1).to_ne_bytes()).expect("fill it");
        assert!(rung());
        owner.notify().expect("a full doorbell stands for a wakeup");
        assert!(!rung(), "nobody is woken by it");
        fcntl(&hostile.fd, FcntlArg::F_SETFL(OFlag::empty())).expect("make it blocking");

        owner.reset().expect("reset");
        owner.reset().expect("an empty one does not block");
        owner.notify().expect("notify");
        assert!(rung());
    }
}
