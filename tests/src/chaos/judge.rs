//! Compares what was published with what the workers wrote down, and with what the bridge counted.

use std::collections::{BTreeMap, HashMap};

use mycelium_bridge::status::Status;

use super::cast::{EXTRAS, Fate, Promise, ROLES, Role};
use super::crowd::Gone;
use super::faults::TOPICS;
use super::frames::{POISON, Publisher, TOPIC_IDS, checksum, payload, topic_of};
use super::journal::{Entry, Writer};
use super::track::{Order, Track};

/// A receipt of a worker, as it came.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// The worker.
    pub worker: String,
    /// Its epoch.
    pub epoch: u64,
    /// Publisher, number and checksum of the order that it has handled.
    pub entry: Entry,
}

/// Everything that is known about who got what.
#[derive(Debug, Default)]
pub struct Judge {
    /// By reader, topic and publisher.
    tracks: HashMap<(String, usize), BTreeMap<u32, Track>>,
    /// By worker and topic id: how many frames it was told to have missed.
    told: HashMap<(String, u32), u64>,
    /// Numbers of poisonous orders, by publisher.
    poison: HashMap<u32, Vec<u64>>,
    /// Clients that are gone, and what of theirs must have been delivered.
    gone: Vec<Gone>,
    /// By lane of the shared topic: who has it.
    lanes: HashMap<u32, String>,
}

impl Judge {
    /// An order of this publisher is poisonous.
    pub fn poisonous(&mut self, publisher: u32, sequence: u64) {
        self.poison.entry(publisher).or_default().push(sequence);
    }

    /// A publisher is gone.
    pub fn gone(&mut self, gone: impl IntoIterator<Item = Gone>) {
        self.gone.extend(gone);
    }

    /// Takes in what a worker wrote down.
    ///
    /// # Panics
    ///
    /// If a frame is not what was published, or out of order.
    pub fn hear(&mut self, writer: &Writer, entries: &[Entry]) {
        let process = (writer.epoch << 32) | u64::from(writer.pid);
        for entry in entries {
            let Some(topic) = topic_of(entry.topic_id) else {
                let told = (writer.worker.clone(), entry.checksum);
                let total = self.told.entry(told).or_default();
                *total = entry.sequence.max(*total);
                continue;
            };
            let order = order_of(&writer.worker, topic);
            self.take(&writer.worker, topic, order, process, entry);
            if TOPICS[topic] == "Job" && writer.worker.starts_with("crew") {
                let owner = self
                    .lanes
                    .entry(entry.lane)
                    .or_insert(writer.worker.clone());
                assert_eq!(*owner, writer.worker, "lane {} moved", entry.lane);
            }
        }
    }

    /// Takes in a receipt.
    ///
    /// # Panics
    ///
    /// If it is for something that was not published, or out of order.
    pub fn hear_receipt(&mut self, receipt: &Receipt) {
        let reader = receipts_of(&receipt.worker);
        self.take(&reader, 0, Order::Gapless, receipt.epoch, &receipt.entry);
    }

    fn take(&mut self, reader: &str, topic: usize, order: Order, process: u64, entry: &Entry) {
        let poison = self.poison.get(&entry.publisher);
        let poisonous = topic == 0 && poison.is_some_and(|it| it.contains(&entry.sequence));
        let flags = if poisonous { POISON } else { 0 };
        let expected = checksum(&payload(topic, entry.publisher, flags, entry.sequence));
        let what = TOPICS[topic];
        assert_eq!(
            entry.checksum, expected,
            "{reader} got a {what} that was not published so: {entry:?}"
        );
        let tracks = self.tracks.entry((reader.to_owned(), topic)).or_default();
        let track = tracks.entry(entry.publisher).or_default();
        if let Err(wrong) = track.take(order, process, entry.lane, entry.sequence, entry.checksum) {
            panic!(
                "{reader}: {what} of publisher {} out of order: {wrong}",
                entry.publisher
            );
        }
    }

    fn sum_over<T: std::iter::Sum>(
        &self,
        reader: &str,
        topic: usize,
        value: impl Fn(&Track) -> T,
    ) -> T {
        let tracks = self.tracks.get(&(reader.to_owned(), topic));
        tracks
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(value)
            .sum()
    }

    fn distinct(&self, reader: &str, topic: usize) -> u64 {
        self.sum_over(reader, topic, |track| track.numbers.count())
    }

