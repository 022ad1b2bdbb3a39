//! The program `bench-bridge`: messages through a bridge, between this process and Python workers.
//!
//! The bridge is a process of its own; its workers are spawned by it, from `benches/python/bridge_worker.py`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

mod cases;
mod catalog;
mod echo;
mod fan_out;
mod idle;
mod proc;
mod report;
mod site;

use std::path::PathBuf;
use std::process::ExitCode;

use cases::{Runner, say};
use catalog::{CASES, Case};
use clap::{Parser, Subcommand};
use mycelium_benches::docs::replace_between;
use mycelium_benches::host::Host;
use mycelium_benches::rounds::{Options, warn};
use report::Report;

/// Measures the bridge: round trips and rates through it, fan-out, stopped workers, idle links, and its router.
///
/// The cases run in rounds, every second round in reverse; a ratio is made within a round. Nothing else should run
/// meanwhile: client, bridge and worker are three processes, and all spin for a while.
#[derive(Debug, Parser)]
#[command(name = "bench-bridge", version, args_conflicts_with_subcommands = true)]
#[command(mut_arg("rounds", |it| it.help("Rounds [default: 5, with --quick 1]")))]
#[command(mut_arg("cores", |it| it.hide(true)))]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, clap::Args)]
struct Run {
    #[command(flatten)]
    options: Options,
    /// Idle links, in processes of 250 [default: 1000, with --quick 40]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    idle_links: Option<u32>,
    /// How long links are idle, in milliseconds [default: 4000, with --quick 100]
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    idle_millis: Option<u64>,
    /// Longest spin before sleeping, in microseconds, for the cases that leave it to the bridge
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    spin_us: Option<u32>,
    /// Python interpreter with the SDK
    #[arg(long, default_value = ".venv/bin/python")]
    python: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The bridge of a case; ends with its standard input
    #[command(hide = true)]
    Bridge { config: PathBuf },
    /// A process with idle links; ends with its standard input
    #[command(hide = true)]
    IdleClients { address: String, links: u32 },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.role {
        None => arguments.run.all(),
        Some(Role::Bridge { config }) => site::be_bridge(&config).map(|()| true),
        Some(Role::IdleClients { address, links }) => {
            idle::be_clients(&address, links).map(|()| true)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Run {
    /// Measures everything; false if a case failed, or if the goals are to be checked and one is not met.
    fn all(self) -> Result<bool, String> {
        let options = &self.options;
        let rounds = options
            .rounds
            .map_or(if options.quick { 1 } else { 5 }, |it| it as usize);
        let millis = options.millis(300);
        let (idle_links, idle_millis) = if options.quick {
            (40, 100)
        } else {
            (1000, 4000)
        };
        let runner = Runner {
            python: self.python.clone(),
            millis,
            spin_us: self.spin_us,
            idle_links: self.idle_links.unwrap_or(idle_links),
            idle_millis: self.idle_millis.unwrap_or(idle_millis),
        };
        // Nothing is pinned: three processes and more share the cores as they would elsewhere.
        let mut host = Host::look("bench-bridge", options.cores(), rounds, millis);
        warn(&host);
        host.pinned = None;
        let name = |case: &Case| case.name.to_owned();
        let run = |case: &Case| runner.run(case);
        let runs = options.run(CASES, rounds, name, run, |_, figures| say(figures));
        let report = Report::new(host, &runs);
        let tables = report.markdown();
        println!("{tables}");
        let path = options.write_report("bridge", &report)?;
        println!("report: {}", path.display());
        if let Some(path) = options.document() {
            let (begin, end) = ("<!-- bridge: begin -->", "<!-- bridge: end -->");
            replace_between(&path, begin, end, tables.trim_end())?;
            println!("tables: {}", path.display());
        }
        let failed = runs.iter().flat_map(|(_, runs)| runs).any(Result::is_err);
        Ok(!failed && (!options.check || report.all_met()))
    }
}
