//! The table of `docs/benchmarks.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use mycelium_bench_harness::sample::median;
use mycelium_benches::docs::replace_between;

use crate::encodings::ENCODINGS;
use crate::{Report, Rounds};

/// The time of each encoding beside that of the contract in the same round; the median over the rounds.
pub(crate) fn ratios(rounds: &Rounds) -> BTreeMap<&'static str, f64> {
    let contract = &rounds["contract"];
    rounds
        .iter()
        .map(|(&name, figures)| {
            let ratios: Vec<f64> = figures
                .iter()
                .zip(contract)
                .map(|(own, base)| own / base)
                .collect();
            (name, median(&ratios))
        })
        .collect()
}

pub(crate) fn markdown(report: &Report) -> String {
    let host = &report.host;
    let mut out = format!(
        "Nanoseconds to send and receive one quote, median of {} rounds, and the ratio to the contract. {}, kernel {}, \
         commit {}, {}.\n\n| encoding | Rust | ratio | Python | ratio |\n|---|---|---|---|---|\n",
        host.rounds, host.cpu, host.kernel, host.commit, host.date
    );
    for (name, _) in ENCODINGS {
        let _ = write!(out, "| {name} |");
        for language in ["rust", "python"] {
            let ns = median(&report.ns_per_message[language][name]);
            let ratio = report.ratio_to_contract[language][name];
            let _ = write!(out, " {ns:.0} | {ratio:.1} |");
        }
        out.push('\n');
    }
    out
}

/// Replaces the table of a document.
pub(crate) fn rewrite(path: &Path, text: &str) -> Result<(), String> {
    replace_between(
        path,
        "<!-- dynamic: begin -->",
        "<!-- dynamic: end -->",
        text.trim_end(),
    )
}
