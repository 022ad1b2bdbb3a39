//! One run: step by step what the seed says, and the check after every stretch.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mycelium_messages::message::DynamicMessage;
use nix::sys::signal::Signal;
use shm_transport::channel::Channel;
use shm_transport::error::ChannelError;

use super::cast::{Fate, ROLES};
use super::crowd::Crowd;
use super::faults::{Fault, Faults, Step, TOPICS, Way};
use super::frames::{POISON, Publisher};
use super::journal::{Entry, Journals, RECORD_LEN};
use super::judge::{Judge, Receipt};
use super::messages::{self, Order};
use super::site::{BETWEEN_LOOKS, Holdings, Site};
use crate::WATCHDOG;

/// How long a fault waits for its worker to be busy.
const PATIENCE: Duration = Duration::from_millis(5);

/// Everything of a run.
struct Run {
    site: Site,
    crowd: Crowd,
    publishers: Vec<Publisher>,
    journals: Journals,
    receipts: Receiver<Receipt>,
    judge: Judge,
    held: Option<Holdings>,
}

/// Throws so many faults of this seed at a bridge and checks what came of it. `rust` is the program of workers and clients in
/// Rust, and `report` gets a line now and then.
///
/// # Panics
///
/// If anything is lost that was promised, or anybody is disturbed.
pub fn run(seed: u64, count: u64, rust: PathBuf, mut report: impl FnMut(&str)) {
    report(&format!("CHAOS_SEED={seed} CHAOS_FAULTS={count}"));
    let mut site = Site::start(rust.clone());
    let crowd = Crowd::new(&mut site, rust);
    let (receipts, reader) = read_receipts(crowd.connect("judge", Way::Any));
    let publishers = [0, 0, 1, 2, 3].iter().zip(1..).map(|(topic, id)| {
        let way = if id == 2 { Way::Socket } else { Way::Any };
        let channel = crowd.connect(&format!("publisher-{id}"), way);
        Publisher::new(id, *topic, channel)
    });
    let publishers: Vec<_> = publishers.collect();
    let journals = Journals::new(site.path().join("journal"));
    let mut run = Run {
        site,
        crowd,
        publishers,
        journals,
        receipts,
        judge: Judge::default(),
        held: None,
    };
    run.settle();
    run.held = Some(run.site.holdings());
    let start = Instant::now();
    let mut kinds = BTreeMap::<&str, u64>::new();
    let mut done = 0;
    for step in Faults::new(seed, count) {
        match step {
            Step::Fault(frames, fault) => {
                for publisher in &mut run.publishers {
                    publisher.burst(frames);
                }
                run.fault(fault);
                *kinds.entry(fault.kind()).or_default() += 1;
                done += 1;
            }
            Step::Settle => {
                run.settle();
                let seconds = start.elapsed().as_secs_f64();
                let rate = done as f64 / seconds;
                let left = (count - done) as f64 / rate;
                report(&format!(
                    "{done}/{count} faults, {rate:.1} per second, {left:.0} s to go; nothing lost: {kinds:?}"
                ));
            }
        }
    }
    run.end(reader, report);
}

/// Reads receipts on a thread of its own, so that nobody waits for the run to read them.
fn read_receipts(mut channel_of_judge: Channel) -> (Receiver<Receipt>, JoinHandle<()>) {
    let subscribed = channel_of_judge.subscribe::<messages::Receipt>();
    subscribed.unwrap_or_else(|error| panic!("{error}"));
    let (sender, receiver) = channel();
    let reader = std::thread::spawn(move || {
        loop {
            let receipt: messages::Receipt = match channel_of_judge.recv(None) {
                Ok(frame) => frame.read().unwrap_or_else(|error| panic!("{error}")),
                Err(ChannelError::Closed { .. }) => break,
                Err(error) => panic!("the judge's channel: {error}"),
            };
            let receipt = Receipt {
                worker: receipt.worker().expect("text").to_owned(),
                epoch: receipt.epoch,
                entry: Entry {
                    topic_id: Order::TOPIC_ID,
                    publisher: receipt.publisher,
                    sequence: receipt.sequence,
                    lane: 0,
                    checksum: receipt.checksum,
                },
            };
            if sender.send(receipt).is_err() {
                break;
            }
        }
        // The bridge has said that it ends.
        let _ = channel_of_judge.close();
    });
    (receiver, reader)
}

