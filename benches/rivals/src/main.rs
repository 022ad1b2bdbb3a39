//! Measures one rival of the transport: `mycelium-rivals case rtrb --measure throughput --payload 64`.

mod iceoryx;
mod ipc;
mod threads;
mod unix;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mycelium_bench_harness::{CaseArgs, Failure, PeerProcess, Sample};

/// Measures one rival of the transport and prints a line of JSON.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Measures rtrb, iceoryx2, ipc-channel or unix.
    Case(CaseArgs),
    /// The other side of a case; started by the side that measures.
    #[command(hide = true)]
    Peer(CaseArgs),
}

fn measure(args: &CaseArgs) -> Result<Sample, Failure> {
    match args.carrier.as_str() {
        "rtrb" => threads::near(args),
        "iceoryx2" => iceoryx::near(args),
        "ipc-channel" => ipc::near(args),
        "unix" => unix::near(args),
        other => Err(Failure::Unknown(other.to_owned())),
    }
}

fn answer(args: &CaseArgs) -> Result<(), Failure> {
    PeerProcess::begin()?;
    match args.carrier.as_str() {
        "iceoryx2" => iceoryx::far(args),
        "ipc-channel" => ipc::far(args),
        "unix" => unix::far(args),
        other => Err(Failure::Unknown(other.to_owned())),
    }
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Role::Case(args) => measure(&args).and_then(|sample| sample.print()),
        Role::Peer(args) => answer(&args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}
