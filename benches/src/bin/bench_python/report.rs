//! What a run found: medians of cases, goals, the report as JSON, the table of the document.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mycelium_bench_harness::sample::{Percentiles, median};
use mycelium_benches::host::Host;
use mycelium_benches::report::{
    Outcome, failure, goal_table, host_line, percentile_row, percentiles, short, table,
};
use mycelium_benches::rounds;
use serde::Serialize;

use crate::catalog::{Case, Figure, GOALS, Goal};
use crate::program::Figures;

/// All runs of all cases, in the order of their rounds.
pub(crate) type Runs = rounds::Runs<Case, Figures>;

/// The report, as it is written to the file.
#[derive(Serialize)]
pub(crate) struct Report {
    /// The goals' figures by key; `null` where there is none, and the outcome in `cases` says why.
    #[serde(flatten)]
    figures: BTreeMap<&'static str, Option<f64>>,
    host: Host,
    /// Every case, and then every goal.
    cases: Vec<Entry>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Entry {
    Case(Measured),
    Goal(Outcome),
}

/// What the rounds of a case found.
#[derive(Serialize)]
struct Measured {
    name: &'static str,
    title: &'static str,
    /// Medians over the rounds, percentile by percentile; `max` is the highest of all rounds.
    round_trip_ns: Option<Percentiles>,
    /// Median over the rounds: messages in a second.
    rate: Option<f64>,
    /// Median over the rounds.
    cpu_percent: Option<f64>,
    /// Median over the rounds: messages that came in one batch, on average.
    mean_batch: Option<f64>,
    /// How often Python slept in each round.
    parks: Vec<u64>,
    /// The figure of every round that worked: nanoseconds, messages in a second, or percent.
    rounds: Vec<f64>,
    /// Why a round gave nothing, if one did.
    failure: Option<String>,
}

/// What a case is about: the median round trip in nanoseconds, messages in a second, or percent.
pub(crate) fn figure(figures: &Figures) -> Option<f64> {
    let trip = figures.round_trip_ns.map(|trip| trip.p50 as f64);
    trip.or(figures.rate).or(figures.cpu_percent)
}

fn middle(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| median(values))
}

impl Measured {
    fn new(case: &Case, runs: &[Result<Figures, String>]) -> Self {
        let good: Vec<&Figures> = runs.iter().filter_map(|run| run.as_ref().ok()).collect();
        let of = |pick: fn(&Figures) -> Option<f64>| {
            middle(&good.iter().filter_map(|one| pick(one)).collect::<Vec<_>>())
        };
        let trips: Vec<Percentiles> = good.iter().filter_map(|one| one.round_trip_ns).collect();
        Self {
            name: case.name,
            title: case.title,
            round_trip_ns: percentiles(&trips),
            rate: of(|one| one.rate),
            cpu_percent: of(|one| one.cpu_percent),
            mean_batch: of(|one| one.mean_batch),
            parks: good.iter().filter_map(|one| one.parks).collect(),
            rounds: good.iter().filter_map(|one| figure(one)).collect(),
            failure: failure(runs),
        }
    }
}

/// The figure of a goal in every round in which its cases worked.
fn outcome(goal: &Goal, runs: &Runs) -> Outcome {
    let nothing = vec![];
    let of = |wanted: &str| {
        let found = runs.iter().find(|(case, _)| case.name == wanted);
        found.map_or(&nothing, |(_, runs)| runs)
    };
    let scaled = |case: &str, scale: f64| {
        let good = of(case).iter().filter_map(|run| run.as_ref().ok());
        let rounds = good.filter_map(figure).map(|value| value * scale);
        (rounds.collect::<Vec<f64>>(), failure(of(case)))
    };
    let (rounds, failed) = match goal.of {
        Figure::RoundTripUs(case) => scaled(case, 1e-3),
        Figure::MillionsPerSecond(case) => scaled(case, 1e-6),
        Figure::CpuPercent(case) => scaled(case, 1.0),
        Figure::Ratio(over, under) => {
            let (over, under) = (of(over), of(under));
            let value = |run: &Result<Figures, String>| run.as_ref().ok().and_then(figure);
            let rounds = over.iter().zip(under);
            let rounds = rounds.filter_map(|(over, under)| Some(value(over)? / value(under)?));
            (rounds.collect(), failure(over).or(failure(under)))
        }
    };
    Outcome::new(goal.key, goal.what, goal.bound, rounds, failed)
}

