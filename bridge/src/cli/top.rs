//! `mycelium-bridge top`: the status of a running bridge, again and again.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use mycelium_bridge::status::Status;
use mycelium_bridge::status::client::{AskError, ControlClient};

use super::status::{WhichBridge, ask_failed};
use super::terminal::{Screen, Waited};
use super::{EXIT_FAILURE, failure, picture};

/// Time between two pictures, and what rates are told from.
const REFRESH: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct TopArguments {
    #[command(flatten)]
    bridge: WhichBridge,
}

pub(super) fn run(arguments: &TopArguments) -> ExitCode {
    let mut client = match arguments.bridge.connect() {
        Ok(client) => client,
        Err(code) => return code,
    };
    let first = match client.status() {
        Ok(status) => status,
        Err(error) => return ask_failed(&error),
    };
    if io::stdout().is_terminal() {
        match watch(client, first) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failure(
                format!("terminal cannot be used: {error}"),
                "mycelium-bridge status prints the same once",
                EXIT_FAILURE,
            ),
        }
    } else {
        once(client, &first)
    }
}

/// For a pipe or a file: one picture, with the rates of one second.
fn once(mut client: ControlClient, first: &Status) -> ExitCode {
    std::thread::sleep(REFRESH);
    match client.status() {
        Ok(status) => {
            // A reader that has closed the pipe has seen enough.
            let _ = io::stdout().write_all(picture::render(&status, Some(first)).as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => ask_failed(&error),
    }
}

fn watch(client: ControlClient, first: Status) -> io::Result<()> {
    let mut screen = Screen::enter()?;
    let path = client.path().to_owned();
    let mut client = Some(client);
    let mut problem = None;
    let (mut earlier, mut status) = (None, first);
    loop {
        let text = picture::render(&status, earlier.as_ref());
        screen.show(&page(&text, problem.as_ref(), screen.size()))?;
        if screen.wait(REFRESH)? == Waited::End {
            return Ok(());
        }
        match ask(&path, &mut client) {
            Ok(new) => {
                problem = None;
                // Asked for early because of another window: rates of a moment would jump.
                if new.pid != status.pid || new.now_ms >= status.now_ms + 500 {
                    earlier = Some(std::mem::replace(&mut status, new));
                }
            }
            Err(error) => {
                client = None;
                problem = Some(error);
            }
        }
    }
}

/// Asks, after connecting anew where the last conversation broke off.
fn ask(path: &Path, client: &mut Option<ControlClient>) -> Result<Status, AskError> {
    match client {
        Some(client) => client.status(),
        None => client.insert(ControlClient::connect(path)?).status(),
    }
}

/// What fits into a window of so many rows and columns, with the last row for keys and problems.
fn page(text: &str, problem: Option<&AskError>, (rows, columns): (usize, usize)) -> Vec<String> {
    let room = rows.saturating_sub(1);
    let all: Vec<&str> = text.lines().collect();
    let mut lines: Vec<String> = all
        .iter()
        .take(room)
        .map(|line| paint(line, columns))
        .collect();
    let hidden = all.len().saturating_sub(room);
    let last = match problem {
        Some(error) => format!("{error}; trying again, this is the last that was seen   q ends"),
        None if hidden > 0 => format!("{hidden} more lines in a taller window   q ends"),
        None => "q ends".to_owned(),
    };
    let last: String = last.chars().take(columns).collect();
    let colour = if problem.is_some() {
        "\x1b[31m"
    } else {
        "\x1b[2m"
    };
    lines.push(format!("{colour}{last}\x1b[0m"));
    lines
}

/// Cuts a line to the width of the window and gives it a colour by what it says.
fn paint(line: &str, columns: usize) -> String {
    let cut: String = line.chars().take(columns).collect();
    let words = || line.split_whitespace();
    let is_title = !line.is_empty() && !line.starts_with(' ') && words().count() == 1;
    let is_note = line.starts_with("      ");
    let colour = if is_title || line.starts_with("mycelium-bridge ") {
        "\x1b[1m"
    } else if line.contains("  gave up ")
        || line.contains("  backoff ")
        || line.starts_with("the data plane")
    {
        "\x1b[31m"
    } else if is_note {
        "\x1b[33m"
    } else {
        return cut;
    };
    format!("{colour}{cut}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fits_into_its_window() {
        let text =
            "mycelium-bridge 1  pid 2\n\nworkers\n  a  gave up  x\n      last error: no\n  b  up\n";
        let lines = page(text, None, (4, 10));
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0], "\x1b[1mmycelium-b\x1b[0m");
        assert_eq!(lines[2], "\x1b[1mworkers\x1b[0m");
        assert_eq!(lines[3], "\x1b[2m3 more lin\x1b[0m");
        let lines = page(text, None, (24, 80));
        assert_eq!(lines.len(), 7);
        assert_eq!(lines[3], "\x1b[31m  a  gave up  x\x1b[0m");
        assert_eq!(lines[4], "\x1b[33m      last error: no\x1b[0m");
        assert_eq!(lines[5], "  b  up");
        assert_eq!(lines[6], "\x1b[2mq ends\x1b[0m");
        assert_eq!(page(text, None, (0, 0)).len(), 1);
    }
}
