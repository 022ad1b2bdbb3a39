//! What a run found: medians of cases, ratios within rounds, the report as JSON, the table of goals.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mycelium_bench_harness::Sample;
use mycelium_bench_harness::sample::{Percentiles, median};
use serde::Serialize;

use crate::catalog::{Bound, CALLS, COUNTED, Case, GOALS, Goal, figure};
use crate::host::Host;
use crate::rounds;

/// The report, as it is written to the file.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The goals' figures by key; `null` where there is none, and the outcome in `cases` says why.
    pub ratios: BTreeMap<&'static str, Option<f64>>,
    /// Where, when and how.
    pub host: Host,
    /// Every case, and then every goal.
    pub cases: Vec<Entry>,
}

/// One line of the report.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// A case that was measured.
    Case(Measured),
    /// A goal.
    Goal(Outcome),
}

/// What the rounds of a case found.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// What carried the messages.
    pub carrier: &'static str,
    /// Latency or throughput.
    pub measure: &'static str,
    /// Bytes of a message.
    pub payload: usize,
    /// What an idle side did.
    pub waiting: &'static str,
    /// Median over the rounds: nanoseconds one way.
    pub one_way_ns: Option<f64>,
    /// Medians over the rounds, percentile by percentile; `max` is the highest of all rounds.
    pub round_trip_ns: Option<Percentiles>,
    /// Median over the rounds: messages in a second.
    pub rate: Option<f64>,
    /// Median over the rounds: bytes of payload in a second.
    pub bytes_per_second: Option<f64>,
    /// The figure of every round that worked.
    pub rounds: Vec<f64>,
    /// Why a round gave nothing, if one did.
    pub failure: Option<String>,
}

/// How a goal came out.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Its key.
    pub key: &'static str,
    /// What it compares.
    pub what: &'static str,
    /// What was wanted.
    pub goal: String,
    /// The median over the rounds.
    pub value: Option<f64>,
    /// The lowest and the highest of the rounds.
    pub spread: Option<(f64, f64)>,
    /// The ratio of every round.
    pub rounds: Vec<f64>,
    /// Whether the median meets the goal; `null` if there is none.
    pub met: Option<bool>,
    /// Why there is no value.
    pub reason: Option<String>,
}

/// All runs of all cases, in the order of their rounds.
pub type Runs = rounds::Runs<Case, Sample>;

impl Measured {
    /// Sums the rounds of a case up.
    pub fn new(case: &Case, runs: &[Result<Sample, String>]) -> Self {
        let samples: Vec<&Sample> = runs.iter().filter_map(|run| run.as_ref().ok()).collect();
        let middle = |of: fn(&Sample) -> Option<f64>| {
            let values: Vec<f64> = samples.iter().filter_map(|sample| of(sample)).collect();
            (!values.is_empty()).then(|| median(&values))
        };
        let rate = middle(|sample| sample.rate);
        Self {
            carrier: case.carrier,
            measure: case.measure.name(),
            payload: case.payload,
            waiting: case.waiting.name(),
            one_way_ns: middle(|sample| sample.one_way_ns),
            round_trip_ns: percentiles(
                &samples
                    .iter()
                    .filter_map(|sample| sample.round_trip_ns)
                    .collect::<Vec<_>>(),
            ),
            rate,
            bytes_per_second: rate.map(|rate| rate * case.payload as f64),
            rounds: samples.iter().filter_map(|sample| figure(sample)).collect(),
            failure: failure(runs),
        }
    }
}

/// Medians over rounds, percentile by percentile; `max` is the highest of all rounds. `None` without a round.
pub fn percentiles(rounds: &[Percentiles]) -> Option<Percentiles> {
    let max = rounds.iter().map(|one| one.max).max()?;
    let middle = |of: fn(&Percentiles) -> u64| {
        let values: Vec<f64> = rounds.iter().map(|one| of(one) as f64).collect();
        median(&values) as u64
    };
    Some(Percentiles {
        p50: middle(|one| one.p50),
        p90: middle(|one| one.p90),
        p99: middle(|one| one.p99),
        p99_9: middle(|one| one.p99_9),
        max,
        count: rounds.iter().map(|one| one.count).sum(),
    })
}

