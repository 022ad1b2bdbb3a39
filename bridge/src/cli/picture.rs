//! The status of a bridge as text: what `status` prints, and with rates what `top` shows.

use mycelium_bridge::status::{Delivered, Level, Link, Missed, Residence, Status, Topic};

use super::paint::{Line, Style};
use super::table::{Cell, Table, bytes, grouped, left, printable, right, short, span};

/// Between the parts of a line at the head, where it may be continued on another.
const BETWEEN: &str = "   ";
/// Cells of an occupancy bar, and in a narrow window.
const BAR_WIDTH: u64 = 10;
const BAR_WIDTH_NARROW: u64 = 4;
/// Columns below which a window is narrow.
const NARROW: usize = 150;
/// A frame that lies unacknowledged for longer shows that its subscriber is in trouble, in microseconds.
const LONG_US: u64 = 1_000_000;

/// Renders a status for a window of so many columns; with an earlier one of the same bridge also what moved per second since.
pub(super) fn render(
    status: &Status,
    earlier: Option<&Status>,
    window: Option<usize>,
) -> Vec<Line> {
    let earlier = earlier.filter(|it| it.pid == status.pid && it.now_ms < status.now_ms);
    let rates = Rates { status, earlier };
    let columns = window.unwrap_or(usize::MAX);
    let mut lines: Vec<_> = head(status, &rates)
        .iter()
        .flat_map(|line| line.wrapped(columns, BETWEEN, 2))
        .collect();
    let bar_width = match window {
        Some(window) if window < NARROW => BAR_WIDTH_NARROW,
        _ => BAR_WIDTH,
    };
    for (title, table) in [
        ("workers", workers(status)),
        ("links", links(status, &rates, bar_width)),
        ("topics", topics(status, &rates)),
        ("uplinks", uplinks(status)),
        ("endpoints", endpoints(status)),
    ] {
        if table.is_empty() {
            continue;
        }
        let (rows, hidden) = table.lines(window);
        let mut heading = Line::new().with(title, Style::Strong);
        if !hidden.is_empty() {
            let names = hidden.join(", ");
            heading = heading.with(format!("  (in a wider window: {names})"), Style::Dim);
        }
        lines.push(Line::new());
        lines.extend(heading.wrapped(columns, " ", 2));
        lines.extend(rows);
    }
    lines
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

    /// How much of the time a thread was busy, since the earlier status or else since the bridge began.
    fn busy(&self, now_us: u64, before_us: Option<u64>) -> String {
        let begin_ms = self.earlier.map_or(self.status.started_ms, |it| it.now_ms);
        let elapsed_ms = self.status.now_ms.saturating_sub(begin_ms).max(1);
        let busy_us = now_us.saturating_sub(before_us.unwrap_or(0));
        format!("busy {}%", (busy_us / 10 / elapsed_ms).min(100))
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
    fn count(&self, now: Delivered, before: Option<Delivered>) -> Cell {
        let rate = self.of(now.frames, before.map(|it| it.frames));
        let text = match rate {
            Some(rate) => format!("{} ({}/s)", grouped(now.frames), grouped(rate)),
            None => grouped(now.frames),
        };
        let is_quiet = now.frames == 0 || rate == Some(0);
        Cell::new(text, if is_quiet { Style::Dim } else { Style::Plain })
    }
}

fn head(status: &Status, rates: &Rates<'_>) -> Vec<Line> {
    let totals = &status.totals;
    let before = rates.earlier.map(|it| it.totals);
    let moved = |now: Delivered, before: Option<Delivered>| {
        let rate = rates.of(now.frames, before.map(|it| it.frames));
        let rate = rate.map_or_else(String::new, |rate| format!(" ({}/s)", grouped(rate)));
        format!("{} frames{rate}, {}", grouped(now.frames), bytes(now.bytes))
    };
    let title = format!("mycelium-bridge {}", printable(&status.version));
    let up = span(status.now_ms.saturating_sub(status.started_ms));
    let config = printable(&status.config);
    let warn = |count| if count > 0 { Style::Warn } else { Style::Plain };
    let mut lines = vec![
        Line::new().with(title, Style::Strong).plain(format!(
            "   pid {}   running for {up}   {config}",
            status.pid
        )),
        Line::new()
            .plain(format!(
                "published {}   delivered {}   ",
                moved(totals.published, before.map(|it| it.published)),
                moved(totals.delivered, before.map(|it| it.delivered)),
            ))
            .with(
                format!("dropped {}", grouped(totals.dropped)),
                warn(totals.dropped),
            )
            .plain("   ")
            .with(
                format!("missed {}", grouped(totals.missed)),
                warn(totals.missed),
            ),
        data_plane(status, rates),
        control_plane(status, rates),
    ];
    if let Some(metrics) = &status.metrics {
        lines.push(Line::new().plain(format!("metrics   http://{}/metrics", printable(metrics))));
    }
    let counts = [
        ("clients refused as busy", totals.refused_busy, Style::Warn),
        (
            "clients refused as not allowed",
            totals.refused_not_allowed,
            Style::Warn,
        ),
        ("reloads", totals.reloads_applied, Style::Plain),
        ("reloads refused", totals.reloads_refused, Style::Warn),
        ("log lines lost", totals.log_lines_lost, Style::Warn),
    ];
    for (what, count, style) in counts.iter().filter(|(_, count, _)| *count > 0) {
        lines.push(Line::new().with(format!("{what}: {}", grouped(*count)), *style));
    }
    lines
}

fn data_plane(status: &Status, rates: &Rates<'_>) -> Line {
    let Some(plane) = &status.plane else {
        let silent_us = status.plane_silent_ms.unwrap_or(0).saturating_mul(1000);
        let text = format!(
            "data plane   does not answer, for {} at least: nothing moves, and no counter of a link is known",
            short(silent_us)
        );
        return Line::new().with(text, Style::Bad);
    };
    let before = rates.earlier.and_then(|it| it.plane);
    let (rounds, frames) = match before {
        Some(before) => (
            plane.rounds.saturating_sub(before.rounds),
            plane.frames.saturating_sub(before.frames),
        ),
        None => (plane.rounds, plane.frames),
    };
    let per_round = match rounds {
        0 => String::new(),
        _ => format!("{} frames a round   ", tenths(frames, rounds)),
    };
    Line::new().plain(format!(
        "data plane   {}   {per_round}{} sleeps   answers in {}",
        rates.busy(plane.busy_us, before.map(|it| it.busy_us)),
        grouped(plane.parks),
        short(plane.answer_us),
    ))
}

fn control_plane(status: &Status, rates: &Rates<'_>) -> Line {
    let control = &status.control;
    let before = rates.earlier.map(|it| it.control.busy_us);
    Line::new()
        .plain(format!(
            "control plane   {}   {} tasks   {} threads   ",
            rates.busy(control.busy_us, before),
            grouped(control.tasks),
            grouped(control.threads),
        ))
        .with(
            format!("late by {}", short(control.late_us)),
            alarm(control.late_us),
        )
        .plain("   ")
        .with(
            format!("longest event {}", short(control.longest_event_us)),
            alarm(control.longest_event_us),
        )
}

/// Whoever is late by a second is in trouble, and by a tenth of that on the way.
fn alarm(micros: u64) -> Style {
    match micros {
        0..100_000 => Style::Plain,
        100_000..LONG_US => Style::Warn,
        _ => Style::Bad,
    }
}

fn workers(status: &Status) -> Table {
    let mut table = Table::new(&[
        left("name").name(),
        left("state"),
        right("pid").rank(2),
        right("up for"),
        right("process").rank(3),
        right("restarts"),
        right("hangs").rank(1),
        left("last end"),
    ]);
    for worker in &status.workers {
        let up = worker.up_since_ms;
        let style = match &*worker.phase {
            "up" => Style::Good,
            "backoff" => Style::Warn,
            "gave up" => Style::Bad,
            "starting" => Style::Plain,
            _ => Style::Dim,
        };
        table.row(vec![
            Cell::plain(&worker.name),
            Cell::new(&worker.phase, style),
            or_dash(worker.pid),
            up.map_or_else(Cell::dash, |since| {
                Cell::plain(span(status.now_ms.saturating_sub(since)))
            }),
            Cell::new(format!("#{}", worker.incarnation), Style::Dim),
            Cell::count(worker.restarts, Style::Warn),
            Cell::count(worker.hangs, Style::Bad),
            Cell::plain(worker.last_end.as_deref().unwrap_or_default()),
        ]);
        if let Some(words) = &worker.last_words {
            table.note(&format!("last words: {words}"), Style::Warn);
        }
    }
    table
}

fn links(status: &Status, rates: &Rates<'_>, bar_width: u64) -> Table {
    let mut table = Table::new(&[
        left("name").name(),
        right("pid").rank(8),
        left("transport").rank(4),
        right("published"),
        right("delivered"),
        right("dropped").rank(2),
        right("missed").rank(1),
        right("waiting").rank(3),
        right("full").rank(6),
        right("wakeups").rank(7),
        right("in ring p50/p99").rank(5),
        left("ring in"),
        left("ring out"),
    ]);
    for link in &status.links {
        let before = rates.link_before(link.number);
        let transport = link.transport.as_deref().unwrap_or("-");
        let transport = match &link.fallback {
            Some(_) => Cell::new(format!("{transport} *"), Style::Warn),
            None => Cell::plain(transport),
        };
        table.row(vec![
            Cell::plain(&link.name),
            or_dash(link.pid),
            transport,
            rates.count(link.published, before.map(|it| it.published)),
            rates.count(link.delivered, before.map(|it| it.delivered)),
            Cell::count(link.dropped, Style::Warn),
            Cell::count(link.missed, Style::Warn),
            Cell::count(link.waiting, Style::Warn),
            Cell::count(link.times_full, Style::Plain),
            Cell::count(link.wakeups, Style::Plain),
            residence(&link.residence),
            bar(link.ring_in, bar_width),
            bar(link.ring_out, bar_width),
        ]);
        if let Some(fallback) = &link.fallback {
            table.note(&format!("* fallback: {fallback}"), Style::Warn);
        }
        for option in &link.degraded {
            table.note(&format!("without an option: {option}"), Style::Warn);
        }
        if let Some(error) = &link.last_error {
            table.note(&format!("last error: {error}"), Style::Warn);
        }
        for difference in &link.contract_differences {
            table.note(&format!("contracts differ: {difference}"), Style::Warn);
        }
        let waiting = link.residence.waiting_us;
        if let Some(waiting) = waiting.filter(|waiting| *waiting >= LONG_US) {
            let waiting = short(waiting);
            table.note(
                &format!("nothing acknowledged for {waiting}, and frames are there"),
                Style::Bad,
            );
        }
    }
    table
}

fn topics(status: &Status, rates: &Rates<'_>) -> Table {
    let mut table = Table::new(&[
        left("link").name(),
        left("topic").name(),
        right("published"),
        right("delivered"),
        left("missed"),
    ]);
    for link in &status.links {
        for topic in &link.topics {
            let before = rates.topic_before(link.number, topic.topic_id);
            table.row(vec![
                Cell::plain(&link.name),
                Cell::plain(&topic.message),
                rates.count(topic.published, before.map(|it| it.published)),
                rates.count(topic.delivered, before.map(|it| it.delivered)),
                Cell::new(missed(&topic.missed), Style::Warn),
            ]);
        }
    }
    table
}

fn uplinks(status: &Status) -> Table {
    let mut table = Table::new(&[
        left("name").name(),
        left("state"),
        right("connections").rank(1),
        right("imported"),
        right("exported"),
        right("dropped"),
        left("address").name(),
    ]);
    for uplink in &status.uplinks {
        let style = match &*uplink.state {
            "connected" => Style::Good,
            "disconnected" => Style::Bad,
            _ => Style::Dim,
        };
        table.row(vec![
            Cell::plain(&uplink.name),
            Cell::new(&uplink.state, style),
            Cell::count(uplink.connections, Style::Plain),
            Cell::count(uplink.imported, Style::Plain),
            Cell::count(uplink.exported, Style::Plain),
            Cell::count(uplink.dropped, Style::Warn),
            Cell::plain(&uplink.address),
        ]);
        if let Some(error) = &uplink.last_error {
            table.note(&format!("last error: {error}"), Style::Warn);
        }
    }
    table
}

fn endpoints(status: &Status) -> Table {
    let mut table = Table::new(&[left("address").name(), left("token"), right("in handshake")]);
    for endpoint in &status.endpoints {
        table.row(vec![
            Cell::plain(&endpoint.address),
            Cell::plain(if endpoint.token { "yes" } else { "no" }),
            Cell::plain(format!(
                "{} of {}",
                endpoint.handshakes, endpoint.handshakes_max
            )),
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

/// Half of the frames, and 99 of 100, lay in the ring no longer than this.
fn residence(residence: &Residence) -> Cell {
    if residence.samples == 0 {
        return Cell::dash();
    }
    let bound = |micros: Option<u64>| micros.map_or_else(|| "> 10 s".to_owned(), short);
    let (p50, p99) = (bound(residence.p50_us), bound(residence.p99_us));
    let style = alarm(residence.p99_us.unwrap_or(u64::MAX));
    Cell::new(format!("{p50} / {p99}"), style)
}

/// How full a ring is; what is not empty shows at least one cell.
fn bar(level: Level, width: u64) -> Cell {
    if level.capacity == 0 {
        return Cell::dash();
    }
    let used = level.used.min(level.capacity);
    let cells = (used * width).div_ceil(level.capacity);
    let percent = (used * 100).div_ceil(level.capacity);
    let cell = |at| if at < cells { '█' } else { '·' };
    let bar: String = (0..width).map(cell).collect();
    let style = match percent {
        0 => Style::Dim,
        1..50 => Style::Good,
        50..80 => Style::Warn,
        _ => Style::Bad,
    };
    Cell::new(format!("{bar} {percent:>3}%"), style)
}

fn or_dash(number: Option<u32>) -> Cell {
    number.map_or_else(Cell::dash, |number| Cell::plain(number.to_string()))
}

/// A quotient with one digit behind the point.
fn tenths(number: u64, of: u64) -> String {
    let tenths = u128::from(number) * 10 / u128::from(of.max(1));
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests;
