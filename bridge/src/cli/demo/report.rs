//! The result of the demo: a table for people, JSON for programs.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use shm_transport::channel::Transport;

use super::progress::grouped;
use super::replay::WORKERS;

/// What one transport showed.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) transport: Transport,
    /// Quotes to each worker at full speed.
    pub(super) messages: u64,
    /// Quotes per second, each handled by both workers.
    pub(super) rate_per_s: f64,
    /// p50, p99 and p99.9 of the round trip, in microseconds.
    pub(super) rtt_us: [f64; 3],
    pub(super) round_trips: u64,
    pub(super) signals: u64,
    pub(super) wakeups_per_message: f64,
    pub(super) drops: u64,
    pub(super) lost: u64,
    pub(super) out_of_order: u64,
    pub(super) checksum_ok: bool,
    pub(super) problems: Vec<String>,
}

impl Run {
    pub(super) fn new(transport: Transport, messages: u64, rate_per_s: f64) -> Self {
        Self {
            transport,
            messages,
            rate_per_s,
            rtt_us: [0.0; 3],
            round_trips: 0,
            signals: 0,
            wakeups_per_message: 0.0,
            drops: 0,
            lost: 0,
            out_of_order: 0,
            checksum_ok: false,
            problems: Vec::new(),
        }
    }

    fn json(&self) -> Value {
        let [p50, p99, p999] = self.rtt_us;
        json!({
            "transport": self.transport.name(),
            "messages": self.messages,
            "workers": WORKERS.len(),
            "signals": self.signals,
            "rate_per_s": self.rate_per_s,
            "round_trips": self.round_trips,
            "rtt_us": { "p50": p50, "p99": p99, "p999": p999 },
            "wakeups_per_message": self.wakeups_per_message,
            "drops": self.drops,
            "lost": self.lost,
            "out_of_order": self.out_of_order,
            "checksum_ok": self.checksum_ok,
        })
    }
}

/// What the kill showed.
#[derive(Debug, Clone)]
pub(super) struct Kill {
    pub(super) transport: Transport,
    /// Quotes to each worker.
    pub(super) messages: u64,
    pub(super) lost: u64,
    /// Quotes that were answered by the killed worker and again by its successor.
    pub(super) redelivered: u64,
    pub(super) restarts: u64,
    pub(super) out_of_order: u64,
    pub(super) problems: Vec<String>,
}

impl Default for Kill {
    fn default() -> Self {
        Self {
            transport: Transport::Shm,
            messages: 0,
            lost: 0,
            redelivered: 0,
            restarts: 0,
            out_of_order: 0,
            problems: Vec::new(),
        }
    }
}

impl Kill {
    fn json(&self) -> Value {
        json!({
            "transport": self.transport.name(),
            "messages": self.messages,
            "lost": self.lost,
            "redelivered": self.redelivered,
            "restarts": self.restarts,
            "out_of_order": self.out_of_order,
            "checksum_ok": self.problems.is_empty(),
        })
    }
}

/// Everything that the demo found out.
pub(super) struct Report {
    /// The run over shared memory, or why this machine has none.
    pub(super) shm: Result<Run, String>,
    pub(super) socket: Run,
    pub(super) kill: Kill,
}

impl Report {
    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.shm.iter().chain([&self.socket])
    }

    /// What did not come out as it should.
    pub(super) fn problems(&self) -> Vec<String> {
        let runs = self.runs().flat_map(|run| &run.problems);
        runs.chain(&self.kill.problems).cloned().collect()
    }

    /// By how much shared memory is better: rate, and p50, p99 and p99.9 of the round trip.
    fn ratios(&self) -> Option<(f64, [f64; 3])> {
        let shm = self.shm.as_ref().ok()?;
        let rtt = std::array::from_fn(|index| self.socket.rtt_us[index] / shm.rtt_us[index]);
        Some((shm.rate_per_s / self.socket.rate_per_s, rtt))
    }

    pub(super) fn json(&self) -> Value {
        let ratios = self.ratios().map(|(rate, [p50, p99, p999])| {
            json!({ "rate": rate, "rtt": { "p50": p50, "p99": p99, "p999": p999 } })
        });
        json!({
            "runs": self.runs().map(Run::json).collect::<Vec<_>>(),
            "shm_to_socket": ratios,
            "shm_unavailable": self.shm.as_ref().err(),
            "kill": self.kill.json(),
        })
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |cells: [String; 9]| {
            let [
                transport,
                messages,
                rate,
                p50,
                p99,
                p999,
                wakeups,
                drops,
                verified,
            ] = cells;
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{transport:<9} {messages:>9} {rate:>9} {p50:>6} {p99:>7} {p999:>8} {wakeups:>11} {drops:>5} {verified:>8}"
            );
        };
        row([
            "transport",
            "quotes",
            "quotes/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "wakeups/msg",
            "drops",
            "verified",
        ]
        .map(str::to_owned));
        for run in self.runs() {
            let [p50, p99, p999] = run.rtt_us.map(|micros| format!("{micros:.1}"));
            row([
                run.transport.name().to_owned(),
                grouped(run.messages),
                grouped(run.rate_per_s as u64),
                p50,
                p99,
                p999,
                format!("{:.6}", run.wakeups_per_message),
                run.drops.to_string(),
                if run.checksum_ok { "yes" } else { "NO" }.to_owned(),
            ]);
        }
        if let Some((rate, rtt)) = self.ratios() {
            let rate = format!("{rate:.2} x");
            let [p50, p99, p999] = rtt.map(|ratio| format!("{ratio:.1} x"));
            row(["shm gains", "", &rate, &p50, &p99, &p999, "", "", ""].map(str::to_owned));
        }
        if let Err(reason) = &self.shm {
            let _ = writeln!(text, "\nNot run over shared memory: {reason}.");
        }
        let Kill {
            transport,
            messages,
            lost,
            redelivered,
            restarts,
            problems,
            ..
        } = &self.kill;
        let verdict = if problems.is_empty() {
            "the other worker got every quote once"
        } else {
            "NOT as it should be"
        };
        let _ = writeln!(
            text,
            "\nquotes: to each of the two workers. verified: count, order and checksums of all quotes\n\
             and signals, computed on both sides. p50 to p99.9: round trips, one quote at a time.\n\n\
             SIGKILL of worker {} in mid-stream of {} quotes over {}:\n\
             lost {lost}, redelivered {redelivered}, restarts {restarts}; {verdict}.",
            WORKERS[0],
            grouped(*messages),
            transport.name()
        );
        text
    }

    pub(super) fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut text = serde_json::to_string_pretty(&self.json())?;
        text.push('\n');
        std::fs::write(path, text)
    }
}
