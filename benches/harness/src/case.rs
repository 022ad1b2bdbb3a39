//! The arguments of a case, and starting the peer process.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};

use clap::{Args, ValueEnum};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::cores::{Cores, pin};
use crate::link::{Link, consume, echo, produce, round_trips};
use crate::{Failure, Sample};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Measure {
    /// Half of a round trip.
    Latency,
    /// Messages in a second.
    Throughput,
}

/// What a side does that has nothing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Waiting {
    /// It polls, and makes no system call.
    Spin,
    /// It polls for a while and then sleeps: the library's default.
    Hybrid,
    /// It sleeps at once.
    Park,
}

impl Measure {
    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Throughput => "throughput",
        }
    }
}

impl Waiting {
    /// The name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::Hybrid => "hybrid",
            Self::Park => "park",
        }
    }
}

/// One run of a case.
#[derive(Debug, Clone, Args)]
pub struct CaseArgs {
    /// What carries the messages.
    pub carrier: String,
    /// What to measure.
    #[arg(long, value_enum, default_value = "latency")]
    pub measure: Measure,
    /// Bytes of each message: a multiple of 8.
    #[arg(long, default_value = "64", value_parser = parse_payload)]
    pub payload: usize,
    /// What a side does that has nothing to do.
    #[arg(long, value_enum, default_value = "spin")]
    pub waiting: Waiting,
    /// How long to measure, in milliseconds.
    #[arg(long, default_value = "300")]
    pub millis: u64,
    /// The cores of both sides.
    #[arg(long, default_value_t = Cores::choose())]
    pub cores: Cores,
    /// What the peer process needs to find its carrier.
    #[arg(long, default_value = "", hide = true)]
    pub handles: String,
}

fn parse_payload(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if (8..=1 << 20).contains(&bytes) && bytes % 8 == 0 => Ok(bytes),
        _ => Err("legal=a multiple of 8 from 8 to 1048576 bytes".to_owned()),
    }
}

impl CaseArgs {
    /// Runs the measuring side over a carrier.
    ///
    /// # Errors
    ///
    /// If the carrier fails or garbles a message.
    pub fn run_near(&self, link: &mut impl Link) -> Result<Sample, Failure> {
        self.pin_near();
        match self.measure {
            Measure::Latency => round_trips(link, self),
            Measure::Throughput => produce(link, self),
        }
    }

    /// Runs the other side over a carrier, in a thread or in the peer process.
    ///
    /// # Errors
    ///
    /// If the carrier fails or garbles a message.
    pub fn run_far(&self, link: &mut impl Link) -> Result<(), Failure> {
        self.pin_far();
        match self.measure {
            Measure::Latency => echo(link, self),
            Measure::Throughput => consume(link, self),
        }
    }

    /// Keeps the calling thread on the core of the measuring side, if the pair has two cores.
    pub fn pin_near(&self) {
        if self.cores.are_two() {
            pin(self.cores.0);
        }
    }

    /// Keeps the calling thread on the core of the other side, if the pair has two cores.
    pub fn pin_far(&self) {
        if self.cores.are_two() {
            pin(self.cores.1);
        }
    }

    /// The descriptors in `handles`, which the process that started this one left open for it.
    ///
    /// # Errors
    ///
    /// If there are not `N` of them.
    pub fn inherited_fds<const N: usize>(&self) -> Result<[OwnedFd; N], Failure> {
        let numbers: Vec<RawFd> = self
            .handles
            .split(',')
            .filter_map(|n| n.parse().ok())
            .collect();
        let wrong = || Failure::Peer(format!("wanted {N} descriptors: handles={}", self.handles));
        let numbers: [RawFd; N] = numbers.try_into().map_err(|_| wrong())?;
        // SAFETY: the process that started this one left these descriptors open for it and nothing else here uses them;
        // this is called once.
        Ok(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }))
    }
}

/// Runs a pair of threads. A side that fails does not wait for the other one: the process is to end then.
///
/// # Errors
///
/// If the carrier fails or garbles a message.
pub fn measure_threads(
    args: &CaseArgs,
    near: &mut impl Link,
    far: impl FnOnce(&CaseArgs) -> Result<(), Failure> + Send + 'static,
) -> Result<Sample, Failure> {
    let for_far = args.clone();
    let other = std::thread::spawn(move || far(&for_far));
    let sample = args.run_near(near)?;
    match other.join() {
        Ok(outcome) => outcome.map(|()| sample),
        Err(_) => Err(Failure::Peer("the other thread panicked".to_owned())),
    }
}

/// The peer process of a case. Killed when this is dropped, and by the kernel when this process ends.
#[derive(Debug)]
pub struct PeerProcess(Child);

impl PeerProcess {
    /// Starts this very program again as the other side of a case. The descriptors stay open for it.
    ///
    /// # Errors
    ///
    /// If the process cannot be started.
    pub fn start(args: &CaseArgs, fds: &[BorrowedFd<'_>], name: &str) -> Result<Self, Failure> {
        // A duplicate survives `exec`, which the original does not; ours is closed again once the process runs.
        let kept = fds
            .iter()
            .map(nix::unistd::dup)
            .collect::<Result<Vec<_>, _>>()
            .map_err(Failure::carrier("dup"))?;
        let numbers: Vec<String> = kept.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
        let handles = if name.is_empty() {
            numbers.join(",")
        } else {
            name.to_owned()
        };
        let program = std::env::current_exe().map_err(Failure::carrier("find this program"))?;
        let child = Command::new(program)
            .args(["peer", &args.carrier, "--handles", &handles])
            .args(["--measure", args.measure.name()])
            .args(["--waiting", args.waiting.name()])
            .args(["--payload", &args.payload.to_string()])
            .args(["--cores", &args.cores.to_string()])
            .stdin(Stdio::null())
            .spawn()
            .map_err(Failure::carrier("start the peer"))?;
        Ok(Self(child))
    }

    /// What the peer process calls first: it ends with the one that started it.
    ///
    /// # Errors
    ///
    /// If the kernel does not take the order.
    pub fn begin() -> Result<(), Failure> {
        set_pdeathsig(Signal::SIGKILL).map_err(Failure::carrier("tie to the parent"))
    }

    /// Waits for the peer's end, which must be a good one.
    ///
    /// # Errors
    ///
    /// [`Failure::Peer`] with its exit status.
    pub fn finish(mut self) -> Result<(), Failure> {
        let status = self
            .0
            .wait()
            .map_err(Failure::carrier("wait for the peer"))?;
        if status.success() {
            return Ok(());
        }
        Err(Failure::Peer(status.to_string()))
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        // Both fail only if the process has ended already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
