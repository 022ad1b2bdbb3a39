//! Makes the picture of a bridge from what its planes know.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Source;
use super::model::{
    Bucket, Control, Delivered, Endpoint, Level, Link, Missed, Plane, Residence, Status, Topic,
    Totals, Uplink, Worker,
};
use crate::event_loop::WorkerStatus;
use crate::link::{LinkStatus, UplinkState, UplinkStatus};
use crate::listen;
use crate::logging;
use crate::router::{self, BOUNDS_US, Flow, LinkGap, LinkView, RingLevel, TopicView};

/// How long the data plane may take to answer: far more than one turn takes.
const PLANE_TIMEOUT: Duration = Duration::from_secs(2);

impl Source {
    /// Looks at everything. Waits for the data plane, but not for ever.
    pub(super) async fn status(&self) -> Status {
        let control = self.control_plane().await;
        let plane = self.registry.plane();
        let asked = Instant::now();
        let view = tokio::time::timeout(PLANE_TIMEOUT, plane.view()).await;
        let view = view.ok().and_then(Result::ok);
        let plane_silent_ms = self.silence(asked, view.is_some());
        let plane = view.as_ref().map(|view| Plane {
            parks: view.parks,
            wakeups: view.wakeups_in,
            rounds: view.rounds.rounds,
            frames: view.rounds.frames,
            busy_us: microseconds(view.running_for.saturating_sub(view.parked_for)),
            answer_us: microseconds(asked.elapsed()),
        });
        let views = view.map_or_else(Vec::new, |view| view.links);
        let mut views: HashMap<_, _> = views.into_iter().map(|view| (view.link, view)).collect();
        let statuses = self.registry.links().into_iter();
        let links: Vec<_> = statuses
            .map(|status| {
                let view = views.remove(&status.link);
                self.link(status, view)
            })
            .collect();
        let workers = self.control.workers();
        let endpoints = self.control.endpoints();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            config: self.facts.config.clone(),
            started_ms: milliseconds(self.facts.started),
            now_ms: milliseconds(SystemTime::now()),
            metrics: self.facts.metrics(),
            workers: workers.into_iter().map(worker).collect(),
            totals: self.totals(&links),
            links,
            uplinks: self.registry.uplinks().into_iter().map(uplink).collect(),
            endpoints: endpoints.iter().map(|it| endpoint(it)).collect(),
            plane,
            plane_silent_ms,
            control,
        }
    }

    /// For how long the data plane has left requests without an answer, the one from `asked` included.
    fn silence(&self, asked: Instant, has_answered: bool) -> Option<u64> {
        let since = self.facts.silent_since.lock();
        // It is replaced as a whole.
        let mut since = since.unwrap_or_else(PoisonError::into_inner);
        if has_answered {
            *since = None;
            return None;
        }
        let silent = since.get_or_insert(asked).elapsed();
        Some(u64::try_from(silent.as_millis()).unwrap_or(u64::MAX))
    }

    /// Looks at the runtime of the control plane, on whose thread this runs.
    async fn control_plane(&self) -> Control {
        let ready = Instant::now();
        tokio::task::yield_now().await;
        let late = ready.elapsed();
        let runtime = tokio::runtime::Handle::current().metrics();
        let busy = (0..runtime.num_workers()).map(|it| runtime.worker_total_busy_duration(it));
        let (events, longest) = self.control.events_handled();
        Control {
            tasks: runtime.num_alive_tasks() as u64,
            queued: runtime.global_queue_depth() as u64,
            busy_us: microseconds(busy.sum()),
            late_us: microseconds(late),
            events,
            longest_event_us: microseconds(longest),
            threads: threads(),
        }
    }

    fn totals(&self, links: &[Link]) -> Totals {
        let reloads = self.control.reloads();
        let mut totals = Totals {
            refused_busy: self.registry.refused_busy(),
            refused_not_allowed: self.registry.refused_not_allowed(),
            reloads_applied: reloads.applied,
            reloads_refused: reloads.refused,
            log_lines_lost: logging::lines_lost(),
            ..Totals::default()
        };
        for link in links {
            totals.published = sum(totals.published, link.published);
            totals.delivered = sum(totals.delivered, link.delivered);
            totals.dropped += link.dropped;
            totals.missed += link.missed;
        }
        totals
    }

    fn link(&self, status: LinkStatus, view: Option<LinkView>) -> Link {
        let view = view.unwrap_or_else(|| LinkView::nothing(status.link));
        let counters = view.counters;
        let differences = status.contract_differences.iter();
        Link {
            name: status.name,
            number: status.link.0,
            pid: status.pid,
            transport: status.transport.map(|it| it.name().to_owned()),
            fallback: status.fallback,
            degraded: status.degraded,
            epoch: status.epoch,
            last_error: status.last_error,
            published: Delivered {
                frames: counters.frames_in,
                bytes: counters.bytes_in,
            },
            delivered: Delivered {
                frames: counters.frames_out,
                bytes: counters.bytes_out,
            },
            dropped: counters.dropped,
            unrouted: counters.unrouted,
            missed: counters.missed,
            waiting: counters.waiting,
            times_full: counters.stalls,
            wakeups: counters.wakeups_out,
            socket_calls: status.socket_calls,
            ring_in: level(view.ring_in),
            ring_out: level(view.ring_out),
            residence: residence(&view.residence, view.unacknowledged_for),
            topics: view.topics.iter().map(|it| self.topic(it)).collect(),
            contract_differences: differences.map(ToString::to_string).collect(),
        }
    }

    fn topic(&self, view: &TopicView) -> Topic {
        let message = self.registry.contracts().by_id(view.topic_id);
        Topic {
            topic_id: view.topic_id,
            message: message.map_or_else(String::new, |message| message.name.clone()),
            published: flow(view.published),
            delivered: flow(view.delivered),
            missed: view.gap.map_or_else(Missed::default, missed),
        }
    }
}

