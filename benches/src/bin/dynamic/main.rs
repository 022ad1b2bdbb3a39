//! What dynamic messages cost beside messages of a contract: one quote in every encoding, sent and received.
//!
//! Rust has both ends of a link on one thread and sends and reads 64 messages in turn. Python has one end; a thread of
//! this program sends back whatever comes. The encodings take turns, every second round in reverse, and a ratio is made
//! within a round.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

mod encodings;
mod python;
mod table;

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use encodings::{BURST, ENCODINGS, Ends};
use mycelium_bench_harness::cores::Cores;
use mycelium_benches::carriers::bridge::{Accepted, accept};
use mycelium_benches::host::Host;
use mycelium_benches::runner::root;
use serde::Serialize;
use shm_transport::channel::{Channel, ConnectOptions, TransportRequest};

/// Nanoseconds per message of every round, by encoding.
type Rounds = BTreeMap<&'static str, Vec<f64>>;

/// Measures what dynamic messages cost.
#[derive(Parser)]
#[command(name = "dynamic")]
struct Arguments {
    /// Rounds in which the encodings take turns.
    #[arg(long, default_value_t = 11)]
    rounds: usize,
    /// Messages of one encoding in one round.
    #[arg(long, default_value_t = 50_000)]
    messages: usize,
    /// Few messages: shows that everything works, and measures nothing.
    #[arg(long)]
    quick: bool,
    /// Python interpreter with the SDK and the package msgpack.
    #[arg(long, default_value = ".venv/bin/python")]
    python: PathBuf,
    /// Where the report is written.
    #[arg(long, default_value = "target/bench/dynamic.json")]
    report: PathBuf,
    /// Document whose table is replaced.
    #[arg(long)]
    docs: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    host: Host,
    /// Nanoseconds per message and round, by language and encoding.
    ns_per_message: BTreeMap<&'static str, Rounds>,
    /// Median over the rounds of the time beside that of the contract, by language and encoding.
    ratio_to_contract: BTreeMap<&'static str, BTreeMap<&'static str, f64>>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let (rounds, messages) = if arguments.quick {
        (2, BURST)
    } else {
        (arguments.rounds.max(1), arguments.messages.max(BURST))
    };
    let started = Instant::now();
    let rust = rust(rounds, messages)?;
    let python = python::measure(&arguments.python, rounds, messages)?;
    let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let host = Host::look("dynamic", Cores::choose(), rounds, millis);
    let ns_per_message = BTreeMap::from([("python", python), ("rust", rust)]);
    let ratio_to_contract = ns_per_message
        .iter()
        .map(|(&language, rounds)| (language, table::ratios(rounds)))
        .collect();
    let report = Report {
        host,
        ns_per_message,
        ratio_to_contract,
    };
    let json = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
    let path = root().join(&arguments.report);
    let failed = |error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(&path, json).map_err(failed)?;
    let text = table::markdown(&report);
    println!("{text}");
    match &arguments.docs {
        Some(docs) => table::rewrite(docs, &text),
        None => Ok(()),
    }
}

/// Both ends of a link on this thread.
fn ends() -> Result<Ends, String> {
    let failed = |error: &dyn std::fmt::Display| format!("link: {error}");
    let (ours, theirs) = UnixStream::pair().map_err(|error| failed(&error))?;
    let bridge = std::thread::spawn(move || accept(theirs, 4096));
    let options = ConnectOptions::default().over(TransportRequest::Shm);
    let channel = Channel::from_stream(ours, &options).map_err(|error| failed(&error))?;
    match bridge.join().map_err(|_| "the other end panicked")? {
        Ok(Accepted::Rings(ends, stream)) => Ok(Ends::new(channel, *ends, stream)),
        Ok(Accepted::Stream(_)) => Err("shared memory was asked for, the socket given".to_owned()),
        Err(error) => Err(failed(&error)),
    }
}

fn rust(rounds: usize, messages: usize) -> Result<Rounds, String> {
    let mut ends = ends()?;
    for (name, exchange) in ENCODINGS {
        for sequence in 0..BURST as u64 {
            let sent = encodings::quote(sequence);
            let got = ends.round(exchange, &sent, 1)?;
            if got != sent {
                return Err(format!("{name} came back as {got:?}, sent {sent:?}"));
            }
        }
    }
    let quote = encodings::quote(7);
    let mut measured = Rounds::new();
    for round in 0..=rounds {
        let order: Vec<_> = if round % 2 == 0 {
            ENCODINGS.iter().collect()
        } else {
            ENCODINGS.iter().rev().collect()
        };
        for (name, exchange) in order {
            let start = Instant::now();
            for _ in 0..messages / BURST {
                std::hint::black_box(ends.round(exchange, &quote, BURST)?);
            }
            let per_message = start.elapsed().as_nanos() as f64 / (messages / BURST * BURST) as f64;
            // The first round warms up.
            if round > 0 {
                measured.entry(name).or_default().push(per_message);
            }
        }
    }
    Ok(measured)
}