/// Why a run of a case gave nothing, if one did.
pub fn failure<S>(runs: &[Result<S, String>]) -> Option<String> {
    runs.iter().find_map(|run| run.as_ref().err().cloned())
}

/// The ratio of a goal in every round in which both cases worked.
fn outcome(goal: &Goal, runs: &Runs) -> Outcome {
    let of = |wanted: &Case| {
        runs.iter()
            .find(|(case, _)| case == wanted)
            .map(|(_, runs)| runs)
    };
    let none = vec![];
    let (over, under) = (
        of(&goal.over).unwrap_or(&none),
        of(&goal.under).unwrap_or(&none),
    );
    let value = |run: &Result<Sample, String>| run.as_ref().ok().and_then(figure);
    let rounds: Vec<f64> = over
        .iter()
        .zip(under)
        .filter_map(|(over, under)| Some(value(over)? / value(under)?))
        .filter(|ratio| ratio.is_finite())
        .collect();
    let reason = failure(over).or(failure(under));
    Outcome::new(goal.key, goal.what, goal.bound, rounds, reason)
}

/// The outcome of the goal that is counted.
fn calls_outcome(calls: &Result<f64, String>) -> Outcome {
    let (key, what, bound) = CALLS;
    let rounds = calls.iter().copied().collect();
    let reason = calls.as_ref().err();
    let reason = reason.map(|reason| format!("{COUNTED}: {reason}"));
    Outcome::new(key, what, bound, rounds, reason)
}

impl Report {
    /// Puts a run together.
    pub fn new(host: Host, compared: &Runs, tabled: &Runs, calls: &Result<f64, String>) -> Self {
        let mut outcomes: Vec<Outcome> = GOALS.iter().map(|goal| outcome(goal, compared)).collect();
        outcomes.push(calls_outcome(calls));
        let cases = compared.iter().chain(tabled);
        Self {
            ratios: outcomes
                .iter()
                .map(|outcome| (outcome.key, outcome.value))
                .collect(),
            host,
            cases: cases
                .map(|(case, runs)| Entry::Case(Measured::new(case, runs)))
                .chain(outcomes.into_iter().map(Entry::Goal))
                .collect(),
        }
    }

    /// How the goals came out.
    pub fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.cases.iter().filter_map(|entry| match entry {
            Entry::Goal(outcome) => Some(outcome),
            Entry::Case(_) => None,
        })
    }

    /// The cases.
    pub fn measured(&self) -> impl Iterator<Item = &Measured> {
        self.cases.iter().filter_map(|entry| match entry {
            Entry::Case(measured) => Some(measured),
            Entry::Goal(_) => None,
        })
    }

    /// Whether every goal is met.
    pub fn all_met(&self) -> bool {
        self.outcomes().all(|outcome| outcome.met == Some(true))
    }
}

impl Outcome {
    /// Judges the figures of all rounds by their median. `reason` says why there are none, where there are none.
    pub fn new(
        key: &'static str,
        what: &'static str,
        bound: Bound,
        rounds: Vec<f64>,
        reason: Option<String>,
    ) -> Self {
        let value = (!rounds.is_empty()).then(|| median(&rounds));
        let of = |pick: fn(f64, f64) -> f64, start| rounds.iter().copied().fold(start, pick);
        Self {
            key,
            what,
            goal: bound.to_string(),
            value,
            spread: value.map(|_| (of(f64::min, f64::INFINITY), of(f64::max, f64::NEG_INFINITY))),
            met: value.map(|value| bound.is_met(value)),
            reason: value
                .is_none()
                .then(|| reason.unwrap_or_else(|| "not measured".to_owned())),
            rounds,
        }
    }

