//! Makes the picture of a bridge from what its planes know.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Source;
use super::model::{
    Delivered, Endpoint, Level, Link, Missed, Plane, Status, Topic, Totals, Uplink, Worker,
};
use crate::event_loop::WorkerStatus;
use crate::link::{LinkStatus, UplinkState, UplinkStatus};
use crate::listen;
use crate::router::{Flow, LinkGap, LinkView, RingLevel, TopicView};

/// How long the data plane may take to answer: far more than one turn takes.
const PLANE_TIMEOUT: Duration = Duration::from_secs(2);

impl Source {
    /// Looks at everything. Waits for the data plane, but not for ever.
    pub(super) async fn status(&self) -> Status {
        let plane = self.registry.plane();
        let view = tokio::time::timeout(PLANE_TIMEOUT, plane.view()).await;
        let view = view.ok().and_then(Result::ok);
        let plane = view.as_ref().map(|view| Plane {
            parks: view.parks,
            wakeups: view.wakeups_in,
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
        }
    }

    fn totals(&self, links: &[Link]) -> Totals {
        let reloads = self.control.reloads();
        let mut totals = Totals {
            refused_busy: self.registry.refused_busy(),
            refused_not_allowed: self.registry.refused_not_allowed(),
            reloads_applied: reloads.applied,
            reloads_refused: reloads.refused,
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

fn missed(gap: LinkGap) -> Missed {
    Missed {
        drop_newest: gap.drop_newest,
        drop_oldest: gap.drop_oldest,
        conflated: gap.conflated,
        quarantined: gap.quarantined,
    }
}

/// Since 1970; a clock before that counts as 1970.
fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
