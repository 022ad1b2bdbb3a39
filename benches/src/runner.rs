//! Runs one case in a process of its own, and builds the program that measures the rivals.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use mycelium_bench_harness::Sample;
use mycelium_bench_harness::cores::Cores;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::catalog::{Case, Program};

/// A case that is not done by then hangs.
const WATCHDOG: Duration = Duration::from_secs(120);

/// Knows the programs, and how to call them.
#[derive(Debug)]
pub struct Runner {
    ours: PathBuf,
    rivals: Result<PathBuf, String>,
    cores: Cores,
}

impl Runner {
    /// Finds this program. Cases of the rivals fail with the reason given if their program is not to be had.
    ///
    /// # Errors
    ///
    /// If the path of this program cannot be told.
    pub fn new(rivals: Result<PathBuf, String>, cores: Cores) -> Result<Self, String> {
        let ours = std::env::current_exe().map_err(|error| format!("this program: {error}"))?;
        Ok(Self {
            ours,
            rivals,
            cores,
        })
    }

    /// Runs a case once.
    ///
    /// # Errors
    ///
    /// What the case said when it failed, or that it hung.
    pub fn run(&self, case: &Case, millis: u64) -> Result<Sample, String> {
        self.run_under(&[], case, millis)
    }

    /// Runs a case once under another program, which is given with its arguments.
    ///
    /// # Errors
    ///
    /// As [`Runner::run`].
    pub fn run_under(&self, wrapper: &[&str], case: &Case, millis: u64) -> Result<Sample, String> {
        let program = match case.program {
            Program::Ours => &self.ours,
            Program::Rivals => self.rivals.as_ref().map_err(Clone::clone)?,
        };
        let mut command = match wrapper {
            [] => Command::new(program),
            [wrapper, arguments @ ..] => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(program);
                command
            }
        };
        command
            .args(["case", case.carrier])
            .args(["--measure", case.measure.name()])
            .args(["--waiting", case.waiting.name()])
            .args(["--payload", &case.payload.to_string()])
            .args(["--millis", &millis.to_string()])
            .args(["--cores", &self.cores.to_string()]);
        let line = output(&mut command)?;
        serde_json::from_str(line.trim()).map_err(|error| format!("no sample: {error}: {line:?}"))
    }
}

/// Standard output of a command that ends well in time; else what it said.
fn output(command: &mut Command) -> Result<String, String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("start {:?}: {error}", command.get_program()))?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let (done, is_done) = mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let timed_out = is_done.recv_timeout(WATCHDOG) == Err(mpsc::RecvTimeoutError::Timeout);
        // The process is not reaped before `done` is dropped, so the number is still its own.
        timed_out && kill(pid, Signal::SIGKILL).is_ok()
    });
    let (mut text, mut complaint) = (String::new(), String::new());
    let read = match (&mut child.stdout, &mut child.stderr) {
        // What goes to standard error is short, so it fits into the pipe until it is read.
        (Some(out), Some(err)) => out
            .read_to_string(&mut text)
            .and_then(|_| err.read_to_string(&mut complaint)),
        _ => Ok(0),
    };
    drop(done);
    let timed_out = watchdog.join().unwrap_or(false);
    let status = child.wait().map_err(|error| format!("wait: {error}"))?;
    if timed_out {
        return Err(format!("killed: not done after {WATCHDOG:?}"));
    }
    read.map_err(|error| format!("read its output: {error}"))?;
    if status.success() {
        return Ok(text);
    }
    Err(format!("{status}: {}", complaint.trim()))
}

/// The top of the source tree, where the program was compiled.
pub fn root() -> &'static Path {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR"));
    benches.parent().unwrap_or(benches)
}

/// Builds the program that measures the rivals, under `target/rivals`; in half the time and without optimisation if its figures
/// are of no use to anybody.
///
/// # Errors
///
/// If cargo cannot be started or fails; what it says goes to standard error.
pub fn build_rivals(optimised: bool) -> Result<PathBuf, String> {
    let (profile, folder) = match optimised {
        true => ("release", "release"),
        false => ("dev", "debug"),
    };
    let target = root().join("target/rivals");
    let manifest = root().join("benches/rivals/Cargo.toml");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--profile", profile, "--quiet", "--locked"])
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .status()
        .map_err(|error| format!("cargo cannot be started: {error}"))?;
    if status.success() {
        return Ok(target.join(folder).join("mycelium-rivals"));
    }
    Err(format!("cargo build of benches/rivals failed: {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_fails_tells_what_it_said() {
        let error = output(Command::new("sh").args(["-c", "echo why >&2; exit 3"]));
        assert!(error.is_err_and(|error| error.contains('3') && error.contains("why")));
        let good = output(Command::new("sh").args(["-c", "echo fine"]));
        assert_eq!(good.as_deref(), Ok("fine\n"));
    }
}
