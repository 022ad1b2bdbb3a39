//! Processes of the scenarios: the bridge as a program, and Python clients.

use std::io::Read;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_transport::disable::VARIABLE;

use crate::cargo::cargo;
use crate::{Place, WATCHDOG, python, repository, wait_for, wait_until};

/// The program of the bridge, built with the profile of the running tests.
///
/// # Panics
///
/// If it cannot be built.
#[must_use]
pub fn bridge_binary() -> PathBuf {
    programs().join("mycelium-bridge")
}

/// The program that generates code from contracts, likewise.
///
/// # Panics
///
/// If it cannot be built.
#[must_use]
pub fn contracts_binary() -> PathBuf {
    programs().join("mycelium-contracts")
}

/// Where the programs are. Cargo does not build those of other packages for a test, and one that is there may be old;
/// asking costs little if it is not.
fn programs() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let this = std::env::current_exe().expect("the path of this test");
        // <target>/<profile>/deps/<test>
        let profile = this
            .ancestors()
            .nth(2)
            .expect("a test lies in its profile's directory");
        let target = profile
            .parent()
            .expect("a profile lies in the target directory");
        let mut build = cargo(&repository());
        build.args(["build", "--quiet"]);
        // A test besides the program, and no package named: so the dependencies have the features that `cargo test` has
        // built them with.
        build.args(["--bin", "mycelium-bridge", "--bin", "mycelium-contracts"]);
        build.args(["--test", "demo"]);
        build.arg("--target-dir").arg(target).env_remove(VARIABLE);
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().expect("run cargo");
        assert!(
            status.success(),
            "the programs could not be built: {status}"
        );
        profile.to_owned()
    })
}

/// Has the kernel kill the process when the thread that starts it is gone: a test that is killed leaves no bridge behind.
pub fn ends_with_this_thread(command: &mut Command) -> &mut Command {
    // SAFETY: the closure makes one system call between fork and exec; it allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(Into::into))
    }
}

/// A bridge that runs as a program of its own. Dropping it kills it.
#[derive(Debug)]
pub struct BridgeProcess {
    child: Child,
    log: PathBuf,
}

impl BridgeProcess {
    /// Starts `mycelium-bridge run` with `disable` as the value of `MYCELIUM_DISABLE`; `None` leaves the variable as it
    /// is.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start(place: &Place, disable: Option<&str>) -> Self {
        let disable = disable.map(|word| (VARIABLE, word));
        Self::start_with(place, disable)
    }

    /// As [`BridgeProcess::start`], with these variables in its environment.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn start_with<'a>(
        place: &Place,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let _ = place.write_config();
        Self::of_folder(place.path(), variables)
    }

    /// As [`BridgeProcess::start_with`], with the `bridge.toml` that is in this folder.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    #[must_use]
    pub fn of_folder<'a>(
        folder: &Path,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let log = folder.join("bridge.log");
        let output = std::fs::File::create(&log).expect("create the log");
        let mut command = Command::new(bridge_binary());
        command
            .arg("run")
            .arg("--config")
            .arg(folder.join("bridge.toml"))
            .stdin(Stdio::null());
        command
            .stdout(output.try_clone().expect("share the log"))
            .stderr(output);
        command.envs(variables);
        let child = ends_with_this_thread(&mut command).spawn();
        let child = child.expect("start the bridge");
        Self { child, log }
    }

    /// As [`BridgeProcess::start`], and waits until clients can connect.
    ///
    /// # Panics
    ///
    /// If that does not happen before the watchdog barks.
    #[must_use]
    pub fn listening(place: &Place, disable: Option<&str>) -> Self {
        let mut bridge = Self::start(place, disable);
        wait_until("a listening bridge", || {
            assert!(
                bridge
                    .child
                    .try_wait()
                    .expect("ask for the bridge")
                    .is_none(),
                "{}",
                bridge.log()
            );
            std::os::unix::net::UnixStream::connect(place.socket()).is_ok()
        });
        bridge
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the bridge has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the log holds all of these on one line.
    ///
    /// # Panics
    ///
    /// If it does not before the watchdog barks.
    pub fn wait_for_log(&self, parts: &[&str]) -> String {
        wait_for(&format!("a line of the log with {parts:?}"), || {
            let log = self.log();
            log.lines()
                .find(|line| parts.iter().all(|part| line.contains(part)))
                .map(str::to_owned)
        })
    }

    /// Sends a signal to the bridge alone.
    ///
    /// # Panics
    ///
    /// If it is gone already.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("the bridge is there");
    }

    /// Waits for the end of the bridge.
    ///
    /// # Panics
    ///
    /// If it does not end before the watchdog barks.
    #[must_use]
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the end of the bridge", || {
            self.child.try_wait().expect("ask for the bridge")
        })
    }
}

impl Drop for BridgeProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process does not run any more. One that its new parent has not reaped yet has ended, too.
#[must_use]
pub fn has_ended(pid: u32) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the command name, which is in parentheses and may hold anything.
        Ok(stat) => stat
            .rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

/// What a Python client printed, and how it ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output and error, one after the other.
    pub output: String,
}

impl Finished {
    /// Asserts that the script ran to its end, where it prints `done`.
    ///
    /// # Panics
    ///
    /// If it did not.
    pub fn assert_done(&self) {
        assert!(
            self.status.success() && self.output.contains("done"),
            "{}: {}",
            self.status,
            self.output
        );
    }
}

/// Runs a Python script to its end, with `arguments` in `sys.argv[1:]`.
///
/// # Panics
///
/// If it does not end before the watchdog barks.
#[must_use]
pub fn run_python(script: &str, arguments: &[&str]) -> Finished {
    let mut command = Command::new(python());
    command
        .arg("-c")
        .arg(script)
        .args(arguments)
        .stdin(Stdio::null());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start Python");
    let start = Instant::now();
    // The scripts print little, so the pipes never fill while nobody reads.
    while child.try_wait().expect("ask for Python").is_none() {
        if start.elapsed() > WATCHDOG {
            let _ = child.kill();
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let status = child.wait().expect("the end of Python");
    let mut output = String::new();
    child
        .stdout
        .take()
        .expect("a pipe")
        .read_to_string(&mut output)
        .expect("text");
    child
        .stderr
        .take()
        .expect("a pipe")
        .read_to_string(&mut output)
        .expect("text");
    assert!(
        start.elapsed() <= WATCHDOG,
        "watchdog: the script did not end: {output}"
    );
    Finished { status, output }
}
