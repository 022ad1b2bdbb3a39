//! The heavy fence of the parking protocol.
//!
//! Whoever parks stores its flag, runs the heavy fence and looks again; whoever commits then needs only a compiler
//! fence before it loads the flag. `membarrier(MEMBARRIER_CMD_GLOBAL_EXPEDITED)` makes every running thread of every
//! registered process pass a full memory barrier, so it stands in for the fence that the committing side leaves out.
//! See membarrier(2), <https://man7.org/linux/man-pages/man2/membarrier.2.html>.

use std::sync::OnceLock;
use std::sync::atomic::{Ordering, fence};

use nix::libc;

use crate::disable::is_disabled;

fn membarrier(command: libc::c_int) -> libc::c_long {
    // SAFETY: membarrier takes three integers, touches no memory of the caller, and answers -1 where it is missing.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }
}

/// Whether this process can run the heavy fence and is registered for those of others. The first call registers.
#[must_use]
pub fn is_available() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| {
        let wanted =
            libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED | libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED;
        let supported = membarrier(libc::MEMBARRIER_CMD_QUERY);
        !is_disabled("membarrier")
            && supported >= 0
            && supported & libc::c_long::from(wanted) == libc::c_long::from(wanted)
            && membarrier(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED) == 0
    })
}

/// Orders the caller's earlier parked flag before its later looks at the ring, also against peers that run only a
/// compiler fence. Costs one system call, which interrupts the running threads of registered processes, where
/// `membarrier` is available, and a full fence elsewhere.
pub fn heavy_fence() {
    fence(Ordering::SeqCst);
    if is_available() {
        let outcome = membarrier(libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED);
        debug_assert_eq!(outcome, 0, "membarrier worked at registration");
        fence(Ordering::SeqCst);
    }
}
