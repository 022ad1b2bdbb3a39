//! What is wrong with a configuration file, and where: every problem of one file, in the order of its lines.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where there is something to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file, at the offending key or value.
    File {
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
    },
    /// In the environment: the name of the variable.
    Variable(String),
}

/// One thing to change in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong, with the value and the legal range.
    pub message: String,
    /// What to change; empty where the message says it already.
    pub hint: String,
}

/// Why a configuration cannot be used: every problem found, not only the first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as it was named by the caller.
    pub path: PathBuf,
    /// At least one problem, in the order of the file; those of variables come last.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// A problem that concerns the file as a whole.
    pub(crate) fn whole_file(path: &Path, message: String, hint: &str) -> Self {
        let problem = Problem {
            place: Place::File { line: 1, column: 1 },
            message,
            hint: hint.to_owned(),
        };
        Self {
            path: path.to_owned(),
            problems: vec![problem],
        }
    }

    /// Each problem as `(file:line:column: message, hint)`, or with a variable in the place of the file; the hint may be empty.
    pub fn lines(&self) -> impl Iterator<Item = (String, &str)> {
        let path = self.path.display();
        self.problems.iter().map(move |p| {
            let message = &p.message;
            let line = match &p.place {
                Place::File { line, column } => format!("{path}:{line}:{column}: {message}"),
                Place::Variable(name) => format!("{name}: {message}"),
            };
            (line, p.hint.as_str())
        })
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (line, hint)) in self.lines().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            f.write_str(&line)?;
            if !hint.is_empty() {
                write!(f, "\nhint: {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Collects problems while a file is read, and turns byte offsets into lines and columns. Offsets behind the end of the
/// file stand for variables of the environment.
#[derive(Debug)]
pub(crate) struct Problems<'i> {
    source: &'i str,
    variables: Vec<String>,
    found: Vec<(usize, Problem)>,
}

impl<'i> Problems<'i> {
    pub(crate) fn new(source: &'i str) -> Self {
        Self {
            source,
            variables: Vec::new(),
            found: Vec::new(),
        }
    }

    /// The span of what a variable of the environment says.
    pub(crate) fn variable(&mut self, name: &str) -> Range<usize> {
        self.variables.push(name.to_owned());
        let offset = self.source.len() + self.variables.len();
        offset..offset
    }

    fn place(&self, offset: usize) -> Place {
        let behind = offset.checked_sub(self.source.len() + 1);
        match behind.and_then(|number| self.variables.get(number)) {
            Some(name) => Place::Variable(name.clone()),
            None => {
                let (line, column) = position(self.source, offset);
                Place::File { line, column }
            }
        }
    }

    /// Notes a problem at the start of `span` (bytes of the source).
    pub(crate) fn add(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let place = self.place(span.start);
        self.found.push((
            span.start,
            Problem {
                place,
                message: message.into(),
                hint: hint.into(),
            },
        ));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Every problem in the order of the file.
    pub(crate) fn into_error(mut self, path: &Path) -> ConfigError {
        self.found.sort_by_key(|(offset, _)| *offset);
        let problems = self.found.into_iter().map(|(_, problem)| problem).collect();
        ConfigError {
            path: path.to_owned(),
            problems,
        }
    }
}

/// Line and column, both counted from 1, of a byte offset. An offset past the end or inside a character is
/// moved to the nearest character before it.
fn position(source: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(source.len());
    while !source.is_char_boundary(end) {
        end -= 1;
    }
    let before = &source[..end];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[line_start..].chars().count() + 1,
    )
}

/// The candidate that a misspelt word most likely stands for.
pub(crate) fn did_you_mean<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(&lower, &candidate.to_lowercase()), candidate))
        // A third of the letters may differ; more is another word rather than a slip of the finger.
        .filter(|(distance, candidate)| {
            *distance <= candidate.len().max(word.len()).div_ceil(3).min(4)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The candidates, those that are most like a word first.
pub(crate) fn closest_first<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Vec<&'c str> {
    let lower = word.to_lowercase();
    let mut candidates: Vec<_> = candidates.into_iter().collect();
    candidates.sort_by_cached_key(|it| edit_distance(&lower, &it.to_lowercase()));
    candidates
}

/// Levenshtein distance in characters, a swap of two neighbours counting as one edit.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substitution = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substitution.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_characters_and_survives_odd_offsets() {
        let source = "a\nüb = 1\n";
        assert_eq!(position(source, 0), (1, 1));
        assert_eq!(position(source, 2), (2, 1));
        assert_eq!(position(source, 3), (2, 1), "inside the two bytes of ü");
        assert_eq!(position(source, 4), (2, 2));
        assert_eq!(position(source, 999), (3, 1));
    }

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_another_word_is_not() {
        let keys = ["name", "command", "restart", "ring_capacity"];
        assert_eq!(did_you_mean("nmae", keys), Some("name"));
        assert_eq!(did_you_mean("ring_capasity", keys), Some("ring_capacity"));
        assert_eq!(did_you_mean("RESTART", keys), Some("restart"));
        assert_eq!(did_you_mean("affinity", keys), None);
        assert_eq!(did_you_mean("", keys), None);
    }
}
