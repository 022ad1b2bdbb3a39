//! Who connects, and whether that user may.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, sockopt};

/// Who is at the other end of a connection, as the kernel saw it when the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process; 0 where it is not visible from here.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl PeerCredentials {
    /// Asks the kernel (SO_PEERCRED); one system call.
    ///
    /// # Errors
    /// What the system said; a connected UNIX stream socket always has credentials.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = getsockopt(stream, sockopt::PeerCredentials)?;
        Ok(Self {
            pid: credentials.pid(),
            uid: credentials.uid(),
            gid: credentials.gid(),
        })
    }

    /// Checks the user against the allow-list. Nobody is allowed implicitly, not even root.
    ///
    /// # Errors
    /// [`NotAllowed`] with both sides.
    pub fn check(self, allowed_uids: &[u32]) -> Result<(), NotAllowed> {
        if allowed_uids.contains(&self.uid) {
            return Ok(());
        }
        Err(NotAllowed {
            credentials: self,
            allowed_uids: allowed_uids.to_vec(),
        })
    }
}

/// The user of a peer is not on the allow-list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAllowed {
    /// Who tried.
    pub credentials: PeerCredentials,
    /// Who may.
    pub allowed_uids: Vec<u32>,
}

impl fmt::Display for NotAllowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PeerCredentials { pid, uid, .. } = self.credentials;
        let allowed = &self.allowed_uids;
        write!(
            f,
            "user is not allowed to connect: uid={uid}, pid={pid}, allowed_uids={allowed:?}; add it to allowed_uids"
        )
    }
}

impl std::error::Error for NotAllowed {}
