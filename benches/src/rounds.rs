//! What the measuring programs have in common: their options, cases in rounds, and where the report goes.

use std::path::PathBuf;

use mycelium_bench_harness::cores::Cores;
use serde::Serialize;

use crate::host::Host;
use crate::runner::root;

/// All runs of all cases, in the order of their rounds.
pub type Runs<C, S> = Vec<(C, Vec<Result<S, String>>)>;

/// Options of every measuring program.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Check that everything works, with short runs; the figures mean nothing, and no document is rewritten
    #[arg(long)]
    pub quick: bool,
    /// Measure only cases whose name contains this text; goals that miss a case stay open
    #[arg(long, value_name = "CASE")]
    pub only: Option<String>,
    /// Rounds of the compared cases [default: 7, with --quick 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: Option<u32>,
    /// Time of one run, in milliseconds [default: 300, with --quick 20]
    #[arg(long, value_parser = clap::value_parser!(u64).range(10..=600_000))]
    pub millis: Option<u64>,
    /// The cores of both sides of a pair, such as 0,1 [default: two that share no execution units]
    #[arg(long)]
    pub cores: Option<Cores>,
    /// Exit with 1 if a goal is missed or was not measured
    #[arg(long)]
    pub check: bool,
    /// Where the report goes [default: a file in target/bench, which is named at the end]
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// The document whose tables are rewritten [default: docs/benchmarks.md, with --quick or --only none]
    #[arg(long, value_name = "FILE")]
    pub docs: Option<PathBuf>,
}

impl Options {
    /// Rounds of the compared cases.
    pub fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 1 } else { 7 }) as usize
    }

    /// Milliseconds of one run; `usual` where neither a number nor the short form was asked for.
    pub fn millis(&self, usual: u64) -> u64 {
        self.millis.unwrap_or(if self.quick { 20 } else { usual })
    }

    /// The cores of both sides.
    pub fn cores(&self) -> Cores {
        self.cores.unwrap_or_else(Cores::choose)
    }

    /// Whether a case is to be measured.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }

    /// Runs the cases that are wanted in rounds; every second round in the reverse order, so that no case always comes after
    /// the same one. `say` puts what a run found into a few words.
    pub fn run<C: Copy, S>(
        &self,
        cases: &[C],
        rounds: usize,
        name: impl Fn(&C) -> String,
        mut run: impl FnMut(&C) -> Result<S, String>,
        say: impl Fn(&C, &S) -> String,
    ) -> Runs<C, S> {
        let wanted = cases.iter().filter(|case| self.wants(&name(case)));
        let mut runs: Runs<C, S> = wanted.map(|case| (*case, vec![])).collect();
        for round in 0..rounds {
            let mut order: Vec<usize> = (0..runs.len()).collect();
            if round % 2 == 1 {
                order.reverse();
            }
            for (done, at) in order.iter().enumerate() {
                let (case, outcomes) = &mut runs[*at];
                let outcome = run(case);
                let said = match &outcome {
                    Ok(sample) => say(case, sample),
                    Err(error) => format!("failed: {error}"),
                };
                crate::note(&format!(
                    "round {}/{rounds}, {:3}/{}: {}: {said}",
                    round + 1,
                    done + 1,
                    order.len(),
                    name(case)
                ));
                outcomes.push(outcome);
            }
        }
        runs
    }

    /// Writes the report, to `name.json` or in the short form `name-quick.json` unless another file was asked for. Returns
    /// where it is.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write_report(&self, name: &str, report: &impl Serialize) -> Result<PathBuf, String> {
        let file = format!("{name}{}.json", if self.quick { "-quick" } else { "" });
        let usual = || root().join("target/bench").join(file);
        let path = self.report.clone().unwrap_or_else(usual);
        let problem = |error: std::io::Error| format!("{}: {error}", path.display());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(problem)?;
        }
        let json = serde_json::to_string_pretty(report).map_err(|error| error.to_string())?;
        std::fs::write(&path, json + "\n").map_err(problem)?;
        Ok(path)
    }

    /// The document whose tables are to be rewritten, if any is.
    pub fn document(&self) -> Option<PathBuf> {
        let complete = !self.quick && self.only.is_none();
        let usual = complete.then(|| root().join("docs/benchmarks.md"));
        self.docs.clone().or(usual)
    }
}

/// Says on standard error why figures of this run would mean little.
pub fn warn(host: &Host) {
    if host.pinned.is_none() {
        crate::note("only one core: sides that spin keep each other from running");
    }
    if !host.optimised {
        crate::note(
            "this program is not optimised: its figures mean nothing, run it with --release",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        options: Options,
    }

    fn options(arguments: &[&str]) -> Options {
        Program::parse_from([&["program"], arguments].concat()).options
    }

    #[test]
    fn every_second_round_is_in_reverse_and_a_failure_stays_with_its_round() {
        let mut order = vec![];
        let mut run = |case: &char| {
            order.push(*case);
            if order.len() == 4 {
                Err("broken".to_owned())
            } else {
                Ok(order.len())
            }
        };
        let name = |case: &char| format!("case {case}");
        let runs = options(&["--only", "case"])
            .run(&['a', 'b'], 2, name, &mut run, |_, _| "well".to_owned());
        assert_eq!(
            runs,
            [
                ('a', vec![Ok(1), Err("broken".to_owned())]),
                ('b', vec![Ok(2), Ok(3)])
            ]
        );
        assert_eq!(order, ['a', 'b', 'b', 'a']);
        let none =
            options(&["--only", "z"]).run(&['a'], 1, name, |_| Ok(()), |_, ()| String::new());
        assert!(none.is_empty());
    }

    #[test]
    fn a_short_or_partial_run_rewrites_no_document_unless_it_is_named() {
        assert!(options(&[]).document().is_some());
        assert_eq!(options(&["--quick"]).document(), None);
        assert_eq!(options(&["--only", "x"]).document(), None);
        let named = options(&["--quick", "--docs", "here.md"]).document();
        assert_eq!(named, Some(PathBuf::from("here.md")));
    }
}
