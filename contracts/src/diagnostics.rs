//! What is wrong with a contracts file, where, and what to change.

use std::fmt;
use std::path::PathBuf;

use crate::model::NAME_MAX;

/// A place in a file; both numbers count from 1, the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// Whether a diagnostic stops the file from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used; something in it has no effect.
    Warning,
}

/// One finding in a contracts file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Where; `None` if the file itself could not be read.
    pub at: Option<Position>,
    /// What failed, with the numbers.
    pub text: String,
    /// What to change.
    pub hint: Option<String>,
}

/// Everything that was found in one contracts file, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The file, as it was named by the caller.
    pub file: PathBuf,
    /// All findings.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self {
            file,
            diagnostics: Vec::new(),
        }
    }

    pub(crate) fn error(&mut self, at: Position, text: String, hint: &str) {
        self.push(Severity::Error, Some(at), text, hint);
    }

    pub(crate) fn warning(&mut self, at: Position, text: String, hint: &str) {
        self.push(Severity::Warning, Some(at), text, hint);
    }

    pub(crate) fn push(
        &mut self,
        severity: Severity,
        at: Option<Position>,
        text: String,
        hint: &str,
    ) {
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        self.diagnostics.push(Diagnostic {
            severity,
            at,
            text,
            hint,
        });
    }

    /// Whether at least one finding is an error.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Number of findings of one severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.diagnostics
            .iter()
            .filter(|found| found.severity == severity)
            .count()
    }

    pub(crate) fn sort(&mut self) {
        self.diagnostics.sort_by_key(|found| found.at);
    }
}

/// Findings that the text of a report shows; the others are counted.
const SHOWN_MAX: usize = 200;

impl fmt::Display for Report {
    /// One `file:line:column: …` line per finding, followed by its hint; errors come before warnings where
    /// there are more than 200, and what is beyond those is counted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = self.diagnostics.len().saturating_sub(SHOWN_MAX);
        let mut found: Vec<_> = self.diagnostics.iter().collect();
        if hidden > 0 {
            found.sort_by_key(|found| found.severity == Severity::Warning);
            found.truncate(SHOWN_MAX);
        }
        for (number, found) in found.into_iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.file.display())?;
            if let Some(at) = found.at {
                write!(f, "{}:{}:", at.line, at.column)?;
            }
            if found.severity == Severity::Warning {
                write!(f, " warning:")?;
            }
            write!(f, " {}", found.text)?;
            if let Some(hint) = &found.hint {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        if hidden > 0 {
            let file = self.file.display();
            write!(f, "\n{file}: {hidden} more findings are not shown")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}

/// The candidate that is most like `name`, if one is close enough to be what was meant.
///
/// Close enough: at most a third of the name's characters were added, left out, replaced or swapped
/// with their neighbour.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = name.chars().count();
    if length > NAME_MAX {
        return None;
    }
    let limit = (length / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|&(distance, _)| distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Number of edits, ignoring case; two neighbours that are swapped count once.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.to_lowercase().chars().collect();
    let right: Vec<char> = right.to_lowercase().chars().collect();
    // Rows of the table of edits: the one before the last, the last, and the one in work.
    let mut older: Vec<usize> = Vec::new();
    let mut old: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut least = (old[j] + usize::from(a != b))
                .min(row[j] + 1)
                .min(old[j + 1] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                least = least.min(older[j - 1] + 1);
            }
            row.push(least);
        }
        older = std::mem::replace(&mut old, row);
    }
    old[right.len()]
}
