//! What a run found: medians of cases, goals, the report as JSON, the tables of the document.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use mycelium_bench_harness::sample::{Percentiles, median};
use mycelium_benches::host::Host;
use mycelium_benches::report::{
    Outcome, failure, goal_table, host_line, percentile_row, percentiles, short, table,
};
use mycelium_benches::rounds;
use serde::Serialize;

use crate::cases::Figures;
use crate::catalog::{Case, GOALS, Goal, ROUND_TRIPS, Way};
use crate::idle::Idle;

/// All runs of all cases, in the order of their rounds.
pub(crate) type Runs = rounds::Runs<Case, Figures>;

/// The report, as it is written to the file.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Figures by key; `null` where there is none, and `cases` says why.
    #[serde(flatten)]
    figures: BTreeMap<&'static str, Option<f64>>,
    /// By the number of workers.
    fanout: BTreeMap<usize, FanOut>,
    host: Host,
    /// Every case, and then every goal.
    cases: Vec<Entry>,
}

#[derive(Serialize)]
struct FanOut {
    /// Messages in a second, over all workers.
    delivered_per_second: Option<f64>,
    /// One message's way to one worker.
    p50_us: Option<f64>,
    p99_us: Option<f64>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Entry {
    Case(Box<Measured>),
    Goal(Outcome),
}

/// What the rounds of a case found: medians over the rounds, of percentiles each for itself; `max` is the highest of all.
#[derive(Serialize)]
struct Measured {
    #[serde(skip)]
    way: Way,
    name: &'static str,
    title: &'static str,
    router_ns_per_frame: Option<f64>,
    /// The same with publishing and reading.
    all_ns_per_frame: Option<f64>,
    round_trip_ns: Option<Percentiles>,
    /// Messages in a second.
    rate: Option<f64>,
    delay_ns: Option<Percentiles>,
    /// The same while one of the other workers is stopped.
    delay_stalled_ns: Option<Percentiles>,
    idle: Option<Idle>,
    /// The figure of every round that worked: nanoseconds, messages in a second, ratio, or percent.
    rounds: Vec<f64>,
    /// Why a round gave nothing, if one did.
    failure: Option<String>,
}

impl Measured {
    fn new(case: &Case, runs: &[Result<Figures, String>]) -> Self {
        let good: Vec<&Figures> = runs.iter().filter_map(|run| run.as_ref().ok()).collect();
        let of = |pick: fn(&Figures) -> Option<f64>| {
            middle(&good.iter().filter_map(|one| pick(one)).collect::<Vec<_>>())
        };
        let spread = |pick: fn(&Figures) -> Option<Percentiles>| {
            percentiles(&good.iter().filter_map(|one| pick(one)).collect::<Vec<_>>())
        };
        let idle = |pick: fn(&Idle) -> f64| {
            let values = good.iter().filter_map(|one| one.idle.as_ref().map(pick));
            middle(&values.collect::<Vec<_>>()).unwrap_or(f64::NAN)
        };
        let links = good.iter().find_map(|one| one.idle.map(|idle| idle.links));
        Self {
            way: case.way,
            name: case.name,
            title: case.title,
            router_ns_per_frame: of(|one| one.router_ns),
            all_ns_per_frame: of(|one| one.all_ns),
            round_trip_ns: spread(|one| one.round_trip_ns),
            rate: of(|one| one.rate),
            delay_ns: spread(|one| one.delay_ns),
            delay_stalled_ns: spread(|one| one.delay_stalled_ns),
            idle: links.map(|links| Idle {
                links,
                cpu_percent: idle(|it| it.cpu_percent),
                cpu_percent_without: idle(|it| it.cpu_percent_without),
                own_bytes_per_link: idle(|it| it.own_bytes_per_link),
                shared_bytes_per_link: idle(|it| it.shared_bytes_per_link),
            }),
            rounds: good.iter().filter_map(|one| one.figure()).collect(),
            failure: failure(runs),
        }
    }
}

fn middle(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| median(values))
}

/// The goal's figure: that of the case with the highest median. All of its cases have to be there.
fn outcome(goal: &Goal, cases: &[Measured]) -> Outcome {
    let of_goal: Vec<&Measured> = cases
        .iter()
        .filter(|case| case.name.starts_with(goal.cases))
        .collect();
    let wanted = crate::catalog::CASES.iter();
    let wanted = wanted
        .filter(|case| case.name.starts_with(goal.cases))
        .count();
    let failed = of_goal.iter().find_map(|case| case.failure.clone());
    let complete = of_goal.len() == wanted && of_goal.iter().all(|case| !case.rounds.is_empty());
    let worst = of_goal
        .into_iter()
        .max_by(|one, other| median(&one.rounds).total_cmp(&median(&other.rounds)));
    let rounds = worst
        .filter(|_| complete)
        .map_or_else(Vec::new, |case| case.rounds.clone());
    Outcome::new(goal.key, goal.what, goal.bound, rounds, failed)
}

impl Report {
    pub(crate) fn new(host: Host, runs: &Runs) -> Self {
        let cases: Vec<Measured> = runs
            .iter()
            .map(|(case, runs)| Measured::new(case, runs))
            .collect();
        let outcomes: Vec<Outcome> = GOALS.iter().map(|goal| outcome(goal, &cases)).collect();
        let mut figures: BTreeMap<_, _> = outcomes.iter().map(|it| (it.key, it.value)).collect();
        for (key, name) in ROUND_TRIPS {
            let case = cases.iter().find(|case| case.name == *name);
            let trip = case.and_then(|case| case.round_trip_ns);
            figures.insert(key, trip.map(|trip| trip.p50 as f64 / 1e3));
        }
        let fanout = cases.iter().filter_map(|case| {
            let Way::FanOut { workers } = case.way else {
                return None;
            };
            let us = |pick: fn(Percentiles) -> u64| case.delay_ns.map(|it| pick(it) as f64 / 1e3);
            let found = FanOut {
                delivered_per_second: case.rate,
                p50_us: us(|it| it.p50),
                p99_us: us(|it| it.p99),
            };
            Some((workers, found))
        });
        Self {
            figures,
            fanout: fanout.collect(),
            host,
            cases: cases
                .into_iter()
                .map(|case| Entry::Case(Box::new(case)))
                .chain(outcomes.into_iter().map(Entry::Goal))
                .collect(),
        }
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        self.cases.iter().filter_map(|entry| match entry {
            Entry::Goal(outcome) => Some(outcome),
            Entry::Case(_) => None,
        })
    }

