//! One thread of another process that stands still while the others go on.

use std::fs;
use std::io;
use std::marker::PhantomData;
use std::ptr;

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A thread that a debugger's means hold; dropping this lets it go on. The thread that has made it is the one that the
/// kernel knows, so it stays there.
#[derive(Debug)]
pub struct StoppedThread {
    thread: Pid,
    stays: PhantomData<*const ()>,
}

impl StoppedThread {
    /// Stops the thread of this name in a process that this one has started.
    ///
    /// # Errors
    ///
    /// Where the system does not let this user do that.
    ///
    /// # Panics
    ///
    /// If the process has no such thread.
    pub fn named(process: u32, name: &str) -> io::Result<Self> {
        let thread = thread_of(process, name);
        trace(libc::PTRACE_SEIZE, thread)?;
        // From here on dropping it detaches.
        let stopped = Self {
            thread,
            stays: PhantomData,
        };
        trace(libc::PTRACE_INTERRUPT, thread)?;
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        Ok(stopped)
    }

    /// Whether it has ended with its process. The process is not gone before somebody has asked here, because its debugger
    /// comes first.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        !matches!(
            waitpid(self.thread, Some(flags)),
            Ok(WaitStatus::StillAlive)
        )
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        if trace(libc::PTRACE_DETACH, self.thread).is_err() {
            // Its process ends, or has ended.
            let _ = waitpid(self.thread, Some(WaitPidFlag::__WALL));
        }
    }
}

fn thread_of(process: u32, name: &str) -> Pid {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("the process is there");
    let mut threads = threads.map(|entry| entry.expect("an entry").path());
    let thread = threads.find(|path| {
        fs::read_to_string(path.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    });
    let thread = thread.unwrap_or_else(|| panic!("no thread {name} in process {process}"));
    let number = thread.file_name().and_then(|it| it.to_str()?.parse().ok());
    Pid::from_raw(number.expect("its number"))
}

fn trace(request: libc::c_uint, thread: Pid) -> io::Result<()> {
    let none = ptr::null_mut::<libc::c_void>();
    // SAFETY: these requests neither read nor write memory of this process; the addresses are not used.
    let result = unsafe { libc::ptrace(request, thread.as_raw(), none, none) };
    Errno::result(result).map(drop).map_err(Into::into)
}
