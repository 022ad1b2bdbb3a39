//! What ends the descendants of workers when the bridge itself is killed.
//!
//! The kernel kills the workers themselves (`PR_SET_PDEATHSIG`), but not what they have started. So the program starts a
//! second process of its own file, which waits for the end of a pipe: whatever becomes of the bridge, the kernel closes
//! it. Then the guard ends all that still carries the bridge's mark ([`super::tree`]), and itself. It knows nothing
//! else, and if it is killed, too, only what workers have started in other processes can be left over.

use std::io::{self, Read, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigHandler, Signal, signal};

use super::tree::{kill_marked, mark_of_this_process};

/// The command of the program that runs [`stand_guard`], with the mark behind it.
pub const GUARD_COMMAND: &str = "guard";

/// How long the end of the guard is waited for; it has to look at every process once.
const GUARD_END: Duration = Duration::from_secs(1);

/// The running guard. Dropping it lets it go, after one look at whether anything was left over.
#[derive(Debug)]
pub(crate) struct Guard {
    process: Child,
}

impl Guard {
    /// Starts the guard, which outlives this process by a moment. Only for the program `mycelium-bridge`: its own file
    /// is started again.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub(crate) fn start() -> io::Result<Self> {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new("/proc/self/exe");
        command
            .args([GUARD_COMMAND, mark_of_this_process()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // What ends the bridge's group, such as an interrupt from the terminal, is not for the guard.
            .process_group(0);
        Ok(Self {
            process: command.spawn()?,
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let begin = Instant::now();
        // Otherwise it ends a moment after the bridge, which does no harm.
        while begin.elapsed() < GUARD_END && matches!(self.process.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The guard itself: waits until standard input ends, then kills whatever carries a mark that begins with `mark`.
/// Returns how many there were.
pub fn stand_guard(mark: &str) -> usize {
    for ignored in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: to ignore a signal installs no handler, so there is nothing that could run in its context.
        if let Err(error) = unsafe { signal(ignored, SigHandler::SigIgn) } {
            let _ = writeln!(io::stderr(), "guard cannot ignore {ignored}: {error}");
        }
    }
    let mut byte = [0];
    // The bridge never writes; an error means as much as the end.
    while matches!(io::stdin().read(&mut byte), Ok(1..)) {}
    kill_marked(mark)
}
