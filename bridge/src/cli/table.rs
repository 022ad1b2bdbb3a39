//! Text in columns for a terminal.

use std::fmt::Write;

/// Where the text of a column begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// Rows under titles; each column is as wide as its widest cell.
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Row>,
}

enum Row {
    Cells(Vec<String>),
    /// A line of its own, indented.
    Note(String),
}

impl Table {
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        let cells = cells.iter().map(|cell| printable(cell)).collect();
        self.rows.push(Row::Cells(cells));
    }

    pub(super) fn note(&mut self, text: &str) {
        self.rows.push(Row::Note(printable(text)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| match row {
                Row::Cells(cells) => cells.get(column),
                Row::Note(_) => None,
            });
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            widest.max(self.columns[column].0.chars().count())
        };
        let widths: Vec<_> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &[String]| {
            let mut line = String::new();
            let columns = cells.iter().zip(&widths).zip(&self.columns);
            for ((cell, width), (_, align)) in columns {
                // Writing into a string does not fail.
                let _ = match align {
                    Align::Left => write!(line, "  {cell:<width$}"),
                    Align::Right => write!(line, "  {cell:>width$}"),
                };
            }
            format!("{}\n", line.trim_end())
        };
        let titles: Vec<_> = self
            .columns
            .iter()
            .map(|(title, _)| (*title).to_owned())
            .collect();
        let mut text = line(&titles);
        for row in &self.rows {
            match row {
                Row::Cells(cells) => text += &line(cells),
                Row::Note(note) => text += &format!("      {note}\n"),
            }
        }
        text
    }
}

/// Without characters that move the cursor: some texts come from peers.
pub(super) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// A number with a comma between thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of bytes in the largest unit that leaves at least 1.
pub(super) fn bytes(number: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut unit = 0;
    let mut rest = number;
    while rest >= 1 << 20 && unit + 1 < units.len() {
        rest >>= 10;
        unit += 1;
    }
    format!(
        "{}.{} {}",
        rest / 1024,
        rest % 1024 * 10 / 1024,
        units[unit]
    )
}

/// A time in its two largest units.
pub(super) fn span(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{days}d {:02}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[
            ("name", Align::Left),
            ("n", Align::Right),
            ("end", Align::Left),
        ]);
        table.row(vec!["a".into(), "1,000".into(), String::new()]);
        table.note("why\u{1b}[2J");
        table.row(vec!["länger".into(), "5".into(), "x".into()]);
        let expected =
            "  name        n  end\n  a       1,000\n      why\\u{1b}[2J\n  länger      5  x\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn numbers_are_short_and_readable() {
        let numbers = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567"]);
        let sizes = [0, 1023, 1024, 1536, 1 << 20, 5 << 30].map(bytes);
        assert_eq!(
            sizes,
            ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 GiB"]
        );
        let times = [999, 59_000, 61_000, 3_660_000, 90_000_000].map(span);
        assert_eq!(times, ["0s", "59s", "1m 01s", "1h 01m", "1d 01h"]);
    }
}
