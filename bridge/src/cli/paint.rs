//! Lines of text in colours, for a terminal; the same without where there is none.

use std::io::{self, IsTerminal};

/// Characters that a wrapped line has room for beside its indentation.
const WRAP_MIN: usize = 20;

/// When to use colours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Colour {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Wherever standard output goes.
    Always,
    /// Nowhere.
    Never,
}

impl Colour {
    /// Whether standard output gets colours.
    pub(super) fn is_on(self) -> bool {
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => io::stdout().is_terminal() && !is_set("NO_COLOR") && !is_dumb(),
        }
    }
}

/// What a piece of text says by its looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Style {
    #[default]
    Plain,
    /// A title.
    Strong,
    /// Of less interest: headings, zeros.
    Dim,
    Good,
    /// Worth a look.
    Warn,
    Bad,
}

impl Style {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Strong => Some("\x1b[1m"),
            Self::Dim => Some("\x1b[2m"),
            Self::Good => Some("\x1b[32m"),
            Self::Warn => Some("\x1b[33m"),
            Self::Bad => Some("\x1b[1;31m"),
        }
    }
}

/// One line, in pieces of one style each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line(Vec<(String, Style)>);

impl Line {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// With this at its end.
    pub(super) fn with(mut self, text: impl Into<String>, style: Style) -> Self {
        self.0.push((text.into(), style));
        self
    }

    pub(super) fn plain(self, text: impl Into<String>) -> Self {
        self.with(text, Style::Plain)
    }

    /// Without what stands behind the first so many characters, and without spaces at its end.
    pub(super) fn cut(&self, columns: usize) -> Self {
        let mut left = columns;
        let mut pieces = Vec::new();
        for (text, style) in &self.0 {
            let piece: String = text.chars().take(left).collect();
            left -= piece.chars().count();
            pieces.push((piece, *style));
        }
        Self(pieces)
    }

    /// In as many lines as it takes for a window of so many columns, the further ones indented. A line ends at the last
    /// `between` that it has room for, or else at a space; a word that has no room is cut in two.
    pub(super) fn wrapped(&self, columns: usize, between: &str, indent: usize) -> Vec<Self> {
        let pieces = self.0.iter();
        let mut rest: Vec<(char, Style)> = pieces
            .flat_map(|(text, style)| text.chars().map(|it| (it, *style)))
            .collect();
        let mut lines = Vec::new();
        // In a window of next to nothing, the indentation would leave no room.
        while rest.len() > columns && columns > indent + WRAP_MIN {
            let begin = rest.iter().take_while(|(it, _)| *it == ' ').count();
            let is_at = |text: &str, at: usize| {
                let mut letters = text.chars().zip(&rest[at..]);
                rest.len() - at >= text.len() && letters.all(|(one, (other, _))| one == *other)
            };
            let last = |text: &str| (begin + 1..=columns).rev().find(|&at| is_at(text, at));
            let end = last(between).or_else(|| last(" ")).unwrap_or(columns);
            let next = rest.split_off(end);
            lines.push(Self::of(&rest));
            let words = next.into_iter().skip_while(|(it, _)| *it == ' ');
            rest = vec![(' ', Style::Plain); indent];
            rest.extend(words);
        }
        lines.push(Self::of(&rest));
        lines
    }

    fn of(letters: &[(char, Style)]) -> Self {
        let pieces = letters.chunk_by(|one, other| one.1 == other.1);
        Self(
            pieces
                .map(|piece| (piece.iter().map(|it| it.0).collect(), piece[0].1))
                .collect(),
        )
    }

    /// The text, with the codes for its looks if they are wanted.
    pub(super) fn text(&self, colour: bool) -> String {
        let mut out = String::new();
        for (text, style) in &self.0 {
            match style.code().filter(|_| colour && !text.trim().is_empty()) {
                Some(code) => {
                    out += code;
                    out += text;
                    out += "\x1b[0m";
                }
                None => out += text,
            }
        }
        out.truncate(out.trim_end().len());
        out
    }
}

/// All lines, each with its end.
pub(super) fn text(lines: &[Line], colour: bool) -> String {
    lines.iter().map(|line| line.text(colour) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_what_is_seen_of_it() {
        let line = Line::new()
            .plain("  ")
            .with("läuft", Style::Good)
            .plain("  12");
        assert_eq!(line.text(false), "  läuft  12");
        assert_eq!(line.text(true), "  \x1b[32mläuft\x1b[0m  12");
        assert_eq!(line.cut(4).text(true), "  \x1b[32mlä\x1b[0m");
        assert_eq!(line.cut(8).text(false), "  läuft");
        assert_eq!(line.cut(0).text(true), "");
    }

    #[test]
    fn a_line_is_wrapped_where_it_may_be() {
        let line = Line::new()
            .plain("published 1,000   delivered 12   ")
            .with("missed 7", Style::Warn);
        let shown = |columns, between| {
            let lines = line.wrapped(columns, between, 2);
            let lines: Vec<_> = lines.iter().map(|it| it.text(false)).collect();
            assert!(lines.iter().all(|it| it.chars().count() <= columns.max(20)));
            lines
        };
        assert_eq!(
            shown(60, "   "),
            ["published 1,000   delivered 12   missed 7"]
        );
        assert_eq!(
            shown(38, "   "),
            ["published 1,000   delivered 12", "  missed 7"]
        );
        assert_eq!(
            shown(27, "   "),
            ["published 1,000", "  delivered 12   missed 7"]
        );
        assert_eq!(
            shown(28, " "),
            ["published 1,000   delivered", "  12   missed 7"]
        );
        let warned = &line.wrapped(38, "   ", 2)[1];
        assert_eq!(warned.text(true), "  \x1b[33mmissed 7\x1b[0m");
        let long = Line::new().plain("x".repeat(50)).wrapped(30, " ", 4);
        let long: Vec<_> = long.iter().map(|it| it.text(false).len()).collect();
        assert_eq!(long, [30, 24]);
    }

    #[test]
    fn a_window_of_next_to_nothing_wraps_nothing() {
        let line = Line::new().plain("published 1,000 delivered 12");
        assert_eq!(line.wrapped(10, " ", 2), vec![line]);
    }
}
