//! The status of a bridge as text: what `status` prints, and with rates what `top` shows.

use mycelium_bridge::status::{Delivered, Level, Link, Missed, Status, Topic};

use super::table::Align::{Left, Right};
use super::table::{Table, bytes, grouped, printable, span};

/// Cells of an occupancy bar.
const BAR_WIDTH: u64 = 10;

/// Renders a status; with an earlier one of the same bridge also what moved per second since.
pub(super) fn render(status: &Status, earlier: Option<&Status>) -> String {
    let earlier = earlier.filter(|it| it.pid == status.pid && it.now_ms < status.now_ms);
    let rates = Rates { status, earlier };
    let mut text = head(status, &rates);
    for (title, table) in [
        ("workers", workers(status)),
        ("links", links(status, &rates)),
        ("topics", topics(status, &rates)),
        ("uplinks", uplinks(status)),
        ("endpoints", endpoints(status)),
    ] {
        if !table.is_empty() {
            text += &format!("\n{title}\n{}", table.render());
        }
    }
    text
}

/// What moved per second since an earlier status.
struct Rates<'s> {
    status: &'s Status,
    earlier: Option<&'s Status>,
}

impl Rates<'_> {
    /// Frames per second; nothing without an earlier status, or where counting has begun anew.
    fn of(&self, now: u64, before: Option<u64>) -> Option<u64> {
        let elapsed_ms = self.status.now_ms - self.earlier?.now_ms;
        let moved = u128::from(now.checked_sub(before.unwrap_or(0))?);
        u64::try_from(moved * 1000 / u128::from(elapsed_ms)).ok()
    }

    fn link_before(&self, number: u32) -> Option<&Link> {
        let mut links = self.earlier?.links.iter();
        links.find(|link| link.number == number)
    }

    fn topic_before(&self, link: u32, topic_id: u16) -> Option<&Topic> {
        let mut topics = self.link_before(link)?.topics.iter();
        topics.find(|topic| topic.topic_id == topic_id)
    }

    /// A count, with its rate if there is one.
    fn count(&self, now: Delivered, before: Option<Delivered>) -> String {
        match self.of(now.frames, before.map(|it| it.frames)) {
            Some(rate) => format!("{} ({}/s)", grouped(now.frames), grouped(rate)),
            None => grouped(now.frames),
        }
    }
}

fn head(status: &Status, rates: &Rates<'_>) -> String {
    let totals = &status.totals;
    let before = rates.earlier.map(|it| it.totals);
    let moved = |now: Delivered, before: Option<Delivered>| {
        let rate = rates.of(now.frames, before.map(|it| it.frames));
        let rate = rate.map_or_else(String::new, |rate| format!(" ({}/s)", grouped(rate)));
        format!("{} frames{rate}, {}", grouped(now.frames), bytes(now.bytes))
    };
    let mut text = format!(
        "mycelium-bridge {}  pid {}  running for {}  {}\n",
        printable(&status.version),
        status.pid,
        span(status.now_ms.saturating_sub(status.started_ms)),
        printable(&status.config),
    );
    text += &format!(
        "published {}   delivered {}   dropped {}   missed {}\n",
        moved(totals.published, before.map(|it| it.published)),
        moved(totals.delivered, before.map(|it| it.delivered)),
        grouped(totals.dropped),
        grouped(totals.missed),
    );
    if let Some(metrics) = &status.metrics {
        text += &format!("metrics   http://{}/metrics\n", printable(metrics));
    }
    let counts = [
        ("clients refused as busy", totals.refused_busy),
        ("clients refused as not allowed", totals.refused_not_allowed),
        ("reloads", totals.reloads_applied),
        ("reloads refused", totals.reloads_refused),
    ];
    for (what, count) in counts.iter().filter(|(_, count)| *count > 0) {
        text += &format!("{what}: {}\n", grouped(*count));
    }
    if status.plane.is_none() {
        text +=
            "the data plane does not answer: nothing moves, and no counter of a link is known\n";
    }
    text
}

