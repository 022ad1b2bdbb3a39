//! Where and when something was measured.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use mycelium_bench_harness::cores::{Cores, allowed};
use serde::Serialize;

use crate::runner::root;

/// The machine, the source and the command of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Host {
    /// Model name of the processor.
    pub cpu: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Processors that the program may use.
    pub cores: usize,
    /// The two that the sides of a pair were kept on; `null` if there is only one.
    pub pinned: Option<String>,
    /// Mean number of running processes in the minute before: what else the machine did.
    pub load_before: Option<f64>,
    /// UTC, seconds since 1970.
    pub unix_time: u64,
    /// UTC.
    pub date: String,
    /// Commit of the source, with `-dirty` if files differ from it.
    pub commit: String,
    /// The command line.
    pub command: String,
    /// Rounds and milliseconds of a run of the compared cases.
    pub rounds: usize,
    /// Milliseconds that each run measured.
    pub millis: u64,
    /// Whether the program was optimised; figures of one that was not mean nothing.
    pub optimised: bool,
}

impl Host {
    /// Looks around, for a program of this name.
    pub fn look(program: &str, cores: Cores, rounds: usize, millis: u64) -> Self {
        let unix_time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        Self {
            cpu: cpu(),
            kernel: file("/proc/sys/kernel/osrelease"),
            cores: allowed().len(),
            pinned: cores.are_two().then(|| cores.to_string()),
            load_before: file("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok()),
            unix_time,
            date: date(unix_time),
            commit: commit(),
            command: format!("{program} {}", arguments.join(" "))
                .trim()
                .to_owned(),
            rounds,
            millis,
            optimised: cfg!(not(debug_assertions)),
        }
    }
}

fn file(path: &str) -> String {
    std::fs::read_to_string(path)
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn cpu() -> String {
    let info = file("/proc/cpuinfo");
    let model = info.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    });
    model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(root())
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_owned();
    };
    // One program after the other rewrites its tables in this document, which is no source of any figure.
    let differs = ["status", "--porcelain", "--untracked-files=no", "--"];
    let but_tables = [".", ":(exclude)docs/benchmarks.md"];
    match git(&[&differs[..], &but_tables].concat()).as_deref() {
        Some("") => commit,
        _ => format!("{commit}-dirty"),
    }
}

/// The day of a moment, by the usual reckoning from the first of March of year 0.
fn date(unix_time: u64) -> String {
    let days = unix_time / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_reckoned_over_leap_years() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_735_689_599), "2024-12-31");
        assert_eq!(date(4_107_542_400), "2100-03-01");
    }
}
