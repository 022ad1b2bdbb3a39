//! The picture of a bridge in the text format of Prometheus (version 0.0.4).

use super::model::{Control, Link, Plane, Status, Worker};
use text::{Kind, Text};

mod text;

/// Renders a status. Counters of links are left out while the data plane does not answer, so that nothing seems to begin at 0
/// again.
pub(super) fn render(status: &Status) -> String {
    use Kind::{Counter, Gauge};
    let mut text = Text(String::new());
    let one = |value| [(Vec::new(), value)];
    text.metric(
        "build_info",
        Gauge,
        "Version of the bridge; always 1.",
        [(vec![("version", &*status.version)], 1)],
    );
    text.metric(
        "start_time_seconds",
        Gauge,
        "When the bridge began to run, in seconds since 1970.",
        one(status.started_ms / 1000),
    );
    workers(&mut text, &status.workers);
    let phases = status.workers.iter();
    let phases = phases.map(|it| (vec![("worker", &*it.name), ("phase", &*it.phase)], 1));
    text.metric(
        "worker_phase",
        Gauge,
        "Where a worker is in its life; 1 for the phase of the moment.",
        phases,
    );
    let links = &status.links;
    let transports = links.iter().filter_map(|link| {
        let transport = link.transport.as_deref()?;
        let labels = vec![("link", &*link.name), ("transport", transport)];
        Some((labels, u64::from(link.fallback.is_some())))
    });
    text.metric(
        "link_fallback",
        Gauge,
        "1 if a link goes without shared memory although that was allowed.",
        transports,
    );
    text.links(
        links,
        "link_epochs",
        Counter,
        "How often a link was handed to a peer.",
        |it| it.epoch,
    );
    text.links(
        links,
        "link_contract_differences",
        Gauge,
        "Messages that differ between the contracts of the bridge and the peer.",
        |it| it.contract_differences.len() as u64,
    );
    text.links(
        links,
        "link_degraded_options",
        Gauge,
        "Options of the rings of a link that are not to be had.",
        |it| it.degraded.len() as u64,
    );
    text.links(
        links,
        "link_socket_calls",
        Counter,
        "Sends and receives that moved application frames over the socket of a link.",
        |it| it.socket_calls,
    );
    if let Some(plane) = &status.plane {
        counters(&mut text, links);
        text.residence(links);
        data_plane(&mut text, plane);
    }
    control_plane(&mut text, &status.control);
    if let Some(silent_ms) = status.plane_silent_ms {
        text.seconds(
            "data_plane_silent_seconds",
            Gauge,
            "For how long the data plane has left requests without an answer; missing while it answers.",
            silent_ms * 1000,
        );
    }
    text.metric(
        "data_plane_answers",
        Gauge,
        "1 if the data plane answered in time; otherwise counters of links are missing.",
        one(u64::from(status.plane.is_some())),
    );
    let uplinks = status.uplinks.iter();
    let connected = uplinks.map(|it| {
        (
            vec![("uplink", &*it.name)],
            u64::from(it.state == "connected"),
        )
    });
    text.metric(
        "uplink_connected",
        Gauge,
        "1 while there is a connection to a Mycelium bus.",
        connected,
    );
    let uplinks = status.uplinks.iter();
    let connections = uplinks.map(|it| (vec![("uplink", &*it.name)], it.connections));
    text.metric(
        "uplink_connections",
        Counter,
        "Connections to a Mycelium bus that were made.",
        connections,
    );
    let totals = &status.totals;
    text.metric(
        "refused_clients",
        Counter,
        "Clients that were refused.",
        [
            (vec![("reason", "busy")], totals.refused_busy),
            (vec![("reason", "not_allowed")], totals.refused_not_allowed),
        ],
    );
    text.metric(
        "reloads",
        Counter,
        "Reloads of the configuration.",
        [
            (vec![("result", "applied")], totals.reloads_applied),
            (vec![("result", "refused")], totals.reloads_refused),
        ],
    );
    text.metric(
        "log_lines_lost",
        Counter,
        "Lines of the log that standard error has not taken.",
        one(totals.log_lines_lost),
    );
    text.0
}

fn workers(text: &mut Text, workers: &[Worker]) {
    use Kind::{Counter, Gauge};
    text.workers(
        workers,
        "worker_up",
        Gauge,
        "1 while a worker is ready.",
        |it| u64::from(it.up_since_ms.is_some()),
    );
    text.workers(
        workers,
        "worker_restarts",
        Counter,
        "Starts of a worker but for its first.",
        |it| it.restarts,
    );
    text.workers(
        workers,
        "worker_hangs",
        Counter,
        "How often a worker was killed because it hung.",
        |it| it.hangs,
    );
}

