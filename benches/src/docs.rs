//! The tables of `docs/benchmarks.md`, between two markers.

use std::fmt::Write as _;
use std::path::Path;

use crate::catalog::SIZES;
use crate::report::{Measured, Report, goal_table};

const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// Columns of the latency table: title, carrier, what an idle side does.
const LATENCIES: &[(&str, &str, &str)] = &[
    ("ring, spinning", "ring", "spin"),
    ("`Channel`, spinning", "channel", "spin"),
    ("rtrb", "rtrb", "spin"),
    ("iceoryx2", "iceoryx2", "spin"),
    ("ring, parked", "ring", "park"),
    ("UNIX socket", "unix", "park"),
    ("fallback", "fallback", "park"),
    ("fallback over TCP", "fallback-tcp", "park"),
    ("`Channel` over UNIX", "channel-socket", "park"),
    ("`Channel` over TCP", "channel-tcp", "park"),
    ("ipc-channel", "ipc-channel", "park"),
];

/// Columns of the throughput table.
const RATES: &[(&str, &str, &str)] = &[
    ("ring, polled", "ring", "spin"),
    ("ring, default wait", "ring", "hybrid"),
    ("`Channel` sends", "channel", "spin"),
    ("memcpy in and out", "memcpy", "spin"),
    ("the same, one buffer", "memcpy-hot", "spin"),
    ("rtrb", "rtrb", "spin"),
    ("iceoryx2", "iceoryx2", "spin"),
    ("fallback", "fallback", "park"),
    ("fallback over TCP", "fallback-tcp", "park"),
    ("`Channel` over UNIX", "channel-socket", "park"),
    ("`Channel` over TCP", "channel-tcp", "park"),
    ("UNIX socket", "unix", "park"),
    ("ipc-channel", "ipc-channel", "park"),
];

/// Replaces what stands between the markers of a file.
///
/// # Errors
///
/// If the file cannot be read or written, or has no markers.
pub fn rewrite(path: &Path, report: &Report) -> Result<(), String> {
    replace_between(path, BEGIN, END, &tables(report))
}

/// Replaces what stands between two lines of a file.
///
/// # Errors
///
/// If the file cannot be read or written, or does not have both lines.
pub fn replace_between(path: &Path, begin: &str, end: &str, new: &str) -> Result<(), String> {
    let problem = |error| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(problem)?;
    let missing = || format!("{}: no lines {begin} and {end}", path.display());
    let (before, rest) = text.split_once(begin).ok_or_else(missing)?;
    let (_, after) = rest.split_once(end).ok_or_else(missing)?;
    let text = format!("{before}{begin}\n\n{new}\n{end}{after}");
    std::fs::write(path, text).map_err(problem)
}

/// All tables, as Markdown.
fn tables(report: &Report) -> String {
    let host = &report.host;
    let pinned = host.pinned.as_deref().unwrap_or("none, there is only one");
    let load = host
        .load_before
        .map_or("unknown".to_owned(), |load| format!("{load:.2}"));
    let mut out = format!(
        "| | |\n|---|---|\n| date | {} |\n| commit | {} |\n| command | `{}` |\n| processor | {} |\n\
         | kernel | {} |\n| cores, and those of the pair | {}; {pinned} |\n| load before | {load} |\n\
         | rounds, time of a run | {}, {} ms |\n\n### Goals\n\n",
        host.date,
        host.commit,
        host.command,
        host.cpu,
        host.kernel,
        host.cores,
        host.rounds,
        host.millis,
    );
    out += &goal_table(report.outcomes());
    let one_way = |one: &Measured| one.one_way_ns.map(thousands);
    let rate = |one: &Measured| one.rate.map(|rate| format!("{:.3}", rate / 1e6));
    let gigabytes = |one: &Measured| {
        one.bytes_per_second
            .map(|rate| format!("{:.2}", rate / 1e9))
    };
    table(
        &mut out,
        report,
        "One way, in nanoseconds",
        "latency",
        LATENCIES,
        one_way,
    );
    percentile_table(&mut out, report);
    table(
        &mut out,
        report,
        "Millions of messages in a second",
        "throughput",
        RATES,
        rate,
    );
    table(
        &mut out,
        report,
        "Gigabytes of payload in a second",
        "throughput",
        RATES,
        gigabytes,
    );
    out
}

fn table(
    out: &mut String,
    report: &Report,
    title: &str,
    measure: &str,
    columns: &[(&str, &str, &str)],
    figure: impl Fn(&Measured) -> Option<String>,
) {
    let titles: Vec<&str> = columns.iter().map(|column| column.0).collect();
    let rule = "---|".repeat(columns.len());
    let _ = writeln!(
        out,
        "\n### {title}\n\n| payload | {} |\n|---|{rule}",
        titles.join(" | ")
    );
    for &payload in SIZES {
        let cells: Vec<String> = columns
            .iter()
            .map(|(_, carrier, waiting)| {
                let found = report.measured().find(|one| {
                    (one.carrier, one.measure, one.payload, one.waiting)
                        == (*carrier, measure, payload, *waiting)
                });
                found.and_then(&figure).unwrap_or_else(|| "-".to_owned())
            })
            .collect();
        let _ = writeln!(out, "| {payload} B | {} |", cells.join(" | "));
    }
}

fn percentile_table(out: &mut String, report: &Report) {
    let _ = writeln!(
        out,
        "\n### Single round trips, in nanoseconds\n\n| carrier | payload | waiting | p50 | p90 | p99 | p99.9 | max |\n\
         |---|---|---|---|---|---|---|---|"
    );
    for one in report.measured() {
        let Some(percentiles) = one.round_trip_ns else {
            continue;
        };
        if ![8, 64, 4096].contains(&one.payload) {
            continue;
        }
        let figures = [
            percentiles.p50,
            percentiles.p90,
            percentiles.p99,
            percentiles.p99_9,
            percentiles.max,
        ]
        .map(|figure| thousands(figure as f64));
        let _ = writeln!(
            out,
            "| {} | {} B | {} | {} |",
            one.carrier,
            one.payload,
            one.waiting,
            figures.join(" | ")
        );
    }
}

/// A whole number with a space between thousands.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let grouped = [7.2, 999.6, 12_345.0, 1_234_567.0].map(thousands);
        assert_eq!(grouped, ["7", "1 000", "12 345", "1 234 567"]);
    }
}
