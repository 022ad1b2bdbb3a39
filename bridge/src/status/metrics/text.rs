//! Writes metrics one after the other in the text format.

use std::fmt::Write;

use super::super::model::{Link, Topic, Worker};
use crate::router::BOUNDS_US;

/// The text under construction.
pub(super) struct Text(pub(super) String);

/// How a metric behaves.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Goes up; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Counter => "_total",
            Self::Gauge => "",
        }
    }
}

impl Text {
    /// One metric with all its samples; without any it is left out.
    pub(super) fn metric<'l>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'l str, &'l str)>, u64)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let (kind, suffix) = (kind.name(), kind.suffix());
        let text = &mut self.0;
        // Writing into a string does not fail.
        let _ = writeln!(text, "# HELP mycelium_{name}{suffix} {help}");
        let _ = writeln!(text, "# TYPE mycelium_{name}{suffix} {kind}");
        for (labels, value) in samples {
            let _ = write!(text, "mycelium_{name}{suffix}");
            for (number, (label, value)) in labels.iter().enumerate() {
                let open = if number == 0 { '{' } else { ',' };
                let _ = write!(text, "{open}{label}=\"{}\"", escape(value));
            }
            let close = if labels.is_empty() { "" } else { "}" };
            let _ = writeln!(text, "{close} {value}");
        }
    }

    /// A time in seconds that is one sample.
    pub(super) fn seconds(&mut self, name: &str, kind: Kind, help: &str, micros: u64) {
        let suffix = kind.suffix();
        let text = &mut self.0;
        let _ = writeln!(text, "# HELP mycelium_{name}{suffix} {help}");
        let _ = writeln!(text, "# TYPE mycelium_{name}{suffix} {}", kind.name());
        let _ = writeln!(text, "mycelium_{name}{suffix} {}", seconds(micros));
    }

    /// How long frames lie in the rings of links, as a histogram for each link that has samples.
    pub(super) fn residence(&mut self, links: &[Link]) {
        let name = "mycelium_link_residence_seconds";
        let mut sampled = links
            .iter()
            .filter(|it| it.residence.samples > 0)
            .peekable();
        if sampled.peek().is_none() {
            return;
        }
        let text = &mut self.0;
        let _ = writeln!(
            text,
            "# HELP {name} Time that frames lie in the ring to the peer until they are acknowledged; sampled."
        );
        let _ = writeln!(text, "# TYPE {name} histogram");
        for link in sampled {
            let (residence, link) = (&link.residence, escape(&link.name));
            let mut cumulative = 0;
            for bound in BOUNDS_US {
                let mut buckets = residence.buckets.iter();
                let bucket = buckets.find(|it| it.up_to_us == Some(bound));
                cumulative += bucket.map_or(0, |it| it.samples);
                let le = seconds(bound);
                let _ = writeln!(
                    text,
                    "{name}_bucket{{link=\"{link}\",le=\"{le}\"}} {cumulative}"
                );
            }
            let total = residence.samples;
            let _ = writeln!(text, "{name}_bucket{{link=\"{link}\",le=\"+Inf\"}} {total}");
            let sum = seconds(residence.sum_us);
            let _ = writeln!(text, "{name}_sum{{link=\"{link}\"}} {sum}");
            let _ = writeln!(text, "{name}_count{{link=\"{link}\"}} {total}");
        }
    }

    pub(super) fn workers(
        &mut self,
        workers: &[Worker],
        name: &str,
        kind: Kind,
        help: &str,
        value: fn(&Worker) -> u64,
    ) {
        let samples = workers
            .iter()
            .map(|it| (vec![("worker", &*it.name)], value(it)));
        self.metric(name, kind, help, samples);
    }

    pub(super) fn links(
        &mut self,
        links: &[Link],
        name: &str,
        kind: Kind,
        help: &str,
        value: fn(&Link) -> u64,
    ) {
        let samples = links
            .iter()
            .map(|it| (vec![("link", &*it.name)], value(it)));
        self.metric(name, kind, help, samples);
    }

    /// A metric of links with a value for each direction, seen from the bridge.
    pub(super) fn directions(
        &mut self,
        links: &[Link],
        name: &str,
        help: &str,
        values: fn(&Link) -> [u64; 2],
    ) {
        let samples = links.iter().flat_map(|link| {
            let [inward, outward] = values(link);
            [("in", inward), ("out", outward)].map(|(direction, value)| {
                (vec![("link", &*link.name), ("direction", direction)], value)
            })
        });
        self.metric(name, Kind::Gauge, help, samples);
    }

    /// A counter of links by topic, for each direction that a topic has.
    pub(super) fn topics(
        &mut self,
        links: &[Link],
        name: &str,
        help: &str,
        values: fn(&Topic) -> [u64; 2],
    ) {
        let topics = links
            .iter()
            .flat_map(|link| link.topics.iter().map(move |it| (link, it)));
        let samples = topics.flat_map(|(link, topic)| {
            let frames = [topic.published.frames, topic.delivered.frames];
            let [inward, outward] = values(topic);
            let values = [("in", inward), ("out", outward)].into_iter().zip(frames);
            let moved = values.filter(|(_, frames)| *frames > 0);
            moved.map(|((direction, value), _)| {
                let labels = vec![
                    ("link", &*link.name),
                    ("topic", &*topic.message),
                    ("direction", direction),
                ];
                (labels, value)
            })
        });
        self.metric(name, Kind::Counter, help, samples);
    }
}

/// A time as the format wants it, exact to the microsecond.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A label's value as the format wants it.
fn escape(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
