//! `mycelium-bridge demo`: replays real quotes to two Python workers and verifies everything that comes back.

mod audit;
mod phases;
mod progress;
mod quotes;
mod replay;
mod report;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use mycelium_bridge::logging::{self, LogFormat};
use shm_transport::channel::Transport;
use shm_transport::error::CreateError;
use shm_transport::layout::RING_CAPACITY_MIN;
use shm_transport::segment::{Segment, SegmentOptions};

use self::progress::grouped;
use self::quotes::Quotes;
use self::replay::{DemoError, Paths};
use self::report::Report;
use super::{EXIT_CONFIG, EXIT_FAILURE, failure};

#[derive(Debug, clap::Args)]
pub(super) struct DemoArguments {
    /// The Python interpreter that has the SDK installed.
    #[arg(long, value_name = "PATH", default_value = ".venv/bin/python")]
    python: PathBuf,
    /// The root of the repository, where contracts, examples and quotes are.
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
    /// Quotes to each worker at full speed.
    #[arg(long, value_name = "N", default_value_t = 3_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    quotes: u64,
    /// Quotes sent one at a time.
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    round_trips: u64,
    /// Quotes to each worker while one of them is killed.
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1000..))]
    kill_quotes: u64,
    /// Where configurations and report.json go.
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    output: PathBuf,
    /// Filter of the log on standard error.
    #[arg(long, value_name = "FILTER", default_value = "error")]
    log: String,
}

pub(super) fn run(arguments: &DemoArguments) -> ExitCode {
    if let Err(error) = logging::init(&arguments.log, LogFormat::default()) {
        return failure(
            error,
            "write a level (error | warn | info | debug | trace) or target=level",
            EXIT_CONFIG,
        );
    }
    if !arguments.python.exists() {
        let message = format_args!("no Python interpreter at {}", arguments.python.display());
        return failure(
            message,
            "run 'make demo', which sets one up, or name one with --python",
            EXIT_CONFIG,
        );
    }
    match replay(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(
            error,
            "run again with --log info to see what the bridge and the workers say",
            EXIT_FAILURE,
        ),
    }
}

fn replay(arguments: &DemoArguments) -> Result<(), DemoError> {
    let paths = Paths {
        root: arguments.root.clone(),
        python: arguments.python.clone(),
        output: arguments.output.clone(),
    };
    let quotes = Quotes::load(
        &arguments
            .root
            .join("tests/data/eurusd-quotes-2020-01-01.csv"),
    )?;
    say(&format!(
        "Replaying {} real EUR/USD quotes in a loop: publisher -> bridge -> two Python workers -> bridge -> publisher.",
        grouped(quotes.lap_len() as u64)
    ));
    let run = |transport| {
        phases::run(
            &paths,
            &quotes,
            transport,
            arguments.quotes,
            arguments.round_trips,
        )
    };
    let shm = match shared_memory() {
        Ok(()) => Ok(run(Transport::Shm)?),
        Err(error) => {
            say(&format!(
                "\nNo shared memory on this machine, so the socket only: {error}\n"
            ));
            Err(error.to_string())
        }
    };
    let transport = if shm.is_ok() {
        Transport::Shm
    } else {
        Transport::Socket
    };
    let report = Report {
        shm,
        socket: run(Transport::Socket)?,
        kill: phases::kill_one(&paths, &quotes, transport, arguments.kill_quotes)?,
    };
    let path = arguments.output.join("report.json");
    report.write(&path).map_err(|source| DemoError::Write {
        path: path.clone(),
        source,
    })?;
    say(&format!("\n{}\nReport: {}", report.table(), path.display()));
    let problems = report.problems();
    if problems.is_empty() {
        Ok(())
    } else {
        Err(DemoError::Verification(problems))
    }
}

/// Whether this process gets a segment at all.
fn shared_memory() -> Result<(), CreateError> {
    let options = SegmentOptions::new(RING_CAPACITY_MIN);
    Segment::create(&options).map(drop)
}

/// Standard output may be closed; the report is in the file all the same.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