    /// The value with its spread, or a dash.
    pub fn figures(&self) -> (String, String) {
        let value = self.value.map_or("-".to_owned(), short);
        let spread = self.spread.map_or_else(String::new, |(low, high)| {
            format!("{} to {}", short(low), short(high))
        });
        (value, spread)
    }

    /// Whether the goal is met, in a word.
    pub fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "not measured",
        }
    }
}

/// The figures of each goal as a table of Markdown.
pub fn goal_table<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> String {
    let mut out =
        "| what | goal | median | lowest to highest round | |\n|---|---|---|---|---|\n".to_owned();
    for outcome in outcomes {
        let (value, spread) = outcome.figures();
        let verdict = outcome.verdict();
        let _ = writeln!(
            out,
            "| {} | {} | {value} | {spread} | {verdict} |",
            outcome.what, outcome.goal
        );
    }
    out
}

/// A table of Markdown with these rows, behind an empty line; nothing if it has none.
pub fn table(head: &str, rows: impl Iterator<Item = String>) -> String {
    let rows: String = rows.collect();
    if rows.is_empty() {
        return rows;
    }
    format!("\n{head}{rows}")
}

/// The rows of a table of round trips, in microseconds, and of what is like them.
pub fn percentile_row(title: &str, trip: &Percentiles) -> String {
    let us = [trip.p50, trip.p90, trip.p99, trip.p99_9];
    let us = us.map(|ns| format!("{:.2}", ns as f64 / 1e3));
    format!("| {title} | {} |\n", us.join(" | "))
}

/// Rounds, commit, day and machine of a run, in a line.
pub fn host_line(host: &Host) -> String {
    let load = host
        .load_before
        .map_or_else(|| "unknown".to_owned(), |load| format!("{load:.2}"));
    format!(
        "Medians of {} round{} of {} ms, commit {}, {}. {}, kernel {}, {} cores, load before {load}.\n",
        host.rounds,
        if host.rounds == 1 { "" } else { "s" },
        host.millis,
        host.commit,
        host.date,
        host.cpu,
        host.kernel,
        host.cores,
    )
}

/// A ratio with three significant digits or so.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.6}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::COMPARED;

    fn sample(case: &Case, value: f64) -> Sample {
        let is_rate = case.measure == mycelium_bench_harness::Measure::Throughput;
        Sample {
            one_way_ns: (!is_rate).then_some(value),
            rate: is_rate.then_some(value),
            ..Sample::default()
        }
    }

    #[test]
    fn a_ratio_is_the_median_of_the_ratios_of_the_rounds() {
        let goal = &GOALS[0];
        let figures =
            |case, values: [f64; 3]| (case, values.map(|value| Ok(sample(&case, value))).to_vec());
        let runs = vec![
            figures(goal.over, [100.0, 300.0, 240.0]),
            figures(goal.under, [100.0, 150.0, 200.0]),
        ];
        let outcome = outcome(goal, &runs);
        assert_eq!(outcome.rounds, [1.0, 2.0, 1.2]);
        assert_eq!(outcome.value, Some(1.2));
        assert_eq!(outcome.spread, Some((1.0, 2.0)));
        assert_eq!(outcome.met, Some(true));
    }

    #[test]
    fn a_round_that_failed_is_left_out_and_its_reason_is_kept() {
        let runs: Runs = COMPARED
            .iter()
            .map(|case| (*case, vec![Err("broken".to_owned()), Ok(sample(case, 2.0))]))
            .collect();
        let outcome = outcome(&GOALS[1], &runs);
        assert_eq!(outcome.rounds, [1.0]);
        let measured = Measured::new(&runs[0].0, &runs[0].1);
        assert_eq!(measured.rounds, [2.0]);
        assert_eq!(measured.failure.as_deref(), Some("broken"));
    }

    #[test]
    fn what_was_not_measured_says_so() {
        let outcome = outcome(&GOALS[0], &vec![]);
        assert_eq!((outcome.value, outcome.met), (None, None));
        assert_eq!(outcome.verdict(), "not measured");
        assert!(outcome.reason.is_some());
    }
}