impl Report {
    pub(crate) fn new(host: Host, runs: &Runs) -> Self {
        let outcomes: Vec<Outcome> = GOALS.iter().map(|goal| outcome(goal, runs)).collect();
        Self {
            figures: outcomes.iter().map(|it| (it.key, it.value)).collect(),
            host,
            cases: runs
                .iter()
                .map(|(case, runs)| Entry::Case(Measured::new(case, runs)))
                .chain(outcomes.into_iter().map(Entry::Goal))
                .collect(),
        }
    }

    pub(crate) fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.cases.iter().filter_map(|entry| match entry {
            Entry::Goal(outcome) => Some(outcome),
            Entry::Case(_) => None,
        })
    }

    fn measured(&self) -> impl Iterator<Item = &Measured> {
        self.cases.iter().filter_map(|entry| match entry {
            Entry::Case(measured) => Some(measured),
            Entry::Goal(_) => None,
        })
    }

    pub(crate) fn all_met(&self) -> bool {
        self.outcomes().all(|outcome| outcome.met == Some(true))
    }

    /// The tables, as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut out = host_line(&self.host) + "\n" + &goal_table(self.outcomes());
        let trips = self.measured();
        let trips = trips.filter_map(|one| {
            let trip = one.round_trip_ns.as_ref()?;
            Some(percentile_row(one.title, trip))
        });
        let head =
            "| round trips, in microseconds | p50 | p90 | p99 | p99.9 |\n|---|---|---|---|---|\n";
        out += &table(head, trips);
        let rates = self.measured().filter_map(|one| {
            let rate = one.rate?;
            let (millions, each) = (short(rate / 1e6), short(1e9 / rate));
            let batch = one.mean_batch.map_or_else(String::new, short);
            Some(format!(
                "| {} | {millions} | {each} | {batch} |\n",
                one.title
            ))
        });
        let head = "| messages | million in a second | nanoseconds each | in a batch |\n|---|---|---|---|\n";
        out += &table(head, rates);
        let failed: Vec<_> = self
            .measured()
            .filter_map(|one| Some((one.title, one.failure.as_ref()?)))
            .collect();
        for (title, reason) in failed {
            let _ = writeln!(out, "\nNot measured: {title} ({reason}).");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::CASES;

    fn runs(
        name: &'static str,
        values: &[Result<f64, &str>],
    ) -> (Case, Vec<Result<Figures, String>>) {
        let case = CASES.iter().find(|case| case.name == name).expect("a case");
        let one = |value: &Result<f64, &str>| match value {
            Ok(rate) => Ok(Figures {
                rate: Some(*rate),
                ..Figures::default()
            }),
            Err(reason) => Err((*reason).to_owned()),
        };
        (*case, values.iter().map(one).collect())
    }

    fn goal(key: &str) -> &'static Goal {
        GOALS.iter().find(|goal| goal.key == key).expect("a goal")
    }

    #[test]
    fn a_ratio_is_made_within_each_round() {
        let runs = vec![
            runs("asyncio", &[Ok(10.0), Ok(30.0), Err("broken"), Ok(12.0)]),
            runs("asyncio-streams", &[Ok(10.0), Ok(15.0), Ok(1.0), Ok(10.0)]),
        ];
        let outcome = outcome(goal("asyncio_ours_vs_streams"), &runs);
        assert_eq!(outcome.rounds, [1.0, 2.0, 1.2]);
        assert_eq!((outcome.value, outcome.met), (Some(1.2), Some(false)));
    }

    #[test]
    fn what_is_missing_is_named_and_has_no_figure() {
        let runs = vec![runs("columns", &[Err("missing: no NumPy")])];
        let outcome = outcome(goal("columns_mps"), &runs);
        assert_eq!((outcome.value, outcome.met), (None, None));
        assert_eq!(outcome.reason.as_deref(), Some("missing: no NumPy"));
    }
}
