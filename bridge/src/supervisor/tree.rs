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
/// this user: some 25 µs each.
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
        let mut is_last = true;
        for process in processes.flatten() {
            let pid = process.file_name().to_str().and_then(|it| it.parse().ok());
            match pid.map_or(Found::Stranger, |pid| kill_if_marked(pid, &wanted)) {
                Found::Stranger => continue,
                Found::Killed(pid) => _ = killed.insert(pid),
                Found::Unknown => {}
            }
            is_last = false;
        }
        if is_last {
            break;
        }
    }
    killed.len()
}

/// What a look at a process has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// It carried the mark and has been sent SIGKILL.
    Killed(i32),
    /// It is in the middle of an `exec`: its whole environment is to be seen in a moment.
    Unknown,
    /// It does not carry the mark, or has ended, or is none of this user's.
    Stranger,
}

fn kill_if_marked(pid: i32, wanted: &[u8]) -> Found {
    if pid.cast_unsigned() == std::process::id() {
        return Found::Stranger;
    }
    // Opened first: then the signal goes to the process whose environment was read, even if the number changes hands.
    let Ok(process) = open_process(pid) else {
        return Found::Stranger;
    };
    let directory = Path::new("/proc").join(pid.to_string());
    let Ok(environment) = fs::read(directory.join("environ")) else {
        return Found::Stranger;
    };
    let mut variables = environment.split(|byte| *byte == 0);
    if variables.any(|variable| variable.starts_with(wanted)) {
        return match kill_process(&process) {
            Ok(()) => Found::Killed(pid),
            Err(_) => Found::Stranger,
        };
    }
    let stat = fs::read_to_string(directory.join("stat"));
    match stat.is_ok_and(|stat| may_have_shown_less(&stat, environment.len())) {
        true => Found::Unknown,
        false => Found::Stranger,
    }
}

/// Whether a process of which `bytes` of environment were read may have more, by its `/proc/PID/stat`. `exec` gives a
/// process new memory first, tells the kernel later where in it the environment lies, and where the program lies last;
/// until then there is nothing to read, and who reads the old memory finds it end anywhere. A process without memory
/// has ended, or is the kernel's.
fn may_have_shown_less(stat: &str, bytes: usize) -> bool {
    // The name, in brackets, may hold anything. What follows begins with field 3 of proc(5).
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let field = |number: usize| -> u64 {
        let field = fields.split_ascii_whitespace().nth(number - 3);
        field.and_then(|it| it.parse().ok()).unwrap_or(0)
    };
    let (memory, program) = (field(23), field(26));
    let (begin, end) = (field(50), field(51));
    let is_whole = program != 0 && end.checked_sub(begin) == u64::try_from(bytes).ok();
    memory != 0 && !is_whole
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
    use std::io::Read;
    use std::process::{Child, Command, Stdio};

    use nix::sys::wait::{Id, WaitPidFlag, waitid};

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

    /// Starts a process that sleeps and waits until it does: `spawn` may return while the child still has the memory, and
    /// so the environment, of this process.
    fn sleeper(prepare: impl FnOnce(&mut Command) -> &mut Command) -> Child {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo; exec /bin/sleep 1000"]);
        started(prepare(&mut command))
    }

    /// Starts a process and waits for its first line.
    fn started(command: &mut Command) -> Child {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a shell");
        let output = child.stdout.as_mut().expect("a pipe");
        output.read_exact(&mut [0]).expect("a line");
        child
    }

    /// Looks until there is something to see.
    fn look(pid: u32, wanted: &[u8]) -> Found {
        let pid = i32::try_from(pid).expect("a process id");
        let looks = std::iter::repeat_with(|| kill_if_marked(pid, wanted));
        let mut seen = looks.take(1_000_000).skip_while(|it| *it == Found::Unknown);
        seen.next().expect("an exec that ends")
    }

    #[test]
    fn who_is_in_the_middle_of_an_exec_does_not_escape() {
        let mark = next_mark();
        let wanted = format!("{ENV_TREE}={mark}").into_bytes();
        for _ in 0..100 {
            let mut command = Command::new("/bin/sh");
            let command = command.args(["-c", "echo; exec /bin/sh -c \"$AGAIN\""]);
            command.env("AGAIN", "exec /bin/sh -c \"$AGAIN\"");
            let mut child = started(command.env(ENV_TREE, &mark));
            let found = look(child.id(), &wanted);
            child.kill().expect("still ours");
            child.wait().expect("its end");
            assert!(matches!(found, Found::Killed(_)), "{found:?}");
        }
    }

    #[test]
    fn who_has_no_environment_is_not_waited_for() {
        let mut bare = sleeper(|it| it.env_clear());
        assert_eq!(look(bare.id(), b"x"), Found::Stranger);
        bare.kill().expect("still ours");
        // It has ended and is not waited for yet.
        let pid = nix::unistd::Pid::from_raw(bare.id().cast_signed());
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(pid), flags).expect("its end");
        assert_eq!(look(bare.id(), b"x"), Found::Stranger);
        bare.wait().expect("its end");
    }

    #[test]
    fn the_state_of_a_process_tells_whether_its_environment_is_whole() {
        let stat = |memory: u64, program: u64, begin: u64, end: u64| {
            let field = |number| match number {
                23 => memory,
                26 => program,
                50 => begin,
                51 => end,
                _ => 7,
            };
            let fields: Vec<_> = (4..=52).map(|it| field(it).to_string()).collect();
            format!("12 (a ) S (b) R {}\n", fields.join(" "))
        };
        assert!(!may_have_shown_less(&stat(4096, 1, 1000, 1007), 7));
        assert!(!may_have_shown_less(&stat(4096, 1, 1000, 1000), 0));
        // The exec that is not over.
        assert!(may_have_shown_less(&stat(4096, 0, 0, 0), 0));
        assert!(may_have_shown_less(&stat(4096, 0, 1000, 0), 0));
        assert!(may_have_shown_less(&stat(4096, 0, 1000, 1000), 0));
        // The exec that was over before the state was read.
        assert!(may_have_shown_less(&stat(4096, 1, 1000, 1007), 0));
        assert!(may_have_shown_less(&stat(4096, 1, 1000, 1007), 6));
        // The end.
        assert!(!may_have_shown_less(&stat(0, 0, 0, 0), 0));
        assert!(!may_have_shown_less("", 0));
    }

    #[test]
    fn only_who_carries_the_mark_is_killed() {
        let (mark, other) = (next_mark(), next_mark());
        let mut ours = sleeper(|it| it.env(ENV_TREE, &mark));
        let mut theirs = sleeper(|it| it.env(ENV_TREE, &other));
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