impl Run {
    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(worker, frames) => self.strike(worker, frames, Signal::SIGKILL),
            Fault::Stop(worker) | Fault::Hang(worker) => self.strike(worker, 0, Signal::SIGSTOP),
            Fault::Resume(worker) => self.strike(worker, 0, Signal::SIGCONT),
            Fault::Exit(worker, frames, false) => self.strike(worker, frames, Signal::SIGUSR1),
            Fault::Exit(worker, frames, true) => self.strike(worker, frames, Signal::SIGUSR2),
            Fault::Poison => {
                let publisher = &mut self.publishers[0];
                if publisher.publish(POISON, Duration::ZERO) {
                    self.judge.poisonous(publisher.id, publisher.published);
                }
            }
            Fault::Burst(topic, frames) => {
                let of_topic = self.publishers.iter_mut().filter(|it| it.topic == topic);
                of_topic.for_each(|publisher| {
                    publisher.burst(frames);
                });
            }
            Fault::Reload(change) => self.site.reload(change),
            Fault::Client(slot, frozen, kind) => {
                let publishers = &mut self.publishers;
                let gone = self.crowd.kill(slot, frozen, || {
                    publishers.iter_mut().for_each(|it| {
                        it.burst(100);
                    });
                });
                self.judge.gone(gone);
                self.crowd.enter(slot, kind);
            }
            Fault::Vanish(way, frames) => {
                let gone = self.crowd.vanish(way, frames);
                self.judge.gone([gone]);
            }
            Fault::Torn(frames, bytes) => {
                let gone = self.crowd.torn(frames, bytes);
                self.judge.gone([gone]);
            }
            Fault::Hostile(hostility) => self.crowd.hostile(hostility),
        }
    }

    /// A signal for a worker in the middle of so many frames of its topics: it comes when a quarter of them is written down.
    /// Where another worker holds the frames up, it comes all the same.
    fn strike(&mut self, worker: usize, frames: u64, signal: Signal) {
        let target = self.site.up(worker);
        let journal = self.site.journal(target);
        let written = || {
            let data = journal.as_ref().and_then(|it| std::fs::metadata(it).ok());
            data.map_or(0, |data| data.len() / RECORD_LEN as u64)
        };
        let before = written();
        let mut taken = 0;
        for publisher in &mut self.publishers {
            let topic = TOPICS[publisher.topic];
            if ROLES[worker].topics.iter().any(|(name, _)| *name == topic) {
                taken += publisher.burst(frames);
            }
        }
        let start = Instant::now();
        while written() < before + taken / 4 && start.elapsed() < PATIENCE {
            std::hint::spin_loop();
        }
        self.site.signal(target, signal);
    }

    fn listen(&mut self) {
        for (writer, entries) in self.journals.news() {
            self.judge.hear(&writer, &entries);
        }
        while let Ok(receipt) = self.receipts.try_recv() {
            self.judge.hear_receipt(&receipt);
        }
    }

    /// Lets everybody go on, and waits until all accounts agree.
    fn settle(&mut self) {
        for (number, role) in ROLES.iter().enumerate() {
            if role.fate == Fate::Any {
                self.strike(number, 0, Signal::SIGCONT);
            }
        }
        let gone = self.crowd.leave();
        self.judge.gone(gone);
        self.site.without_extras();
        for publisher in &mut self.publishers {
            // What waits in this process goes out before.
            let room = publisher.publish(0, WATCHDOG);
            assert!(
                room,
                "{}: no room\n{}",
                TOPICS[publisher.topic],
                self.site.last_words()
            );
        }
        self.site.all_up();
        let start = Instant::now();
        loop {
            self.listen();
            let open = self.open_questions();
            if open.is_empty() {
                break;
            }
            assert!(
                start.elapsed() < WATCHDOG,
                "watchdog: the accounts do not agree:\n{}\n{}",
                open.join("\n"),
                self.site.last_words()
            );
            std::thread::sleep(BETWEEN_LOOKS);
        }
        self.judge.settled();
    }

    fn open_questions(&mut self) -> Vec<String> {
        let status = self.site.status();
        let mut open = self.judge.open_questions(
            &status,
            &self.publishers,
            &self.site.ends,
            &self.site.set_aside(),
        );
        let expected = ROLES.len() + self.publishers.len() + 1;
        if status.links.len() != expected {
            let names: Vec<_> = status.links.iter().map(|link| &*link.name).collect();
            open.push(format!("links: expected={expected} {names:?}"));
        }
        if !open.is_empty() {
            return open;
        }
        // The list of all processes is long, so it is looked at last.
        let holds = self.site.holdings();
        if self.held.is_some_and(|held| held != holds) {
            open.push(format!("held before: {:?}, now: {holds:?}", self.held));
        }
        open
    }

    /// The end of the bridge, and what it left.
    fn end(mut self, reader: JoinHandle<()>, mut report: impl FnMut(&str)) {
        let status = self.site.status();
        report(&self.judge.summary(&status));
        for publisher in self.publishers {
            let closed = publisher.channel.close();
            closed.unwrap_or_else(|error| panic!("publisher {}: {error}", publisher.id));
        }
        let log = self.site.stop();
        for line in log.lines() {
            let broken = line.contains("broke a rule") || line.contains("broke the rules");
            let lost = line.contains("lost_bytes") || line.contains("panicked");
            let expected = line.contains("hostile-") && !lost;
            assert!(expected || !(broken || lost), "{line}");
        }
        reader.join().expect("the judge reads to the end");
    }
}
