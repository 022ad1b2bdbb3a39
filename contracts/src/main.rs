//! `mycelium-contracts`: generates code from contracts files, checks, shows and compares them.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program"
)]

mod cli;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Checks contracts files and generates Rust, Python, documentation and test vectors from them.
///
/// Exit codes: 0 all right; 1 errors in a contracts file, stale generated files, incompatible
/// contracts, or a file that cannot be written; 2 wrong command line or configuration, or a file
/// that `diff` cannot read.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write all generated files that are not up to date.
    ///
    /// What is made of what is in a configuration (contracts/generate.toml, or generate.toml if
    /// that is missing), or on the command line: a contracts file and one path per output.
    Generate(cli::generate::Generate),
    /// Print all errors and warnings of contracts files.
    Check {
        /// The contracts files.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// How to print them; json is one array of objects with file, line, column, severity,
        /// text and hint.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Print the messages of a contracts file, or the layout of one of them.
    Show {
        /// The contracts file.
        file: PathBuf,
        /// Name or topic id of a message.
        message: Option<String>,
    },
    /// Print what changed per message, and whether old and new peers can still talk.
    ///
    /// Exit codes: 0 the same or compatible; 1 at least one message is incompatible; 2 a file cannot
    /// be read. Compatible means that each side's payloads have the same fields at the same places
    /// on the other side; messages that only one side has are compatible.
    Diff {
        /// The contracts file before the change.
        old: PathBuf,
        /// The contracts file after the change.
        new: PathBuf,
        /// How to print the differences.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Write a commented contracts file to start from.
    Init {
        /// The file.
        #[arg(default_value = "contracts.yaml")]
        file: PathBuf,
        /// Replace the file if there is one.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Generate(arguments) => cli::generate::run(&arguments),
        Command::Check { files, format } => cli::check::run(&files, format),
        Command::Show { file, message } => cli::show::run(&file, message.as_deref()),
        Command::Diff { old, new, format } => cli::diff::run(&old, &new, format),
        Command::Init { file, force } => cli::init::run(&file, force),
    }
}
