//! `mycelium-bridge top`: the status of a running bridge, again and again.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use mycelium_bridge::status::Status;
use mycelium_bridge::status::client::{AskError, ControlClient};

use super::paint::{self, Colour, Line, Style};
use super::status::{WhichBridge, ask_failed};
use super::terminal::{Screen, Waited};
use super::{EXIT_FAILURE, failure, picture};

/// Time between two pictures, and what rates are told from.
const REFRESH: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(super) struct TopArguments {
    #[command(flatten)]
    bridge: WhichBridge,
    /// When to use colours.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    color: Colour,
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
    let colour = arguments.color.is_on();
    if io::stdout().is_terminal() {
        match watch(client, first, colour) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failure(
                format!("terminal cannot be used: {error}"),
                "mycelium-bridge status prints the same once",
                EXIT_FAILURE,
            ),
        }
    } else {
        once(client, &first, colour)
    }
}

/// For a pipe or a file: one picture, with the rates of one second.
fn once(mut client: ControlClient, first: &Status, colour: bool) -> ExitCode {
    std::thread::sleep(REFRESH);
    match client.status() {
        Ok(status) => {
            let text = paint::text(&picture::render(&status, Some(first), None), colour);
            // A reader that has closed the pipe has seen enough.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => ask_failed(&error),
    }
}

fn watch(client: ControlClient, first: Status, colour: bool) -> io::Result<()> {
    let mut screen = Screen::enter()?;
    let path = client.path().to_owned();
    let mut client = Some(client);
    let mut problem = None;
    let (mut earlier, mut status) = (None, first);
    loop {
        let size = screen.size();
        let lines = picture::render(&status, earlier.as_ref(), Some(size.1));
        let page = page(&lines, problem.as_ref(), size);
        let page: Vec<_> = page.iter().map(|line| line.text(colour)).collect();
        screen.show(&page)?;
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
fn page(lines: &[Line], problem: Option<&AskError>, (rows, columns): (usize, usize)) -> Vec<Line> {
    let room = rows.saturating_sub(1);
    let shown = lines.iter().take(room);
    let mut page: Vec<_> = shown.map(|line| line.cut(columns)).collect();
    let hidden = lines.len().saturating_sub(room);
    let (last, style) = match problem {
        Some(error) => (
            format!("{error}; trying again, this is the last that was seen   q ends"),
            Style::Bad,
        ),
        None if hidden > 0 => (
            format!("{hidden} more lines in a taller window   q ends"),
            Style::Dim,
        ),
        None => ("q ends".to_owned(), Style::Dim),
    };
    page.push(Line::new().with(last, style).cut(columns));
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_fits_into_its_window() {
        let line = |text: &str| Line::new().with(text, Style::Bad).plain("  and more");
        let lines = ["one", "two", "three"].map(line);
        let shown = |rows, columns| {
            let page = page(&lines, None, (rows, columns));
            page.iter().map(|it| it.text(false)).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(3, 9),
            ["one  and", "two  and", "1 more li"],
            "two rows, and what is not to be seen"
        );
        let whole = [
            "one  and more",
            "two  and more",
            "three  and more",
            "q ends",
        ];
        assert_eq!(shown(24, 80), whole);
        assert_eq!(shown(0, 0), [""]);
    }
}
