//! `mycelium-bridge tap`: the messages of a topic as they come.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use super::status::{WhichBridge, ask_failed};
use super::table::printable;

#[derive(Debug, clap::Args)]
pub(super) struct TapArguments {
    /// Name of the message, for example Quote.
    message: String,
    #[command(flatten)]
    bridge: WhichBridge,
    /// End after so many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// One JSON object per message.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &TapArguments) -> ExitCode {
    let client = match arguments.bridge.connect() {
        Ok(client) => client,
        Err(code) => return code,
    };
    let mut left = arguments.count;
    let mut output = io::stdout().lock();
    let begun = || {
        if io::stderr().is_terminal() {
            let message = &arguments.message;
            super::print_error(format_args!("waiting for messages: {message}; Ctrl-C ends"));
        }
    };
    let ended = client.tap(&arguments.message, arguments.json, begun, |line| {
        // A reader that has closed the pipe has seen enough.
        if writeln!(output, "{}", printable(line))
            .and_then(|()| output.flush())
            .is_err()
        {
            return false;
        }
        if !line.starts_with("-- ")
            && let Some(left) = &mut left
        {
            *left -= 1;
        }
        left != Some(0)
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ask_failed(&error),
    }
}
