//! What happens in a worker's process between fork and exec.
//!
//! Only async-signal-safe things may happen there, because another thread may have held any lock at the fork: plain
//! system calls, no allocation, no lock. An error goes to the parent as one number through the pipe of the standard
//! library, so the step that failed travels in its upper bits.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::setrlimit;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

use crate::config::{Limit, ProcessConfig};

/// Error numbers of the system are far below this.
const STEP_SHIFT: u32 = 16;

/// A key of the configuration that could not be applied in the child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FailedKey {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) errno: Errno,
}

/// The steps, prepared before the fork.
pub(super) struct Preparation {
    parent: Pid,
    connection: Option<OwnedFd>,
    cpus: Option<CpuSet>,
    nice: Option<i32>,
    limits: [Option<u64>; Limit::ALL.len()],
}

impl Preparation {
    /// The child inherits `connection`, which is `None` where its standard input is one, and dies with the calling thread.
    pub(super) fn new(config: &ProcessConfig, connection: Option<OwnedFd>) -> Self {
        let mut cpus = CpuSet::new();
        for &cpu in &config.cpus {
            // Numbers that the set has no place for were refused with the configuration.
            let _ = cpus.set(cpu);
        }
        let limit = |limit: Limit| {
            let mut limits = config.limits.iter();
            limits.find_map(|(other, value)| (*other == limit).then_some(*value))
        };
        Self {
            parent: getpid(),
            connection,
            cpus: (!config.cpus.is_empty()).then_some(cpus),
            nice: config.nice,
            limits: Limit::ALL.map(limit),
        }
    }

    /// Runs in the child.
    pub(super) fn apply(&self) -> io::Result<()> {
        // What the bridge itself was started with may lack close-on-exec; no worker is to hold on to it. Kernels before
        // 5.11 cannot do this in one call: there the descriptors of the bridge's own parent stay open.
        //
        // SAFETY: close_range with CLOSE_RANGE_CLOEXEC takes three integers, touches no memory and closes nothing; it
        // marks descriptors of this child, which owns its table since the fork.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                3,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
        }
        if let Some(connection) = &self.connection {
            fcntl(connection, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above; then nobody will send the signal any more.
        if getppid() != self.parent {
            return Err(Errno::ESRCH.into());
        }
        if let Some(cpus) = &self.cpus {
            sched_setaffinity(Pid::from_raw(0), cpus).map_err(|errno| at_step(1, errno))?;
        }
        if let Some(nice) = self.nice {
            // SAFETY: setpriority takes three integers and touches no memory.
            let set = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
            Errno::result(set).map_err(|errno| at_step(2, errno))?;
        }
        for (index, limit) in Limit::ALL.into_iter().enumerate() {
            if let Some(value) = self.limits[index] {
                setrlimit(limit.resource(), value, value)
                    .map_err(|errno| at_step(3 + index as i32, errno))?;
            }
        }
        Ok(())
    }
}

/// An error that says at which step it happened. Made from a number, so it allocates nothing.
fn at_step(step: i32, errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(step << STEP_SHIFT | errno as i32)
}

/// Which key of the configuration an error of [`Preparation::apply`] is about, if it is about one.
pub(super) fn failed_key(error: &io::Error, config: &ProcessConfig) -> Option<FailedKey> {
    let code = error.raw_os_error()?;
    let errno = Errno::from_raw(code & ((1 << STEP_SHIFT) - 1));
    let (key, value) = match usize::try_from(code >> STEP_SHIFT).ok()? {
        0 => return None,
        1 => ("cpus".to_owned(), format!("{:?}", config.cpus)),
        2 => ("nice".to_owned(), config.nice?.to_string()),
        step => {
            let limit = Limit::ALL.get(step - 3)?;
            let (_, value) = config.limits.iter().find(|(other, _)| other == limit)?;
            (format!("limits.{}", limit.key()), value.to_string())
        }
    };
    Some(FailedKey { key, value, errno })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_names_its_key_and_other_errors_none() {
        let config = ProcessConfig {
            nice: Some(-5),
            limits: vec![(Limit::Core, 0), (Limit::OpenFiles, 64)],
            ..ProcessConfig::default()
        };
        let named = |error: io::Error| failed_key(&error, &config);
        let failed = |key: &str, value: &str, errno| FailedKey {
            key: key.to_owned(),
            value: value.to_owned(),
            errno,
        };
        assert_eq!(
            named(at_step(2, Errno::EACCES)),
            Some(failed("nice", "-5", Errno::EACCES))
        );
        let open_files = Limit::ALL
            .iter()
            .position(|limit| *limit == Limit::OpenFiles);
        let step = 3 + open_files.expect("a limit") as i32;
        assert_eq!(
            named(at_step(step, Errno::EPERM)),
            Some(failed("limits.open_files", "64", Errno::EPERM))
        );
        assert_eq!(named(io::Error::from_raw_os_error(libc::ENOENT)), None);
        assert_eq!(named(io::ErrorKind::NotFound.into()), None);
    }
}