    /// What does not add up, or not yet.
    ///
    /// # Panics
    ///
    /// If an untouched worker was disturbed.
    #[must_use]
    pub fn open_questions(
        &self,
        status: &Status,
        publishers: &[Publisher],
        ends: &[u64; ROLES.len()],
        set_aside: &[(u32, u64)],
    ) -> Vec<String> {
        let mut open = Vec::new();
        let published = self.published(publishers);
        for (number, role) in ROLES.iter().enumerate() {
            self.look_at_link(role, status, &published, set_aside, &mut open);
            self.look_at_worker(role, status, ends[number], &mut open);
        }
        for &(name, topic) in &[("ledger", 0), ("clerk", 0)] {
            let (handled, receipts) = (
                self.distinct(name, topic),
                self.distinct(&receipts_of(name), topic),
            );
            if handled != receipts {
                open.push(format!("{name}: handled={handled} receipts={receipts}"));
            }
        }
        let shared = self.distinct("crew-a", 3) + self.distinct("crew-b", 3);
        if shared != published[3] {
            open.push(format!("crew: shared={shared} published={}", published[3]));
        }
        self.look_at_publishers(publishers, &mut open);
        open
    }

    /// How many frames of each topic were published. Of clients that are gone only their subscribers know; one of those is
    /// never disturbed.
    fn published(&self, publishers: &[Publisher]) -> [u64; TOPICS.len()] {
        let mut published = [0; TOPICS.len()];
        for publisher in publishers {
            published[publisher.topic] += publisher.published;
        }
        let orders = self.tracks.get(&("calm".to_owned(), 0));
        let of_gone = orders.into_iter().flatten().filter(|(id, _)| **id > 100);
        published[0] += of_gone.map(|(_, track)| track.highest).sum::<u64>();
        published
    }

    /// How many of these frames a worker has written down all the same: before a SIGKILL, so the bridge took them for the
    /// cause.
    fn handled_of(&self, name: &str, topic: usize, frames: &[(u32, u64)]) -> u64 {
        let tracks = self.tracks.get(&(name.to_owned(), topic));
        let handled = frames.iter().filter(|(publisher, number)| {
            let track = tracks.and_then(|tracks| tracks.get(publisher));
            track.is_some_and(|track| track.numbers.contains(*number))
        });
        handled.count() as u64
    }

    /// Every frame was delivered or missed, what was delivered was handled, and nothing waits.
    fn look_at_link(
        &self,
        role: &Role,
        status: &Status,
        published: &[u64; TOPICS.len()],
        set_aside: &[(u32, u64)],
        open: &mut Vec<String>,
    ) {
        let name = role.name;
        let Some(link) = status.links.iter().find(|link| link.name == name) else {
            open.push(format!("{name}: no link"));
            return;
        };
        for (topic_name, promise) in role.topics {
            let topic = index_of(topic_name);
            let counted = link
                .topics
                .iter()
                .find(|it| it.topic_id == TOPIC_IDS[topic]);
            let (delivered, missed) = counted.map_or((0, Default::default()), |it| {
                (it.delivered.frames, it.missed)
            });
            let dropped = missed.drop_newest + missed.drop_oldest + missed.conflated;
            let handled = self.distinct(name, topic);
            let wanted = published[topic];
            let shared = *promise == Promise::Share;
            let both = match role.fate {
                Fate::Poisoned => self.handled_of(name, topic, set_aside),
                _ => 0,
            };
            let all_accounted = shared
                || (delivered + dropped == wanted
                    && handled + dropped + missed.quarantined == wanted + both);
            let is_told =
                role.fate != Fate::Poisoned || missed.quarantined == set_aside.len() as u64;
            let none_missed = matches!(promise, Promise::AllButMissed | Promise::Latest)
                || dropped == 0 && (missed.quarantined == 0 || role.fate == Fate::Poisoned);
            let all_handled = !shared || handled == delivered;
            if !(all_accounted && is_told && none_missed && all_handled) || link.waiting != 0 {
                open.push(format!(
                    "{name}: {topic_name}: published={wanted} delivered={delivered} {missed:?} handled={handled} waiting={} ring={:?}",
                    link.waiting, link.ring_out
                ));
            }
            let told = self
                .told
                .get(&(name.to_owned(), u32::from(TOPIC_IDS[topic])));
            let told = told.copied().unwrap_or(0);
            let total = dropped + missed.quarantined;
            if told > total || (role.fate == Fate::Untouched && told != total) {
                open.push(format!("{name}: {topic_name}: missed={total} told={told}"));
            }
        }
    }

