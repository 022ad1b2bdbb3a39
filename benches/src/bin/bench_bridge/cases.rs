//! Runs one case once.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mycelium_bench_harness::sample::{Percentiles, median};
use mycelium_benches::inline::{BURST, InlineRouter};
use shm_transport::channel::Transport;

use crate::catalog::{Case, Waits, Way};
use crate::idle::Idle;
use crate::site::{Setup, text};
use crate::{echo, fan_out, idle};

/// Bursts before the router is timed.
const WARM_UP: usize = 200;
/// Longest spin that a configuration may ask for.
const SPIN_LONG_US: u32 = 1_000_000;
/// Longest spin where all sides spin: the default with three cores.
const SPIN_US: u32 = 50;

/// How cases run.
pub(crate) struct Runner {
    pub(crate) python: PathBuf,
    pub(crate) millis: u64,
    /// Of the cases that leave it to the bridge.
    pub(crate) spin_us: Option<u32>,
    pub(crate) idle_links: u32,
    pub(crate) idle_millis: u64,
}

/// What a run found: what its case is about is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// Of the router, per frame: the median over bursts.
    pub(crate) router_ns: Option<f64>,
    /// The same with publishing and reading.
    pub(crate) all_ns: Option<f64>,
    pub(crate) round_trip_ns: Option<Percentiles>,
    /// Messages in a second.
    pub(crate) rate: Option<f64>,
    /// The way of one message to one worker, while all run.
    pub(crate) delay_ns: Option<Percentiles>,
    /// The same while one of the others is stopped.
    pub(crate) delay_stalled_ns: Option<Percentiles>,
    pub(crate) idle: Option<Idle>,
}

impl Figures {
    /// What the case is about, as one number: nanoseconds, messages in a second, a ratio, or percent.
    pub(crate) fn figure(&self) -> Option<f64> {
        let stalled = self.delay_stalled_ns.zip(self.delay_ns);
        let ratio = stalled.map(|(stopped, running)| stopped.p99 as f64 / running.p99 as f64);
        let trip = self.round_trip_ns.map(|trip| trip.p50 as f64);
        let cpu = self.idle.map(|idle| idle.cpu_percent);
        self.router_ns.or(trip).or(ratio).or(self.rate).or(cpu)
    }
}

/// What a run found, for whoever watches.
pub(crate) fn say(figures: &Figures) -> String {
    if let Some((router, all)) = figures.router_ns.zip(figures.all_ns) {
        return format!("{router:.1} ns per frame, {all:.1} with publishing and reading");
    }
    if let Some(trip) = figures.round_trip_ns {
        return format!("{} ns, 99 of 100 within {} ns", trip.p50, trip.p99);
    }
    if let Some(idle) = figures.idle {
        return format!(
            "{:.3} % of a core with {} links, {:.3} % without",
            idle.cpu_percent, idle.links, idle.cpu_percent_without
        );
    }
    let delay = figures.delay_ns.unwrap_or_default();
    if let Some(stalled) = figures.delay_stalled_ns {
        return format!("p99 {} ns stopped, {} ns running", stalled.p99, delay.p99);
    }
    let rate = figures.rate.unwrap_or(f64::NAN);
    format!("{:.3} M messages/s", rate / 1e6)
}

impl Runner {
    pub(crate) fn run(&self, case: &Case) -> Result<Figures, String> {
        let mut figures = Figures::default();
        let limit = Duration::from_millis(self.millis);
        match case.way {
            Way::Router => {
                let (router, all) = self.router(limit)?;
                (figures.router_ns, figures.all_ns) = (Some(router), Some(all));
            }
            Way::Echo { transport, waits } => {
                let spin_us = match waits {
                    Waits::Default => self.spin_us,
                    Waits::Spinning => Some(SPIN_US),
                    Waits::Parked => Some(0),
                };
                let setup = self.echo_setup(transport, spin_us);
                figures.round_trip_ns = Some(echo::through_bridge(&setup, limit)?);
            }
            Way::EchoInline => {
                let setup = self.echo_setup(Transport::Shm, Some(SPIN_LONG_US));
                figures.round_trip_ns = Some(echo::inline(&setup, limit)?);
            }
            Way::Rate { transport } => {
                figures.rate = Some(echo::rate(
                    &self.echo_setup(transport, self.spin_us),
                    limit,
                )?);
            }
            Way::FanOut { workers } => {
                let workers = vec![("count", None); workers];
                let found = fan_out::measure(&self.setup(&workers, None), self.millis)?;
                figures.rate = Some(found.rate);
                figures.delay_ns = Some(found.delay_ns);
            }
            Way::Stalled { policy } => {
                let mut workers = vec![("count", None); 3];
                workers.push(("count", Some("4KiB")));
                let setup = self.setup(&workers, Some(policy));
                let found = fan_out::measure_stalled(&setup, self.millis)?;
                figures.delay_ns = Some(found.running_ns);
                figures.delay_stalled_ns = Some(found.stopped_ns);
            }
            Way::Idle => {
                let found = idle::measure(&self.python, self.idle_links, self.idle_millis)?;
                figures.idle = Some(found);
            }
        }
        Ok(figures)
    }

    fn echo_setup(&self, transport: Transport, spin_us: Option<u32>) -> Setup<'_> {
        Setup {
            transport,
            spin_us,
            ..self.setup(&[("echo", None)], None)
        }
    }

    fn setup<'a>(
        &'a self,
        workers: &'a [(&'a str, Option<&'a str>)],
        delivery: Option<&'a str>,
    ) -> Setup<'a> {
        Setup {
            python: &self.python,
            transport: Transport::Shm,
            spin_us: self.spin_us,
            delivery,
            workers,
            more: "",
        }
    }

    /// Nanoseconds per frame: of the router alone, and with publishing and reading.
    fn router(&self, limit: Duration) -> Result<(f64, f64), String> {
        let folder = tempfile::tempdir().map_err(text)?;
        let mut router = InlineRouter::start(folder.path()).map_err(text)?;
        for _ in 0..WARM_UP {
            router.burst().map_err(text)?;
        }
        let (mut routing, mut all) = (vec![], vec![]);
        let begin = Instant::now();
        while begin.elapsed() < limit {
            let (one, both) = router.burst().map_err(text)?;
            routing.push(one.as_nanos() as f64 / BURST as f64);
            all.push(both.as_nanos() as f64 / BURST as f64);
        }
        Ok((median(&routing), median(&all)))
    }
}
