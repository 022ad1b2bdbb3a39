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
use catalog::{CASES, Case};
use clap::Parser;
use mycelium_benches::docs::replace_between;
use mycelium_benches::host::Host;
use mycelium_benches::rounds::{Options, warn};
use program::Figures;
use report::{Report, figure};

/// Measures the Python SDK beside its rivals.
///
/// The cases run in rounds, every second round in reverse; a ratio is made within a round. What something is missing for
/// (a rival that is not installed) is left out, and the report says why. Nothing else should run meanwhile.
#[derive(Debug, Parser)]
#[command(name = "bench-python", version)]
#[command(mut_arg("millis", |it| it.help("Time of one run, in milliseconds [default: 500, with --quick 20]")))]
struct Arguments {
    #[command(flatten)]
    options: Options,
    /// Time of the idle worker, in milliseconds [default: 5000, with --quick 100]
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    idle_millis: Option<u64>,
    /// Python interpreter with the SDK, NumPy and the rivals
    #[arg(long, default_value = ".venv-bench/bin/python")]
    python: PathBuf,
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
        let options = &self.options;
        let (rounds, millis, cores) = (options.rounds(), options.millis(500), options.cores());
        let idle_millis = if options.quick { 100 } else { 5000 };
        let runner = Runner {
            python: self.python.clone(),
            cores,
            millis,
            idle_millis: self.idle_millis.unwrap_or(idle_millis),
            folder: tempfile::tempdir().map_err(|error| format!("temporary folder: {error}"))?,
        };
        let host = Host::look("bench-python", cores, rounds, millis);
        warn(&host);
        let name = |case: &Case| case.name.to_owned();
        let run = |case: &Case| runner.run(case);
        let runs = options.run(CASES, rounds, name, run, |_, figures| say(figures));
        let report = Report::new(host, &runs);
        self.publish(&report)?;
        let failed = runs.iter().flat_map(|(_, runs)| runs).any(|run| {
            run.as_ref()
                .is_err_and(|reason| !reason.starts_with("missing: "))
        });
        Ok(!failed && (!options.check || report.all_met()))
    }

    fn publish(&self, report: &Report) -> Result<(), String> {
        let tables = report.markdown();
        println!("{tables}");
        let path = self.options.write_report("python", report)?;
        println!("report: {}", path.display());
        if let Some(path) = self.options.document() {
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
