//! One module per command; each prints and returns the exit code.

pub(crate) mod check;
pub(crate) mod diff;
pub(crate) mod generate;
pub(crate) mod init;
pub(crate) mod show;

use std::io::Write as _;
use std::process::ExitCode;

/// Prints to the standard output; a reader that went away (`| head`) is not an error.
fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    let written = output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush());
    if let Err(failed) = written
        && failed.kind() != std::io::ErrorKind::BrokenPipe
    {
        eprintln!("error: output cannot be written: {failed}");
    }
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

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Which side of its column a cell stands on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Rows of cells as aligned columns, two spaces between them, nothing behind the last character.
fn table(columns: &[(&str, Side)], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = columns
        .iter()
        .map(|(name, _)| name.chars().count())
        .collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for ((cell, width), (_, side)) in cells.zip(&widths).zip(columns) {
            let gap = " ".repeat(width - cell.chars().count());
            match side {
                Side::Left => text.push_str(&format!("  {cell}{gap}")),
                Side::Right => text.push_str(&format!("  {gap}{cell}")),
            }
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(&mut columns.iter().map(|(name, _)| *name));
    let rules: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
    text.push_str(&line(&mut rules.iter().map(String::as_str)));
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}