fn workers(status: &Status) -> Table {
    let mut table = Table::new(&[
        ("name", Left),
        ("state", Left),
        ("pid", Right),
        ("up for", Right),
        ("process", Right),
        ("restarts", Right),
        ("hangs", Right),
        ("last end", Left),
    ]);
    for worker in &status.workers {
        let up = worker.up_since_ms;
        table.row(vec![
            worker.name.clone(),
            worker.phase.clone(),
            or_dash(worker.pid),
            up.map_or_else(dash, |since| span(status.now_ms.saturating_sub(since))),
            format!("#{}", worker.incarnation),
            grouped(worker.restarts),
            grouped(worker.hangs),
            worker.last_end.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn links(status: &Status, rates: &Rates<'_>) -> Table {
    let mut table = Table::new(&[
        ("name", Left),
        ("pid", Right),
        ("transport", Left),
        ("published", Right),
        ("delivered", Right),
        ("dropped", Right),
        ("missed", Right),
        ("waiting", Right),
        ("full", Right),
        ("wakeups", Right),
        ("ring in", Left),
        ("ring out", Left),
    ]);
    for link in &status.links {
        let before = rates.link_before(link.number);
        let fallback = if link.fallback.is_some() { " *" } else { "" };
        let transport = link.transport.as_deref().unwrap_or("-");
        table.row(vec![
            link.name.clone(),
            or_dash(link.pid),
            format!("{transport}{fallback}"),
            rates.count(link.published, before.map(|it| it.published)),
            rates.count(link.delivered, before.map(|it| it.delivered)),
            grouped(link.dropped),
            grouped(link.missed),
            grouped(link.waiting),
            grouped(link.times_full),
            grouped(link.wakeups),
            bar(link.ring_in),
            bar(link.ring_out),
        ]);
        if let Some(fallback) = &link.fallback {
            table.note(&format!("* fallback: {fallback}"));
        }
        for option in &link.degraded {
            table.note(&format!("without an option: {option}"));
        }
        if let Some(error) = &link.last_error {
            table.note(&format!("last error: {error}"));
        }
        for difference in &link.contract_differences {
            table.note(&format!("contracts differ: {difference}"));
        }
    }
    table
}

fn topics(status: &Status, rates: &Rates<'_>) -> Table {
    let mut table = Table::new(&[
        ("link", Left),
        ("topic", Left),
        ("published", Right),
        ("delivered", Right),
        ("missed", Left),
    ]);
    for link in &status.links {
        for topic in &link.topics {
            let before = rates.topic_before(link.number, topic.topic_id);
            table.row(vec![
                link.name.clone(),
                topic.message.clone(),
                rates.count(topic.published, before.map(|it| it.published)),
                rates.count(topic.delivered, before.map(|it| it.delivered)),
                missed(&topic.missed),
            ]);
        }
    }
    table
}

fn uplinks(status: &Status) -> Table {
    let mut table = Table::new(&[
        ("name", Left),
        ("state", Left),
        ("connections", Right),
        ("imported", Right),
        ("exported", Right),
        ("dropped", Right),
        ("address", Left),
    ]);
    for uplink in &status.uplinks {
        table.row(vec![
            uplink.name.clone(),
            uplink.state.clone(),
            grouped(uplink.connections),
            grouped(uplink.imported),
            grouped(uplink.exported),
            grouped(uplink.dropped),
            uplink.address.clone(),
        ]);
        if let Some(error) = &uplink.last_error {
            table.note(&format!("last error: {error}"));
        }
    }
    table
}

fn endpoints(status: &Status) -> Table {
    let mut table = Table::new(&[("address", Left), ("token", Left), ("in handshake", Right)]);
    for endpoint in &status.endpoints {
        table.row(vec![
            endpoint.address.clone(),
            if endpoint.token { "yes" } else { "no" }.to_owned(),
            format!("{} of {}", endpoint.handshakes, endpoint.handshakes_max),
        ]);
    }
    table
}

fn missed(missed: &Missed) -> String {
    let causes = [
        ("drop_newest", missed.drop_newest),
        ("drop_oldest", missed.drop_oldest),
        ("conflate", missed.conflated),
        ("quarantine", missed.quarantined),
    ];
    let parts = causes.iter().filter(|(_, count)| *count > 0);
    let parts: Vec<_> = parts
        .map(|(cause, count)| format!("{cause} {}", grouped(*count)))
        .collect();
    parts.join(", ")
}

/// How full a ring is; what is not empty shows at least one cell.
fn bar(level: Level) -> String {
    if level.capacity == 0 {
        return dash();
    }
    let used = level.used.min(level.capacity);
    let cells = (used * BAR_WIDTH).div_ceil(level.capacity);
    let percent = (used * 100).div_ceil(level.capacity);
    let cell = |at| if at < cells { '█' } else { '·' };
    let bar: String = (0..BAR_WIDTH).map(cell).collect();
    format!("{bar} {percent:>3}%")
}

fn or_dash(number: Option<u32>) -> String {
    number.map_or_else(dash, |number| number.to_string())
}

fn dash() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests;