    /// Nobody ended but by what was done to him.
    fn look_at_worker(&self, role: &Role, status: &Status, ends: u64, open: &mut Vec<String>) {
        let name = role.name;
        let worker = status.workers.iter().find(|worker| worker.name == name);
        let restarts = worker.map_or(0, |worker| worker.restarts);
        let up = worker.is_some_and(|worker| worker.phase == "up");
        if !up || (role.fate == Fate::Any && restarts != ends) {
            open.push(format!(
                "{name}: up={up} restarts={restarts}, brought about={ends}"
            ));
        }
        if role.fate != Fate::Untouched {
            return;
        }
        assert_eq!(restarts, 0, "{name} was disturbed");
        let link = status.links.iter().find(|link| link.name == name);
        let epoch = link.map_or(0, |link| link.epoch);
        assert_eq!(epoch, 1, "{name} was disturbed");
        for (topic, topic_name) in TOPICS.iter().enumerate() {
            let repeated = self.sum_over(name, topic, |track| track.repeated);
            assert_eq!(repeated, 0, "{name} got a {topic_name} twice");
        }
    }

    /// All who get every order got as many of each publisher, and of each lane the last book came.
    fn look_at_publishers(&self, publishers: &[Publisher], open: &mut Vec<String>) {
        let none = BTreeMap::new();
        let of = |name: &str, topic| self.tracks.get(&(name.to_owned(), topic)).unwrap_or(&none);
        let highest = |name, id: &u32| of(name, 0).get(id).map_or(0, |track| track.highest);
        for (id, track) in of("calm", 0) {
            for name in ["ledger", "clerk", "hasty"] {
                if highest(name, id) != track.highest {
                    let (here, there) = (highest(name, id), track.highest);
                    open.push(format!("publisher {id}: {name}={here} calm={there}"));
                }
            }
        }
        for gone in &self.gone {
            let got = highest("calm", &gone.id);
            if got < gone.least || got > gone.most {
                open.push(format!("{gone:?}: delivered={got}"));
            }
        }
        for publisher in publishers.iter().filter(|it| it.topic == 2) {
            let lanes = super::frames::latest_of_lanes(publisher.published);
            for name in ["mirror", "far-mirror", "serene"] {
                for (lane, sequence) in &lanes {
                    let track = of(name, 2).get(&publisher.id);
                    let got = track.and_then(|track| track.latest.get(lane));
                    if got != Some(sequence) {
                        open.push(format!(
                            "{name}: lane {lane}: latest={sequence} got={got:?}"
                        ));
                    }
                }
            }
        }
    }

    /// Clients whose frames were accounted for are not looked at again.
    pub fn settled(&mut self) {
        self.gone.clear();
    }

    /// A line for each topic and for each of its subscribers.
    #[must_use]
    pub fn summary(&self, status: &Status) -> String {
        let mut text = String::new();
        for (topic, topic_name) in TOPICS.iter().enumerate() {
            for role in ROLES {
                if !role.topics.iter().any(|(name, _)| name == topic_name) {
                    continue;
                }
                let link = status.links.iter().find(|link| link.name == role.name);
                let counted = link.and_then(|link| {
                    link.topics
                        .iter()
                        .find(|it| it.topic_id == TOPIC_IDS[topic])
                });
                let missed = counted.map_or(Default::default(), |it| it.missed);
                let handled = self.distinct(role.name, topic);
                let sum = self.sum_over(role.name, topic, |track| track.sum);
                let repeated = self.sum_over(role.name, topic, |track| track.repeated);
                text += &format!(
                    "  {topic_name:6} {:11} handled={handled:<8} missed={:<7} quarantined={:<4} repeated={repeated:<6} checksum={sum:016x}\n",
                    role.name,
                    missed.drop_newest + missed.drop_oldest + missed.conflated,
                    missed.quarantined,
                );
            }
        }
        text
    }
}

fn index_of(name: &str) -> usize {
    let found = TOPICS.iter().position(|topic| *topic == name);
    found.expect("a topic of the run")
}

fn receipts_of(worker: &str) -> String {
    format!("receipts of {worker}")
}

/// Which order a worker must see.
fn order_of(worker: &str, topic: usize) -> Order {
    if EXTRAS.contains(&worker) {
        return match TOPICS[topic] {
            "Order" => Order::GaplessFromAnywhere,
            _ => Order::Rising,
        };
    }
    let role = ROLES.iter().find(|role| role.name == worker);
    let role = role.unwrap_or_else(|| panic!("no worker {worker}"));
    let promise = role.topics.iter().find(|(name, _)| *name == TOPICS[topic]);
    match promise {
        // What is moved aside leaves a gap.
        Some((_, Promise::All)) if role.fate == Fate::Poisoned => Order::Rising,
        Some((_, Promise::All)) => Order::Gapless,
        Some((_, Promise::AllButMissed | Promise::Share)) => Order::Rising,
        Some((_, Promise::Latest)) => Order::RisingByLane,
        None => panic!("{worker} has not asked for {}", TOPICS[topic]),
    }
}
