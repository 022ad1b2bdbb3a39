//! A process that never sleeps never runs the heavy fence, and still has to be reached by that of its peer.

use nix::libc;
use shm_transport::channel::LinkEnds;
use shm_transport::ring::{Fencing, RingMemory};
use shm_transport::wakeup::{Doorbell, membarrier_is_available};

/// What this process is registered for, as the kernel says since 6.3; `None` before that.
fn registrations() -> Option<libc::c_long> {
    const MEMBARRIER_CMD_GET_REGISTRATIONS: libc::c_int = 1 << 9;
    // SAFETY: membarrier takes three integers and touches no memory of the caller.
    let known =
        unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GET_REGISTRATIONS, 0, 0) };
    (known >= 0).then_some(known)
}

#[test]
fn whoever_attaches_with_asymmetric_fencing_is_registered_for_the_fence_of_the_peer() {
    let wanted = libc::c_long::from(libc::MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED);
    let before = registrations();
    assert_eq!(before.unwrap_or(0) & wanted, 0, "nobody has registered yet");
    let ring = || RingMemory::heap(4096).expect("heap ring");
    let doorbell = || Doorbell::new().expect("doorbell");
    let attached = LinkEnds::attach(ring(), ring(), doorbell(), doorbell(), Fencing::Asymmetric);
    let after = registrations();
    assert_eq!(attached.is_ok(), membarrier_is_available(), "{attached:?}");
    if let (Ok(_), Some(after)) = (&attached, after) {
        assert_eq!(after & wanted, wanted, "registrations={after:#x}");
    }
}
