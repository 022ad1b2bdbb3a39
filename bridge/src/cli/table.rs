//! Text in columns for a terminal.

use super::paint::{Line, Style};

/// A name that is too long keeps at least so many characters.
const NAME_MIN: usize = 12;

/// Spaces in front of a note.
const NOTE_INDENT: usize = 6;

/// Where the text of a column begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// A column. Where the window is too narrow, long names are shortened first, then columns go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    title: &'static str,
    align: Align,
    /// Whether its cells may lose their ends.
    is_name: bool,
    /// Columns with a rank go for want of room, the highest first.
    rank: u8,
}

pub(super) const fn left(title: &'static str) -> Column {
    Column {
        title,
        align: Align::Left,
        is_name: false,
        rank: 0,
    }
}

pub(super) const fn right(title: &'static str) -> Column {
    Column {
        align: Align::Right,
        ..left(title)
    }
}

impl Column {
    pub(super) const fn name(self) -> Self {
        Self {
            is_name: true,
            ..self
        }
    }

    pub(super) const fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }
}

/// What stands in a column of one row.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub(super) fn new(text: impl AsRef<str>, style: Style) -> Self {
        let text = printable(text.as_ref());
        Self { text, style }
    }

    pub(super) fn plain(text: impl AsRef<str>) -> Self {
        Self::new(text, Style::Plain)
    }

    /// A number: dim if it is 0, otherwise in this style.
    pub(super) fn count(number: u64, style: Style) -> Self {
        let style = if number == 0 { Style::Dim } else { style };
        Self::new(grouped(number), style)
    }

    pub(super) fn dash() -> Self {
        Self::new("-", Style::Dim)
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Rows under titles; each column is as wide as its widest cell.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Row>,
}

enum Row {
    Cells(Vec<Cell>),
    /// A line of its own, indented.
    Note(String, Style),
}

impl Table {
    pub(super) fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(Row::Cells(cells));
    }

    pub(super) fn note(&mut self, text: &str, style: Style) {
        self.rows.push(Row::Note(printable(text), style));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, and the titles of the columns that had to go for a window of so many characters.
    pub(super) fn lines(&self, window: Option<usize>) -> (Vec<Line>, Vec<&'static str>) {
        let mut widths = self.widths();
        let mut hidden = Vec::new();
        if let Some(window) = window {
            self.shorten(&mut widths, window);
            while total(&widths) > window
                && let Some(at) = self.next_to_go(&widths)
            {
                hidden.push(self.columns[at].title);
                widths[at] = None;
                // What was shortened may have room again.
                let whole = self.widths();
                for (width, whole) in widths.iter_mut().zip(whole) {
                    *width = width.and(whole);
                }
                self.shorten(&mut widths, window);
            }
        }
        let titles = self.columns.iter();
        let titles: Vec<_> = titles.map(|it| Cell::new(it.title, Style::Dim)).collect();
        let mut lines = vec![self.line(&titles, &widths)];
        for row in &self.rows {
            match row {
                Row::Cells(cells) => lines.push(self.line(cells, &widths)),
                Row::Note(note, style) => {
                    let note = Line::new()
                        .plain(" ".repeat(NOTE_INDENT))
                        .with(note, *style);
                    let window = window.unwrap_or(usize::MAX);
                    lines.extend(note.wrapped(window, " ", NOTE_INDENT + 2));
                }
            }
        }
        (lines, hidden)
    }

    /// How wide each column wants to be.
    fn widths(&self) -> Vec<Option<usize>> {
        let cells = |column: usize| {
            self.rows.iter().filter_map(move |row| match row {
                Row::Cells(cells) => cells.get(column),
                Row::Note(..) => None,
            })
        };
        let columns = self.columns.iter().enumerate();
        let widths = columns.map(|(at, column)| {
            let widest = cells(at).map(Cell::width).max().unwrap_or(0);
            Some(widest.max(column.title.chars().count()))
        });
        widths.collect()
    }

    /// Takes what is too much from the names.
    fn shorten(&self, widths: &mut [Option<usize>], window: usize) {
        for (at, column) in self.columns.iter().enumerate() {
            let excess = total(widths).saturating_sub(window);
            if column.is_name
                && let Some(width) = &mut widths[at]
            {
                *width -= excess.min(width.saturating_sub(NAME_MIN));
            }
        }
    }

    fn next_to_go(&self, widths: &[Option<usize>]) -> Option<usize> {
        let shown =
            (0..widths.len()).filter(|&at| widths[at].is_some() && self.columns[at].rank > 0);
        shown.max_by_key(|&at| self.columns[at].rank)
    }

    fn line(&self, cells: &[Cell], widths: &[Option<usize>]) -> Line {
        let mut line = Line::new();
        for ((cell, width), column) in cells.iter().zip(widths).zip(&self.columns) {
            let Some(width) = *width else { continue };
            let text = if cell.width() > width {
                let kept: String = cell.text.chars().take(width.saturating_sub(1)).collect();
                kept + "…"
            } else {
                cell.text.clone()
            };
            let room = " ".repeat(width - text.chars().count());
            line = line.plain("  ");
            line = match column.align {
                Align::Left => line.with(text, cell.style).plain(room),
                Align::Right => line.plain(room).with(text, cell.style),
            };
        }
        line
    }
}

/// Characters of a line with these columns.
fn total(widths: &[Option<usize>]) -> usize {
    widths.iter().flatten().map(|width| width + 2).sum()
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

/// A short time, in the unit that suits it.
pub(super) fn short(micros: u64) -> String {
    let tenths = |unit: u64| format!("{}.{}", micros / unit, micros % unit * 10 / unit);
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{} ms", tenths(1_000)),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        1_000_000..60_000_000 => format!("{} s", tenths(1_000_000)),
        _ => span(micros / 1_000),
    }
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
    use super::super::paint::text;
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&[
            left("name").name(),
            right("n").rank(1),
            right("pid").rank(2),
            left("end"),
        ]);
        let cells = |texts: [&str; 4]| texts.map(Cell::plain).to_vec();
        table.row(cells(["a", "1,000", "7", ""]));
        table.note("why\u{1b}[2J", Style::Warn);
        table.row(cells(["ein langer länglicher Name", "5", "8", "x"]));
        table
    }

    fn shown(window: Option<usize>) -> (String, Vec<&'static str>) {
        let (lines, hidden) = table().lines(window);
        (text(&lines, false), hidden)
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let expected = "  name                            n  pid  end
  a                           1,000    7
      why\\u{1b}[2J
  ein langer länglicher Name      5    8  x
";
        assert_eq!(shown(None), (expected.to_owned(), vec![]));
    }

    #[test]
    fn a_narrow_window_shortens_names_and_then_takes_columns() {
        let (text, hidden) = shown(Some(36));
        assert!(
            text.ends_with("  ein langer längl…      5    8  x\n"),
            "{text}"
        );
        assert!(hidden.is_empty());
        let (text, hidden) = shown(Some(26));
        assert!(text.ends_with("  ein langer …      5  x\n"), "{text}");
        assert_eq!(hidden, ["pid"]);
        let (text, hidden) = shown(Some(10));
        assert!(text.ends_with("  ein langer …  x\n"), "{text}");
        assert_eq!(hidden, ["pid", "n"]);
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
        let shorts = [7, 1_500, 15_000, 1_250_000, 61_000_000].map(short);
        assert_eq!(shorts, ["7 µs", "1.5 ms", "15 ms", "1.2 s", "1m 01s"]);
        assert_eq!(times, ["0s", "59s", "1m 01s", "1h 01m", "1d 01h"]);
    }
}
