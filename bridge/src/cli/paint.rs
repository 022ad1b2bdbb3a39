//! Lines of text in colours, for a terminal; the same without where there is none.

use std::io::{self, IsTerminal};

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
}