fn counters(text: &mut Text, links: &[Link]) {
    use Kind::{Counter, Gauge};
    text.topics(
        links,
        "link_frames",
        "Frames by topic; in: published by the peer, out: delivered to it.",
        |it| [it.published.frames, it.delivered.frames],
    );
    text.topics(
        links,
        "link_payload_bytes",
        "Bytes of the payloads of these frames.",
        |it| [it.published.bytes, it.delivered.bytes],
    );
    let topics = links
        .iter()
        .flat_map(|link| link.topics.iter().map(move |it| (link, it)));
    let missed = topics.flat_map(|(link, topic)| {
        let missed = &topic.missed;
        let causes = [
            ("drop_newest", missed.drop_newest),
            ("drop_oldest", missed.drop_oldest),
            ("conflate", missed.conflated),
            ("quarantine", missed.quarantined),
        ];
        let causes = causes.into_iter().filter(|(_, count)| *count > 0);
        causes.map(|(cause, count)| {
            (
                vec![
                    ("link", &*link.name),
                    ("topic", &*topic.message),
                    ("cause", cause),
                ],
                count,
            )
        })
    });
    text.metric(
        "link_missed",
        Counter,
        "Frames that the peer wanted and did not get, by topic and cause.",
        missed,
    );
    text.links(
        links,
        "link_dropped",
        Counter,
        "Published frames that were dropped: unknown topic, wrong size or layout.",
        |it| it.dropped,
    );
    text.links(
        links,
        "link_unrouted",
        Counter,
        "Published frames that nobody wanted.",
        |it| it.unrouted,
    );
    text.links(
        links,
        "link_waiting_frames",
        Gauge,
        "Frames that wait in front of the ring to the peer.",
        |it| it.waiting,
    );
    text.links(
        links,
        "link_full",
        Counter,
        "Times that the ring to the peer was full and a publisher had to wait.",
        |it| it.times_full,
    );
    text.links(
        links,
        "link_wakeups",
        Counter,
        "Times that the bridge woke the peer.",
        |it| it.wakeups,
    );
    text.directions(
        links,
        "link_ring_used_bytes",
        "Bytes in a ring that are not acknowledged.",
        |it| [it.ring_in.used, it.ring_out.used],
    );
    text.directions(
        links,
        "link_ring_capacity_bytes",
        "Bytes that a ring takes.",
        |it| [it.ring_in.capacity, it.ring_out.capacity],
    );
}

fn data_plane(text: &mut Text, plane: &Plane) {
    use Kind::{Counter, Gauge};
    for (name, help, value) in [
        (
            "data_plane_parks",
            "Times that the data plane slept.",
            plane.parks,
        ),
        (
            "data_plane_wakeups",
            "Sleeps of the data plane that a doorbell ended.",
            plane.wakeups,
        ),
        (
            "data_plane_rounds",
            "Rounds of the data plane that moved something.",
            plane.rounds,
        ),
        (
            "data_plane_frames",
            "Frames that these rounds took from publishers and out of stages.",
            plane.frames,
        ),
    ] {
        text.metric(name, Counter, help, [(Vec::new(), value)]);
    }
    text.seconds(
        "data_plane_busy_seconds",
        Counter,
        "Time that the data plane did not sleep; looking for work in vain is part of it.",
        plane.busy_us,
    );
    text.seconds(
        "data_plane_answer_seconds",
        Gauge,
        "Time until the data plane answered for these metrics.",
        plane.answer_us,
    );
}

fn control_plane(text: &mut Text, control: &Control) {
    use Kind::{Counter, Gauge};
    for (name, kind, help, value) in [
        (
            "control_tasks",
            Gauge,
            "Tasks of the control plane that have not ended.",
            control.tasks,
        ),
        (
            "control_queued_tasks",
            Gauge,
            "Tasks of the control plane that other threads have made ready and that wait for their turn.",
            control.queued,
        ),
        (
            "control_events",
            Counter,
            "Events that the control loop has handled.",
            control.events,
        ),
        (
            "threads",
            Gauge,
            "Threads of the process, those for blocking calls included.",
            control.threads,
        ),
    ] {
        text.metric(name, kind, help, [(Vec::new(), value)]);
    }
    for (name, kind, help, micros) in [
        (
            "control_busy_seconds",
            Counter,
            "Time that the control plane was not waiting for something to happen.",
            control.busy_us,
        ),
        (
            "control_late_seconds",
            Gauge,
            "How late a task of the control plane that was ready got its turn, measured for these metrics.",
            control.late_us,
        ),
        (
            "control_longest_event_seconds",
            Gauge,
            "Longest time that the control loop took for one event.",
            control.longest_event_us,
        ),
    ] {
        text.seconds(name, kind, help, micros);
    }
}