fn worker(status: WorkerStatus) -> Worker {
    Worker {
        name: status.name,
        phase: status.phase.to_string(),
        pid: status.pid,
        incarnation: status.starts,
        restarts: status.starts.saturating_sub(1),
        hangs: status.stalls,
        up_since_ms: status.up_since.map(milliseconds),
        last_end: status.last_end,
        last_words: status.last_words,
    }
}

fn uplink(status: UplinkStatus) -> Uplink {
    let state = match status.state {
        UplinkState::Disconnected => "disconnected",
        UplinkState::Connected => "connected",
        UplinkState::Ended => "ended",
    };
    Uplink {
        name: status.name,
        address: status.address,
        state: state.to_owned(),
        connections: status.connections,
        imported: status.imported,
        exported: status.exported,
        dropped: status.wrong_size + status.too_large,
        last_error: status.last_error,
    }
}

fn endpoint(endpoint: &listen::Endpoint) -> Endpoint {
    let max = endpoint.config.max_pending_handshakes;
    let free = endpoint.handshakes.available_permits();
    Endpoint {
        address: endpoint.address.to_string(),
        token: endpoint.config.token.is_some(),
        handshakes: max.saturating_sub(free) as u64,
        handshakes_max: max as u64,
    }
}

fn flow(flow: Flow) -> Delivered {
    Delivered {
        frames: flow.frames,
        bytes: flow.bytes,
    }
}

fn sum(a: Delivered, b: Delivered) -> Delivered {
    Delivered {
        frames: a.frames + b.frames,
        bytes: a.bytes + b.bytes,
    }
}

fn level(level: RingLevel) -> Level {
    Level {
        used: level.used,
        capacity: level.capacity,
    }
}

fn residence(samples: &router::Residence, waiting: Option<Duration>) -> Residence {
    let bounds = BOUNDS_US.iter().copied().map(Some).chain([None]);
    let buckets = bounds.zip(samples.counts).filter(|(_, count)| *count > 0);
    let buckets: Vec<_> = buckets
        .map(|(up_to_us, samples)| Bucket { up_to_us, samples })
        .collect();
    let total: u64 = samples.counts.iter().sum();
    let quantile = |percent: u64| {
        let (wanted, mut seen) = ((total * percent).div_ceil(100), 0);
        let found = buckets.iter().find(|bucket| {
            seen += bucket.samples;
            seen >= wanted
        });
        found.and_then(|bucket| bucket.up_to_us)
    };
    Residence {
        samples: total,
        sum_us: microseconds(samples.sum),
        p50_us: quantile(50),
        p99_us: quantile(99),
        waiting_us: waiting.map(microseconds),
        buckets,
    }
}

fn missed(gap: LinkGap) -> Missed {
    Missed {
        drop_newest: gap.drop_newest,
        drop_oldest: gap.drop_oldest,
        conflated: gap.conflated,
        quarantined: gap.quarantined,
    }
}

/// How many threads this process has; 0 where the system does not say.
fn threads() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The fields behind the name, which stands in parentheses and may hold anything: the threads are the 18th of them.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let threads = fields.split_whitespace().nth(17);
    threads.and_then(|it| it.parse().ok()).unwrap_or(0)
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Since 1970; a clock before that counts as 1970.
fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
