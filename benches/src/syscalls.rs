//! System calls per message, counted by strace over both processes.

use crate::catalog::Case;
use crate::runner::Runner;

/// Counts the calls of a short and of a long run. What both make once, to start and to end, falls out of the difference.
///
/// # Errors
///
/// If strace is missing or not allowed, or a run fails.
pub fn per_message(runner: &Runner, case: &Case, millis: u64) -> Result<f64, String> {
    let (short, long) = (
        count(runner, case, millis / 10)?,
        count(runner, case, millis)?,
    );
    let messages = long.1.saturating_sub(short.1);
    if messages == 0 {
        return Err("the long run carried no more messages than the short one".to_owned());
    }
    Ok(long.0.saturating_sub(short.0) as f64 / messages as f64)
}

/// Calls and messages of one run.
fn count(runner: &Runner, case: &Case, millis: u64) -> Result<(u64, u64), String> {
    let path = std::env::temp_dir().join(format!("mycelium-strace-{}", std::process::id()));
    let name = path.to_string_lossy();
    let outcome = runner.run_under(&["strace", "-f", "-c", "-o", &name], case, millis);
    let table = std::fs::read_to_string(&path);
    // A file that strace did not get to write is not there to be removed.
    let _ = std::fs::remove_file(&path);
    let sample = outcome.map_err(|error| format!("strace: {error}"))?;
    let table = table.map_err(|error| format!("strace wrote nothing: {error}"))?;
    Ok((total_calls(&table)?, sample.messages_total))
}

/// The calls in the last line of the table: percentage, seconds, microseconds per call, calls, errors if there were any,
/// and `total`.
fn total_calls(table: &str) -> Result<u64, String> {
    let total = table.lines().find(|line| line.ends_with(" total"));
    let calls = total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    calls.ok_or_else(|| format!("strace's table has no total: {table:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_found_with_and_without_errors() {
        let head = "% time     seconds  usecs/call     calls    errors syscall\n";
        let with = format!("{head}100.00    0.001155           8       141         8 total\n");
        let without = format!("{head}100.00    0.001155           8       140           total\n");
        assert_eq!(total_calls(&with), Ok(141));
        assert_eq!(total_calls(&without), Ok(140));
        assert!(total_calls(head).is_err());
    }
}
