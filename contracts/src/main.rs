//! `mycelium-contracts`: generates code from contracts files and checks them.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mycelium_contracts::{Config, Outcome, Severity};

/// Checks contracts files and generates Rust, Python, documentation and test vectors from them.
///
/// Exit codes: 0 all right; 1 errors in a contracts file, stale generated files, or a file that cannot
/// be written; 2 wrong command line or configuration.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write all generated files that are not up to date.
    Generate {
        /// Write nothing; exit with 1 and name the files if any is not up to date.
        #[arg(long)]
        check: bool,
        /// What to generate from which file; paths in it are relative to its folder.
        #[arg(long, value_name = "FILE", default_value = "contracts/generate.toml")]
        config: PathBuf,
    },
    /// Print all errors and warnings of one contracts file.
    Check {
        /// The contracts file.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Generate { check, config } => generate(&config, check),
        Command::Check { file } => check(&file),
    }
}

fn generate(path: &Path, check: bool) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(failed) => return fail(&failed, 2),
    };
    let summary = match mycelium_contracts::generate(&config, check) {
        Ok(done) => done,
        Err(failed) => return fail(&failed, 1),
    };
    for report in summary.warnings {
        eprintln!("{report}");
    }
    let mut stale = false;
    for (path, outcome) in &summary.outputs {
        match outcome {
            Outcome::Fresh => {}
            Outcome::Written => println!("wrote {}", path.display()),
            Outcome::Stale => {
                eprintln!("error: not up to date: {}", path.display());
                stale = true;
            }
        }
    }
    if stale {
        let default = path == Path::new("contracts/generate.toml");
        let config = if default {
            String::new()
        } else {
            format!(" --config {}", path.display())
        };
        eprintln!(
            "hint: run `cargo run -p mycelium-contracts -- generate{config}` and commit the result"
        );
        return ExitCode::from(1);
    }
    println!("{} generated files are up to date", summary.outputs.len());
    ExitCode::SUCCESS
}

fn fail(failed: &dyn std::error::Error, code: u8) -> ExitCode {
    eprintln!("error: {failed}");
    let mut source = failed.source();
    while let Some(cause) = source {
        eprintln!("  caused by: {cause}");
        source = cause.source();
    }
    ExitCode::from(code)
}

fn check(file: &Path) -> ExitCode {
    match mycelium_contracts::load(file) {
        Ok(contracts) => {
            let warnings = contracts.report();
            if !warnings.diagnostics.is_empty() {
                println!("{warnings}");
            }
            println!(
                "ok: {}, {}, {}",
                count(contracts.messages().len(), "message"),
                count(contracts.constants().len(), "constant"),
                count(warnings.diagnostics.len(), "warning")
            );
            ExitCode::SUCCESS
        }
        Err(report) => {
            println!("{report}");
            let errors = count(report.count(Severity::Error), "error");
            println!(
                "{errors}, {}",
                count(report.count(Severity::Warning), "warning")
            );
            ExitCode::from(1)
        }
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