    fn measured(&self) -> impl Iterator<Item = &Measured> {
        self.cases.iter().filter_map(|entry| match entry {
            Entry::Case(measured) => Some(&**measured),
            Entry::Goal(_) => None,
        })
    }

    pub(crate) fn all_met(&self) -> bool {
        self.outcomes().all(|outcome| outcome.met == Some(true))
    }

    /// The tables, as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut out = host_line(&self.host) + "\n" + &goal_table(self.outcomes());
        let trips = self.measured().filter_map(|one| {
            let trip = one.round_trip_ns.as_ref()?;
            Some(percentile_row(one.title, trip))
        });
        let head = "| round trip client, bridge, worker, bridge, client, in microseconds | p50 | p90 | p99 | p99.9 |\n\
                    |---|---|---|---|---|\n";
        out += &table(head, trips);
        let rates = self.measured().filter_map(|one| {
            let rate = one.rate.filter(|_| matches!(one.way, Way::Rate { .. }))?;
            Some(format!("| {} | {} |\n", one.title, short(rate / 1e6)))
        });
        out += &table(
            "| full speed | million messages in a second |\n|---|---|\n",
            rates,
        );
        let fan_outs = self.measured().filter_map(|one| {
            let (rate, delay) = one.rate.zip(one.delay_ns)?;
            let rate = short(rate / 1e6);
            Some(percentile_row(&format!("{} | {rate}", one.title), &delay))
        });
        let head = "| one publisher | million deliveries in a second | p50 in microseconds | p90 | p99 | p99.9 |\n\
                    |---|---|---|---|---|---|\n";
        out += &table(head, fan_outs);
        let stalled = self.measured().filter_map(|one| {
            let (running, stopped) = one.delay_ns.zip(one.delay_stalled_ns)?;
            let us = [running.p50, stopped.p50, running.p99, stopped.p99];
            let us = us.map(|ns| format!("{:.1}", ns as f64 / 1e3)).join(" | ");
            let ratio = short(median(&one.rounds));
            Some(format!("| {} | {us} | {ratio} |\n", one.title))
        });
        let head = "| delays at three workers, in microseconds | p50, fourth running | stopped | p99, fourth running | stopped | ratio of p99 |\n\
                    |---|---|---|---|---|---|\n";
        out += &table(head, stalled);
        self.add_sentences(&mut out);
        out
    }

    fn add_sentences(&self, out: &mut String) {
        for one in self.measured() {
            if let Some(all) = one.all_ns_per_frame {
                let _ = writeln!(
                    out,
                    "\nA frame published, routed and read on one thread, everything checked: {} ns.",
                    short(all)
                );
            }
            if let Some(idle) = one.idle {
                let _ = writeln!(
                    out,
                    "\n{} idle links: {} % of a core, {} % without any; each takes {:.1} KiB of the bridge's own memory and \
                     {:.1} KiB of shared memory.",
                    idle.links,
                    short(idle.cpu_percent),
                    short(idle.cpu_percent_without),
                    idle.own_bytes_per_link / 1024.0,
                    idle.shared_bytes_per_link / 1024.0
                );
            }
        }
        for one in self.measured() {
            if let Some(reason) = &one.failure {
                let _ = writeln!(out, "\nNot measured: {} ({reason}).", one.title);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::CASES;

    fn measured(name: &str, ratios: &[Result<u64, &str>]) -> Measured {
        let case = CASES.iter().find(|case| case.name == name).expect("a case");
        let p99 = |p99| {
            Some(Percentiles {
                p99,
                ..Percentiles::default()
            })
        };
        let run = |ratio: &Result<u64, &str>| match ratio {
            Ok(ratio) => Ok(Figures {
                delay_ns: p99(10),
                delay_stalled_ns: p99(*ratio),
                ..Figures::default()
            }),
            Err(reason) => Err((*reason).to_owned()),
        };
        Measured::new(case, &ratios.iter().map(run).collect::<Vec<_>>())
    }

    #[test]
    fn the_worst_policy_counts_and_none_may_be_missing() {
        let goal = GOALS
            .iter()
            .find(|goal| goal.key == "stalled_worker_p99_ratio");
        let goal = goal.expect("a goal");
        let mut cases = vec![
            measured("stalled-drop_newest", &[Ok(10), Ok(30), Ok(11)]),
            measured("stalled-drop_oldest", &[Ok(12), Ok(13), Ok(15)]),
        ];
        let open = outcome(goal, &cases);
        assert_eq!((open.value, open.met), (None, None));
        cases.push(measured(
            "stalled-conflate",
            &[Ok(9), Err("broken"), Ok(10)],
        ));
        let found = outcome(goal, &cases);
        assert_eq!(found.rounds, [1.2, 1.3, 1.5]);
        assert_eq!((found.value, found.met), (Some(1.3), Some(false)));
        cases[2] = measured("stalled-conflate", &[Err("broken")]);
        assert_eq!(outcome(goal, &cases).reason.as_deref(), Some("broken"));
    }
}
