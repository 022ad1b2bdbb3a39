//! The program `measure`: the transport, its floors and its rivals side by side.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mycelium_bench_harness::{CaseArgs, Measure, Sample};
use mycelium_benches::carriers;
use mycelium_benches::catalog::{COMPARED, COUNTED, Case, SIZES, figure, tabled};
use mycelium_benches::host::Host;
use mycelium_benches::report::Report;
use mycelium_benches::rounds::{Options, warn};
use mycelium_benches::runner::{Runner, build_rivals};
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
    #[command(flatten)]
    options: Options,
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
        let options = &self.options;
        let (rounds, millis, cores) = (options.rounds(), options.millis(300), options.cores());
        let rivals = self.rivals.clone().map_or_else(
            || {
                eprintln!("building the rivals, where they are not up to date");
                build_rivals(!options.quick)
            },
            Ok,
        );
        if let Err(reason) = &rivals {
            eprintln!("the rivals cannot be measured: {reason}");
        }
        let runner = Runner::new(rivals, cores)?;
        let host = Host::look("measure", cores, rounds, millis);
        warn(&host);
        let sizes = if options.quick { &SIZES[1..2] } else { SIZES };
        let in_rounds = |cases: &[Case], rounds| {
            let run = |case: &Case| runner.run(case, millis);
            options.run(cases, rounds, Case::to_string, run, say)
        };
        let compared = in_rounds(COMPARED, rounds);
        // The tables take half as many.
        let tabled = in_rounds(&tabled(sizes), rounds.div_ceil(2));
        let calls = if options.wants(&COUNTED.to_string()) {
            eprintln!("counting system calls");
            syscalls::per_message(&runner, &COUNTED, millis.max(100))
        } else {
            Err("not measured".to_owned())
        };
        let report = Report::new(host, &compared, &tabled, &calls);
        self.publish(&report)?;
        Ok(!options.check || report.all_met())
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
        let path = self.options.write_report("report", report)?;
        println!("\nreport: {}", path.display());
        if let Some(path) = self.options.document() {
            docs::rewrite(&path, report)?;
            println!("tables: {}", path.display());
        }
        Ok(())
    }
}

fn say(case: &Case, sample: &Sample) -> String {
    match (figure(sample), case.measure) {
        (None, _) => "nothing".to_owned(),
        (Some(figure), Measure::Latency) => format!("{figure:.0} ns one way"),
        (Some(figure), Measure::Throughput) => format!(
            "{:.3} M messages/s, {:.3} GB/s",
            figure / 1e6,
            figure * case.payload as f64 / 1e9
        ),
    }
}
