//! The program `bench-python`: the Python SDK beside its rivals.
//!
//! Each case is a run of one or two Python processes of `benches/python`; where Rust is at the other end, it is this one.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

mod cases;
mod catalog;
mod program;
mod report;
mod side;
#[allow(dead_code, reason = "generated for a library")]
#[allow(unreachable_pub, reason = "generated for a library")]
mod tick;

use std::path::PathBuf;
use std::process::ExitCode;

use cases::Runner;
use catalog::CASES;
use clap::Parser;
use mycelium_bench_harness::cores::Cores;
use mycelium_benches::docs::replace_between;
use mycelium_benches::host::Host;
use mycelium_benches::runner::root;
use program::Figures;
use report::{Report, Runs, figure};

/// Measures the Python SDK beside its rivals.
///
/// The cases run in rounds, every second round in reverse; a ratio is made within a round. What something is missing for
/// (a rival that is not installed) is left out, and the report says why. Nothing else should run meanwhile.
#[derive(Debug, Parser)]
#[command(name = "bench-python", version)]
struct Arguments {
    /// Check that everything works, with short runs; the figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Measure only cases whose name contains this text, such as 'pair'; goals that miss a case stay open
    #[arg(long, value_name = "CASE")]
    only: Option<String>,
    /// Rounds [default: 7, with --quick 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Time of one run, in milliseconds [default: 500, with --quick 20]
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    millis: Option<u64>,
    /// Time of the idle worker, in milliseconds [default: 5000, with --quick 100]
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    idle_millis: Option<u64>,
    /// The cores of both sides, such as 0,1 [default: two that share no execution units]
    #[arg(long)]
    cores: Option<Cores>,
    /// Exit with 1 if a goal is missed or was not measured
    #[arg(long)]
    check: bool,
    /// Python interpreter with the SDK, NumPy and the rivals
    #[arg(long, default_value = ".venv-bench/bin/python")]
    python: PathBuf,
    /// Where the report goes [default: target/bench/python.json, with --quick target/bench/python-quick.json]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The document whose tables are rewritten [default: docs/benchmarks.md, with --quick or --only none]
    #[arg(long, value_name = "FILE")]
    docs: Option<PathBuf>,
}

fn main() -> ExitCode {
    match Arguments::parse().run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Arguments {
    /// Measures everything; false if a case failed, or if the goals are to be checked and one is not met.
    fn run(self) -> Result<bool, String> {
        let rounds = self.rounds.unwrap_or(if self.quick { 1 } else { 7 }) as usize;
        let millis = self.millis.unwrap_or(if self.quick { 20 } else { 500 });
        let cores = self.cores.unwrap_or_else(Cores::choose);
        let runner = Runner {
            python: self.python.clone(),
            cores,
            millis,
            idle_millis: self
                .idle_millis
                .unwrap_or(if self.quick { 100 } else { 5000 }),
            folder: tempfile::tempdir().map_err(|error| format!("temporary folder: {error}"))?,
        };
        let mut host = Host::look(cores, rounds, millis);
        host.command = host.command.replacen("measure", "bench-python", 1);
        if !cores.are_two() {
            eprintln!("only one core: sides that spin keep each other from running");
        }
        if !host.optimised {
            eprintln!(
                "this program is not optimised: its figures mean nothing, run it with --release"
            );
        }
        let runs = self.rounds_of(&runner, rounds);
        let report = Report::new(host, &runs);
        self.publish(&report)?;
        let failed = runs.iter().flat_map(|(_, runs)| runs).any(|run| {
            run.as_ref()
                .is_err_and(|reason| !reason.starts_with("missing: "))
        });
        Ok(!failed && (!self.check || report.all_met()))
    }

    /// Every second round is in reverse, so that no case always comes after the same one.
    fn rounds_of(&self, runner: &Runner, rounds: usize) -> Runs {
        let wanted = |name: &str| self.only.as_ref().is_none_or(|only| name.contains(only));
        let wanted = CASES.iter().filter(|case| wanted(case.name));
        let mut runs: Runs = wanted.map(|case| (*case, vec![])).collect();
        for round in 0..rounds {
            let mut order: Vec<usize> = (0..runs.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                let (case, outcomes) = &mut runs[at];
                let outcome = runner.run(case);
                let said = outcome.as_ref().map_or_else(Clone::clone, say);
                eprintln!("round {}/{rounds}: {}: {said}", round + 1, case.name);
                outcomes.push(outcome);
            }
        }
        runs
    }

    fn publish(&self, report: &Report) -> Result<(), String> {
        let tables = report.markdown();
        println!("{tables}");
        let name = if self.quick {
            "python-quick.json"
        } else {
            "python.json"
        };
        let path = self
            .report
            .clone()
            .unwrap_or_else(|| root().join("target/bench").join(name));
        let problem = |error: std::io::Error| format!("{}: {error}", path.display());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(problem)?;
        }
        let json = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
        std::fs::write(&path, json + "\n").map_err(problem)?;
        println!("report: {}", path.display());
        let complete = !self.quick && self.only.is_none();
        let document = complete.then(|| root().join("docs/benchmarks.md"));
        if let Some(path) = self.docs.clone().or(document) {
            let (begin, end) = ("<!-- python: begin -->", "<!-- python: end -->");
            replace_between(&path, begin, end, tables.trim_end())?;
            println!("tables: {}", path.display());
        }
        Ok(())
    }
}

fn say(figures: &Figures) -> String {
    let value = figure(figures).unwrap_or(f64::NAN);
    if let Some(trip) = figures.round_trip_ns {
        return format!("{value:.0} ns, 99 of 100 within {} ns", trip.p99);
    }
    if figures.cpu_percent.is_some() {
        return format!("{value:.3} % of a core");
    }
    format!("{:.3} M messages/s", value / 1e6)
}
