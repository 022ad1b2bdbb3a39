//! File descriptors that come along with bytes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::libc;

use super::stream::message;

/// File descriptors that one frame may carry.
const FDS_MAX: usize = 3;
/// Bytes of a control message that carries them.
const CONTROL_LEN: usize = {
    // SAFETY: the macro is arithmetic on its argument.
    unsafe { libc::CMSG_SPACE((FDS_MAX * size_of::<RawFd>()) as libc::c_uint) as usize }
};

/// Room for control messages, aligned as their headers are.
#[repr(C)]
union Control {
    bytes: [u8; CONTROL_LEN],
    _header: libc::cmsghdr,
}

/// Receives without blocking, from a UNIX socket, and takes the descriptors that come along: at most three are kept, and those
/// that came first.
///
/// A peer may send more descriptors than there is room for, or more than this process can open. Then the kernel says that
/// the control message is cut off, and the ones that it has opened by then are in it all the same: so it is read to its end in
/// either case, and whatever is opened is owned, and closed if nobody takes it.
pub(super) fn receive_with_fds(
    socket: BorrowedFd<'_>,
    room: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut control = Control {
        bytes: [0; CONTROL_LEN],
    };
    let mut slice = libc::iovec {
        iov_base: room.as_mut_ptr().cast(),
        iov_len: room.len(),
    };
    let mut message = message(&mut slice, 1);
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = CONTROL_LEN;
    let flags = libc::MSG_CMSG_CLOEXEC | libc::MSG_DONTWAIT;
    // SAFETY: `slice` is exclusively borrowed room, `control` is as long as is said, and both outlive the call.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, flags) };
    let count = usize::try_from(count).map_err(|_| io::Error::from(Errno::last()))?;
    // SAFETY: the kernel has set `msg_controllen` to what it wrote of `control`, which starts aligned with a header and is not
    // touched meanwhile.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&message) };
    while !header.is_null() {
        // SAFETY: the two macros point only to headers that lie in `control` as a whole.
        let head = unsafe { ptr::read(header) };
        if (head.cmsg_level, head.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: arithmetic on constants and the address of the header.
            let (data, head_len) = unsafe {
                (
                    libc::CMSG_DATA(header).cast::<RawFd>(),
                    libc::CMSG_LEN(0) as usize,
                )
            };
            for at in 0..head.cmsg_len.saturating_sub(head_len) / size_of::<RawFd>() {
                // SAFETY: the length in the header counts the descriptors that the kernel has just opened for this process, and
                // nobody else knows them.
                let fd = unsafe { OwnedFd::from_raw_fd(ptr::read_unaligned(data.add(at))) };
                // Nobody takes more than one frame's; a peer must not be able to use up our descriptors.
                if fds.len() < FDS_MAX {
                    fds.push(fd);
                }
            }
        }
        // SAFETY: as for the first.
        header = unsafe { libc::CMSG_NXTHDR(&message, header) };
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

    use super::*;

    /// Receives what comes with `count` copies of one end of a pair, and says how many were kept and whether, once those are
    /// dropped, nobody in this process has a copy any more.
    fn receive(count: usize) -> (usize, bool) {
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        let (watched, passed) = UnixStream::pair().expect("socket pair");
        let copies = vec![passed.as_raw_fd(); count];
        let rights = [ControlMessage::ScmRights(&copies)];
        let sent = sendmsg::<UnixAddr>(
            theirs.as_raw_fd(),
            &[IoSlice::new(b"word")],
            &rights,
            MsgFlags::empty(),
            None,
        );
        assert_eq!(sent, Ok(4));
        drop(passed);
        let (mut fds, mut room) = (Vec::new(), [0; 16]);
        let received = receive_with_fds(ours.as_fd(), &mut room, &mut fds).expect("it was sent");
        assert_eq!(&room[..received], b"word");
        let kept = fds.len();
        drop(fds);
        watched.set_nonblocking(true).expect("nonblocking");
        // A socket ends once nobody has its other end any more.
        let ended = io::Read::read(&mut &watched, &mut room);
        (kept, matches!(ended, Ok(0)))
    }

    #[test]
    fn descriptors_in_excess_are_closed_however_many_there_are() {
        for (count, kept) in [(1, 1), (3, 3), (4, 3), (5, 3), (64, 3), (253, 3)] {
            assert_eq!(receive(count), (kept, true), "count={count}");
        }
    }

    #[test]
    fn descriptors_of_several_receives_are_kept_up_to_the_limit() {
        let (ours, theirs) = UnixStream::pair().expect("socket pair");
        let (mut fds, mut room) = (Vec::new(), [0; 16]);
        for kept in [2, 3, 3] {
            let copies = [theirs.as_raw_fd(); 2];
            let rights = [ControlMessage::ScmRights(&copies)];
            let bytes = [IoSlice::new(b"x")];
            sendmsg::<UnixAddr>(theirs.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None)
                .expect("sent");
            assert_eq!(
                receive_with_fds(ours.as_fd(), &mut room, &mut fds).expect("it was sent"),
                1
            );
            assert_eq!(fds.len(), kept);
        }
    }
}
