//! The live progress line on standard error.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

const REDRAW: Duration = Duration::from_millis(100);
/// Without a terminal a line is written each time, so less often.
const WRITE: Duration = Duration::from_secs(1);

/// One line that shows how far a phase is.
pub(super) struct Progress {
    label: String,
    total: u64,
    started: Instant,
    drawn: Instant,
    terminal: bool,
}

impl Progress {
    pub(super) fn start(label: impl Into<String>, total: u64) -> Self {
        let now = Instant::now();
        let progress = Self {
            label: label.into(),
            total,
            started: now,
            drawn: now,
            terminal: stderr().is_terminal(),
        };
        progress.draw(0);
        progress
    }

    /// Shows the new state, if the last was some time ago.
    pub(super) fn update(&mut self, done: u64) {
        let pause = if self.terminal { REDRAW } else { WRITE };
        if self.drawn.elapsed() >= pause {
            self.drawn = Instant::now();
            self.draw(done);
        }
    }

    /// Shows the end state and leaves the line.
    pub(super) fn finish(self) {
        self.draw(self.total);
        if self.terminal {
            let _ = writeln!(stderr());
        }
    }

    fn draw(&self, done: u64) {
        let percent = done * 100 / self.total.max(1);
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = if done > 0 && seconds > 0.0 {
            done as f64 / seconds
        } else {
            0.0
        };
        let line = format!(
            "{:<35} {:>9} of {:<9} {percent:>3}% {:>9}/s",
            self.label,
            grouped(done),
            grouped(self.total),
            grouped(rate as u64)
        );
        // A closed standard error is no reason to stop the run.
        let _ = if self.terminal {
            write!(stderr(), "\r{line}\x1b[K")
        } else {
            writeln!(stderr(), "{line}")
        };
        let _ = stderr().flush();
    }
}

/// The number with a comma between groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn digits_are_grouped() {
        let numbers = [0, 12, 999, 1000, 1_234_567];
        assert_eq!(
            numbers.map(grouped),
            ["0", "12", "999", "1,000", "1,234,567"]
        );
    }
}
