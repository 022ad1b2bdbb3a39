//! The program `measure`: the transport, its floors and its rivals side by side.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mycelium_bench_harness::cores::Cores;
use mycelium_bench_harness::{CaseArgs, Measure};
use mycelium_benches::carriers;
use mycelium_benches::catalog::{COMPARED, COUNTED, Case, SIZES, figure, tabled};
use mycelium_benches::host::Host;
use mycelium_benches::report::{Report, Runs};
use mycelium_benches::runner::{Runner, build_rivals, root};
use mycelium_benches::{docs, syscalls};

/// Measures the transport beside its floors and its rivals.
///
/// The cases that the goals compare run in rounds, one after the other, so that what disturbs a round disturbs both
/// sides of a ratio. Then the cases of the tables run, and the system calls are counted. Figures go to the terminal, to
/// a report in JSON, and between the markers of docs/benchmarks.md, which says what they mean.
///
/// Nothing else should run meanwhile: two sides that spin need two cores of their own.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Run one case once and print its sample as JSON: cacheline, cacheline-one, memcpy, memcpy-hot, ring, channel,
    /// channel-socket, channel-tcp, fallback or fallback-tcp
    Case(CaseArgs),
    /// The other side of a case; started by the side that measures
    #[command(hide = true)]
    Peer(CaseArgs),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Check that everything works, with short runs of few sizes; the figures mean little, and no document is rewritten
    #[arg(long)]
    quick: bool,
    /// Measure only cases whose name contains this text, such as 'ring latency 64 B'; goals that miss a case stay open
    #[arg(long, value_name = "CASE")]
    only: Option<String>,
    /// Rounds of the compared cases; the tables take half as many [default: 7, with --quick 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Time of one run, in milliseconds [default: 300, with --quick 20]
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    millis: Option<u64>,
    /// The cores of both sides, such as 0,1 [default: two that share no execution units]
    #[arg(long)]
    cores: Option<Cores>,
    /// Exit with 1 if a goal is missed or was not measured
    #[arg(long)]
    check: bool,
    /// Where the report goes [default: target/bench/report.json, with --quick target/bench/quick.json]
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// The document whose tables are rewritten [default: docs/benchmarks.md, with --quick or --only none]
    #[arg(long, value_name = "FILE")]
    docs: Option<PathBuf>,
    /// A built program of benches/rivals, instead of building it
    #[arg(long, value_name = "PROGRAM")]
    rivals: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse() {
        Arguments { role: None, run } => run.all(),
        Arguments {
            role: Some(role), ..
        } => {
            let outcome = match role {
                Role::Case(args) => carriers::measure(&args).and_then(|sample| sample.print()),
                Role::Peer(args) => carriers::answer(&args),
            };
            outcome.map(|()| true).map_err(|error| error.to_string())
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
    /// Measures everything; false if the goals are to be checked and one is not met.
    fn all(self) -> Result<bool, String> {
        let rounds = self.rounds.unwrap_or(if self.quick { 1 } else { 7 }) as usize;
        let millis = self.millis.unwrap_or(if self.quick { 20 } else { 300 });
        let cores = self.cores.unwrap_or_else(Cores::choose);
        let rivals = self.rivals.clone().map_or_else(
            || {
                eprintln!("building the rivals, where they are not up to date");
                build_rivals()
            },
            Ok,
        );
        if let Err(reason) = &rivals {
            eprintln!("the rivals cannot be measured: {reason}");
        }
        let runner = Runner::new(rivals, cores)?;
        let host = Host::look(cores, rounds, millis);
        if !cores.are_two() {
            eprintln!(
                "only one core: sides that spin keep each other from running, their figures mean nothing"
            );
        }
        if !host.optimised {
            eprintln!(
                "this program is not optimised: its figures mean nothing, run it with --release"
            );
        }
        let sizes = if self.quick { &SIZES[1..2] } else { SIZES };
        let compared = self.rounds_of(&runner, COMPARED, rounds, millis);
        let tabled = self.rounds_of(&runner, &tabled(sizes), rounds.div_ceil(2), millis);
        let calls = if self.wants(&COUNTED) {
            eprintln!("counting system calls");
            syscalls::per_message(&runner, &COUNTED, millis.max(100))
        } else {
            Err("not measured".to_owned())
        };
        let report = Report::new(host, &compared, &tabled, &calls);
        self.publish(&report)?;
        Ok(!self.check || report.all_met())
    }

    fn wants(&self, case: &Case) -> bool {
        let wanted = |only: &String| case.to_string().contains(only.as_str());
        self.only.as_ref().is_none_or(wanted)
    }

    /// Runs cases in rounds; every second round in the reverse order, so that no case always comes after the same one.
    fn rounds_of(&self, runner: &Runner, cases: &[Case], rounds: usize, millis: u64) -> Runs {
        let wanted = cases.iter().filter(|case| self.wants(case));
        let mut runs: Runs = wanted.map(|case| (*case, vec![])).collect();
        for round in 0..rounds {
            let mut order: Vec<usize> = (0..runs.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for (done, at) in order.iter().enumerate() {
                let (case, outcomes) = &mut runs[*at];
                let outcome = runner.run(case, millis);
                let said = match &outcome {
                    Ok(sample) => say(case, figure(sample)),
                    Err(error) => format!("failed: {error}"),
                };
                eprintln!(
                    "round {}/{rounds}, {:3}/{}: {case}: {said}",
                    round + 1,
                    done + 1,
                    order.len()
                );
                outcomes.push(outcome);
            }
        }
        runs
    }

    fn publish(&self, report: &Report) -> Result<(), String> {
        println!(
            "\n{:<58} {:>9} {:>9}  {:<22} ",
            "goal", "wanted", "median", "lowest to highest"
        );
        for outcome in report.outcomes() {
            let (value, spread) = outcome.figures();
            println!(
                "{:<58} {:>9} {value:>9}  {spread:<22} {}",
                outcome.what,
                outcome.goal,
                outcome.verdict()
            );
            if let Some(reason) = &outcome.reason {
                println!("    {reason}");
            }
        }
        let name = if self.quick {
            "quick.json"
        } else {
            "report.json"
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
        println!("\nreport: {}", path.display());
        let complete = !self.quick && self.only.is_none();
        let document = complete.then(|| root().join("docs/benchmarks.md"));
        if let Some(path) = self.docs.clone().or(document) {
            docs::rewrite(&path, report)?;
            println!("tables: {}", path.display());
        }
        Ok(())
    }
}

fn say(case: &Case, figure: Option<f64>) -> String {
    match (figure, case.measure) {
        (None, _) => "nothing".to_owned(),
        (Some(figure), Measure::Latency) => format!("{figure:.0} ns one way"),
        (Some(figure), Measure::Throughput) => format!(
            "{:.3} M messages/s, {:.3} GB/s",
            figure / 1e6,
            figure * case.payload as f64 / 1e9
        ),
    }
}
