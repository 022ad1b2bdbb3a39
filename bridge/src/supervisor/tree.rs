//! Ending everything that a worker has started, also what has left its process group.
//!
//! Whatever a process starts inherits its environment. So each worker gets a variable with a value that nobody else
//! has, and whoever carries it is the worker's. A process that clears its environment *and* leaves the group, or one
//! whose environment this user may not read (because it runs as another), is not found. No privilege is needed, and
//! nothing has to be the parent of anything, so it works inside a host that has other children, and from outside the
//! bridge, too.

use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

/// Variable that every worker and all that it starts carry.
pub const ENV_TREE: &str = "MYCELIUM_TREE";

/// Looks at all processes until none is found. One that starts others while it is looked for is behind after a few.
const ROUNDS_MAX: usize = 50;

/// Time for the kernel to take killed processes apart before the next look.
const ROUND_PAUSE: Duration = Duration::from_millis(2);

/// What all workers of this process have in common: nobody else's begins so.
pub(crate) fn mark_of_this_process() -> &'static str {
    static MARK: OnceLock<String> = OnceLock::new();
    MARK.get_or_init(|| {
        let random = RandomState::new().hash_one(std::process::id());
        format!("{}-{random:016x}.", std::process::id())
    })
}

/// A value of [`ENV_TREE`] for one more worker process.
pub(crate) fn next_mark() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // The end is marked, so that no mark is the begin of another.
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{}{number};", mark_of_this_process())
}

/// Kills every process whose mark begins so, and returns how many there were. Reads the environment of every process of
/// this user: some 20 µs each.
pub(crate) fn kill_marked(mark: &str) -> usize {
    let wanted = format!("{ENV_TREE}={mark}").into_bytes();
    // One that is killed can be seen once more before the kernel has taken it apart.
    let mut killed = HashSet::new();
    for round in 0..ROUNDS_MAX {
        if round > 0 {
            std::thread::sleep(ROUND_PAUSE);
        }
        let Ok(processes) = fs::read_dir("/proc") else {
            break;
        };
        let found: Vec<i32> = processes
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| kill_if_marked(*pid, &wanted))
            .collect();
        if found.is_empty() {
            break;
        }
        killed.extend(found);
    }
    killed.len()
}

/// Whether the process carries the mark and has been sent SIGKILL.
fn kill_if_marked(pid: i32, wanted: &[u8]) -> bool {
    if pid.cast_unsigned() == std::process::id() {
        return false;
    }
    // Opened first: then the signal goes to the process whose environment was read, even if the number changes hands.
    let Ok(process) = open_process(pid) else {
        return false;
    };
    let environment = fs::read(Path::new("/proc").join(pid.to_string()).join("environ"));
    let is_marked = environment.is_ok_and(|environment| {
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable.starts_with(wanted))
    });
    is_marked && kill_process(&process).is_ok()
}

/// A descriptor of a process, which becomes readable when it ends.
///
/// # Errors
///
/// If there is no such process, or the kernel is older than 5.3, or a seccomp profile forbids it.
pub(super) fn open_process(pid: i32) -> io::Result<OwnedFd> {
    let pid: libc::c_long = pid.into();
    // SAFETY: pidfd_open takes a process id and flags by value and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0 as libc::c_long) };
    let fd = i32::try_from(Errno::result(fd)?).map_err(|_| io::Error::from(Errno::EBADF))?;
    // SAFETY: the call above has just returned this descriptor to us, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn kill_process(process: &OwnedFd) -> io::Result<()> {
    let fd: libc::c_long = process.as_raw_fd().into();
    // SAFETY: pidfd_send_signal takes a descriptor, a signal, a pointer to details that may be null, and flags; it
    // touches no memory of ours.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd,
            libc::c_long::from(libc::SIGKILL),
            std::ptr::null::<libc::siginfo_t>(),
            0 as libc::c_long,
        )
    };
    Errno::result(sent)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn marks_are_unique_and_none_begins_another() {
        let marks: Vec<_> = (0..20).map(|_| next_mark()).collect();
        for (index, mark) in marks.iter().enumerate() {
            assert!(mark.starts_with(mark_of_this_process()));
            let others = marks
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index);
            assert!(
                others
                    .into_iter()
                    .all(|(_, other)| !other.starts_with(mark.as_str()))
            );
        }
    }

    #[test]
    fn only_who_carries_the_mark_is_killed() {
        let sleeper = |mark: &str| {
            let mut command = Command::new("sleep");
            command.arg("1000").env(ENV_TREE, mark).stdin(Stdio::null());
            command.spawn().expect("sleep")
        };
        let (mark, other) = (next_mark(), next_mark());
        let mut ours = sleeper(&mark);
        let mut theirs = sleeper(&other);
        assert_eq!(kill_marked(&mark), 1);
        let status = ours.wait().expect("its end");
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(9)
        );
        assert!(theirs.try_wait().expect("its state").is_none());
        assert_eq!(kill_marked(&other), 1);
        theirs.wait().expect("its end");
        assert_eq!(kill_marked(&mark), 0);
    }
}
