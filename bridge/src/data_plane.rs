//! The data plane: a router, the commands that reach it, and how it waits.
//!
//! [`DataPlane::run`] drives it on a thread of its own. A host that embeds the bridge may instead call
//! [`DataPlane::turn`] on the thread of its own actor and save a hop between threads.

mod handle;

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use shm_transport::layout::FENCED_PARK_MS;
use shm_transport::wakeup::{self, Doorbell, SpinBudget, WaitStrategy, heavy_fence};
use tokio::sync::{mpsc as tokio_mpsc, oneshot};

use crate::router::{Granted, LinkCounters, LinkGap, LinkView, Rounds, Router, RouterEvent};
use crate::routes::{LinkId, Topic};
use handle::Command;

pub use handle::{DataPlaneHandle, Stopped};

/// The epoll key of the doorbell that announces commands; links use their slot.
const COMMAND_KEY: u64 = u64::MAX;

/// Longest spin while a subscriber is full: it makes room once per eighth of its ring, which is long, and it may need
/// this very core for it. Long enough to take in a burst of answers without a wakeup for each.
const STALLED_SPIN: Duration = Duration::from_micros(10);

/// The longest spin of the bridge and its peers where the configuration names none, in microseconds. A message through a
/// bridge keeps three sides busy, so with two processors spinning only keeps the third from running.
pub(crate) fn default_spin_us() -> u32 {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        1 | 2 => 0,
        _ => wakeup::default_spin_us(),
    }
}

/// Somebody who waits until what was published is delivered.
struct Settling {
    /// How far every link had published.
    published: Vec<(LinkId, u64)>,
    /// How much had been staged by then, once all of that is delivered.
    staged: Option<Vec<(LinkId, u64)>>,
    done: oneshot::Sender<()>,
}

/// What the data plane counted.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Every link, in no particular order.
    pub links: Vec<(LinkId, LinkCounters)>,
    /// What links miss, by topic; nothing for those that miss nothing.
    pub gaps: Vec<LinkGap>,
    /// Times that the data plane slept.
    pub parks: u64,
    /// Sleeps that a doorbell ended.
    pub wakeups_in: u64,
}

/// What the data plane shows of itself at one moment.
#[derive(Debug, Clone)]
pub(crate) struct PlaneView {
    pub(crate) links: Vec<LinkView>,
    pub(crate) rounds: Rounds,
    /// Since it was made.
    pub(crate) running_for: Duration,
    /// How much of that it slept.
    pub(crate) parked_for: Duration,
    pub(crate) parks: u64,
    pub(crate) wakeups_in: u64,
}

/// A router with its commands and its way of waiting. Owned by the thread that drives it.
pub struct DataPlane {
    router: Router,
    commands: mpsc::Receiver<Command>,
    epoll: Epoll,
    spin: SpinBudget,
    /// How to wait from the next turn on, if that has changed.
    next_wait: Option<WaitStrategy>,
    /// Links that go once what they had published up to a position is delivered: a peer that has left its socket may still
    /// write to its ring.
    draining: Vec<(LinkId, u64, oneshot::Sender<LinkCounters>)>,
    /// Who waits until nothing waits for a link any more.
    silencing: Vec<(LinkId, oneshot::Sender<()>)>,
    settling: Vec<Settling>,
    /// When some peer is next to be told what it misses.
    gaps_due: Option<Instant>,
    events: tokio_mpsc::UnboundedSender<RouterEvent>,
    stopped: bool,
    /// Rung at the end and never drained.
    ended: Arc<Doorbell>,
    parks: u64,
    wakeups_in: u64,
    made: Instant,
    parked_for: Duration,
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        // An eventfd of this process takes one notification.
        let _ = self.ended.notify();
    }
}

impl DataPlane {
    /// A data plane for the topics of the contracts. Events for the control plane go to `events`.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptors left.
    pub(crate) fn new(
        topics: Vec<Topic>,
        wait: WaitStrategy,
        events: tokio_mpsc::UnboundedSender<RouterEvent>,
    ) -> io::Result<(Self, DataPlaneHandle)> {
        let (sender, commands) = mpsc::channel();
        let doorbell = Arc::new(Doorbell::new()?);
        let ended = Arc::new(Doorbell::new()?);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*doorbell, edge_triggered(COMMAND_KEY))?;
        let plane = Self {
            router: Router::new(topics),
            commands,
            epoll,
            spin: SpinBudget::new(wait),
            next_wait: None,
            draining: Vec::new(),
            silencing: Vec::new(),
            settling: Vec::new(),
            gaps_due: None,
            events,
            stopped: false,
            ended: Arc::clone(&ended),
            parks: 0,
            wakeups_in: 0,
            made: Instant::now(),
            parked_for: Duration::ZERO,
        };
        Ok((
            plane,
            DataPlaneHandle {
                commands: sender,
                doorbell,
                ended,
            },
        ))
    }

    /// Moves frames until it is told to stop.
    pub fn run(mut self) {
        while !self.stopped {
            self.turn(None);
        }
    }

    /// Carries out commands and moves what is there; returns the number of frames that were taken from publishers.
    /// Never sleeps.
    pub fn poll(&mut self) -> usize {
        let moved = self.router.poll();
        self.take_commands();
        moved
    }

    /// As [`DataPlane::poll`], but waits until there was something to do: at most `timeout`, `None` for ever. Returns
    /// 0 after a timeout, a command, or a wakeup that turned out to be for nothing.
    pub fn turn(&mut self, timeout: Option<Duration>) -> usize {
        if let Some(wait) = self.next_wait.take() {
            self.spin = SpinBudget::new(wait);
        }
        let moved = self.poll();
        if moved > 0 || self.stopped {
            return moved;
        }
        let now = Instant::now();
        let deadline = timeout.and_then(|timeout| now.checked_add(timeout));
        let mut spin_until = deadline;
        if self.router.is_stalled() {
            let bound = now + STALLED_SPIN;
            spin_until = Some(deadline.map_or(bound, |at| at.min(bound)));
        }
        let mut spin = self.spin.clone();
        let mut moved = 0;
        let found = spin.spin(spin_until, || {
            moved = self.router.poll();
            moved > 0 || self.take_commands()
        });
        if !found && deadline.is_none_or(|at| Instant::now() < at) {
            let started = Instant::now();
            self.park(deadline);
            let parked = started.elapsed();
            self.parked_for += parked;
            spin.parked_for(parked);
            moved = self.poll();
        }
        self.spin = spin;
        moved
    }

    /// Sleeps until a doorbell rings, unless there is something to do already.
    fn park(&mut self, deadline: Option<Instant>) {
        self.router.arm();
        // SYNC: heavy fence (here) ↔ light fence (wakeup_due of every peer's producer and consumer). One fence serves
        // all rings.
        heavy_fence();
        if self.router.has_work() {
            self.router.disarm_room();
            return;
        }
        let mut until = deadline;
        if let Some(due) = self.gaps_due {
            until = Some(until.map_or(due, |at| at.min(due)));
        }
        if self.router.has_fenced_link() {
            let bound = Instant::now() + Duration::from_millis(FENCED_PARK_MS);
            until = Some(until.map_or(bound, |at| at.min(bound)));
        }
        self.parks += 1;
        let mut rung = [EpollEvent::empty(); 64];
        match self.epoll.wait(&mut rung, epoll_timeout(until)) {
            Ok(count) => {
                // Edge-triggered: a doorbell reports each ring once and needs no read, so a peer that plays with the
                // descriptor's flags cannot make the router block in one.
                let links = rung[..count]
                    .iter()
                    .filter(|event| event.data() != COMMAND_KEY)
                    .count();
                self.wakeups_in += links as u64;
            }
            Err(Errno::EINTR) => {}
            Err(errno) => tracing::error!(%errno, "waiting for doorbells failed"),
        }
        self.router.disarm_room();
    }

    /// Carries out what was asked; says whether there was anything.
    fn take_commands(&mut self) -> bool {
        let mut any = false;
        while let Ok(command) = self.commands.try_recv() {
            any = true;
            self.carry_out(command);
        }
        if !self.draining.is_empty() {
            self.finish_drained();
        }
        if !self.silencing.is_empty() {
            self.finish_silenced();
        }
        if !self.settling.is_empty() {
            self.finish_settled();
        }
        if self.router.has_gaps() {
            self.tell_gaps();
        } else {
            self.gaps_due = None;
        }
        for event in self.router.take_events() {
            // Without a control plane there is nobody left to act on it.
            let _ = self.events.send(event);
        }
        any
    }

    /// Tells peers what they miss, if it is time.
    #[cold]
    fn tell_gaps(&mut self) {
        let now = Instant::now();
        if self.gaps_due.is_none_or(|due| due <= now) {
            self.gaps_due = self.router.tell_gaps(now);
        }
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Add {
                link,
                ends,
                terms,
                subscribe,
            } => {
                let slot = self.router.add(link, *ends, terms);
                for topic_id in subscribe {
                    self.router.subscribe(slot, topic_id);
                }
                if let Some(doorbell) = self.router.doorbell(slot)
                    && let Err(errno) = self.epoll.add(doorbell, edge_triggered(slot as u64))
                {
                    tracing::error!(%link, %errno, "doorbell of a link cannot be watched; raise the limit of open files");
                }
            }
            Command::Subscribe {
                link,
                topic_id,
                delivery,
            } => {
                let router = &mut self.router;
                if let Some(slot) = router.slot_of(link) {
                    match delivery {
                        None => router.subscribe(slot, topic_id),
                        Some(_) => router.subscribe_as(slot, topic_id, delivery, None),
                    };
                }
            }
            Command::Ask {
                link,
                topic_id,
                wish,
                done,
            } => {
                let slot = self.router.slot_of(link);
                let granted = slot.map_or(Granted::UnknownTopic, |slot| {
                    self.router.ask(slot, topic_id, wish)
                });
                answer(done, granted);
            }
            Command::Unsubscribe {
                link,
                topic_id,
                done,
            } => {
                let slot = self.router.slot_of(link);
                answer(
                    done,
                    slot.is_some_and(|slot| self.router.take_back(slot, topic_id)),
                );
            }
            Command::SetTerms {
                link,
                terms,
                unsubscribe,
                subscribe,
            } => {
                if let Some(slot) = self.router.slot_of(link) {
                    self.router
                        .change_terms(slot, terms, &unsubscribe, &subscribe);
                }
            }
            Command::SetDelivery { topics } => {
                for (topic_id, delivery) in topics {
                    self.router.set_default_delivery(topic_id, delivery);
                }
            }
            Command::SetWait { wait } => self.next_wait = Some(wait),
            Command::Silence { link, done } => {
                if let Some(slot) = self.router.slot_of(link) {
                    self.router.stop_delivering(slot);
                }
                self.silencing.push((link, done));
            }
            Command::SetFencing {
                link,
                fencing,
                done,
            } => {
                if let Some(slot) = self.router.slot_of(link) {
                    self.router.set_fencing(slot, fencing);
                }
                answer(done, ());
            }
            Command::Refuse {
                link,
                since,
                refused,
                done,
            } => {
                if let Some(slot) = self.router.slot_of(link) {
                    self.router.refuse(slot, since, refused);
                }
                answer(done, ());
            }
            Command::Progress { link, done } => {
                let slot = self.router.slot_of(link);
                answer(done, slot.and_then(|slot| self.router.progress(slot)));
            }
            Command::Recall { link, done } => {
                let slot = self.router.slot_of(link);
                answer(done, slot.map_or(Ok(()), |slot| self.router.recall(slot)));
            }
            Command::SetAside { link, number, done } => {
                let slot = self.router.slot_of(link);
                let outcome = slot.map_or(Ok(false), |slot| self.router.set_aside(slot, number));
                answer(done, outcome);
            }
            Command::Waits { done } => answer(done, self.router.waits()),
            Command::WakeAll => self.router.wake_all(),
            Command::CheckLeft { link } => {
                if let Some(slot) = self.router.slot_of(link) {
                    self.router.check_left(slot);
                }
            }
            Command::Settle { done } => {
                let published = self.router.published();
                self.settling.push(Settling {
                    published,
                    staged: None,
                    done,
                });
            }
            Command::Drain { link, done } => {
                if let Some(slot) = self.router.slot_of(link) {
                    self.router.stop_delivering(slot);
                    let end = self.router.end_of(slot);
                    self.draining.push((link, end, done));
                }
            }
            Command::Remove { link, done } => answer(done, self.remove(link)),
            Command::Counters { done } => answer(done, self.snapshot()),
            Command::View { done } => {
                let view = PlaneView {
                    links: self.router.view(),
                    rounds: self.router.rounds(),
                    running_for: self.made.elapsed(),
                    parked_for: self.parked_for,
                    parks: self.parks,
                    wakeups_in: self.wakeups_in,
                };
                answer(done, view);
            }
            Command::Stop => self.stopped = true,
        }
    }

    fn remove(&mut self, link: LinkId) -> LinkCounters {
        let Some(slot) = self.router.slot_of(link) else {
            return LinkCounters::default();
        };
        if let Some(doorbell) = self.router.doorbell(slot)
            && let Err(errno) = self.epoll.delete(doorbell)
        {
            tracing::debug!(%link, %errno, "doorbell of a link was not watched");
        }
        self.router
            .remove(slot)
            .map_or_else(LinkCounters::default, |(_, counters)| counters)
    }

    fn finish_drained(&mut self) {
        for (link, end, done) in std::mem::take(&mut self.draining) {
            let is_drained = self
                .router
                .slot_of(link)
                .is_none_or(|slot| self.router.is_drained(slot, end));
            if is_drained {
                answer(done, self.remove(link));
            } else {
                self.draining.push((link, end, done));
            }
        }
    }

    fn finish_silenced(&mut self) {
        for (link, done) in std::mem::take(&mut self.silencing) {
            let slot = self.router.slot_of(link);
            if slot.is_none_or(|slot| self.router.is_passed(slot)) {
                answer(done, ());
            } else {
                self.silencing.push((link, done));
            }
        }
    }

    fn finish_settled(&mut self) {
        for mut waiting in std::mem::take(&mut self.settling) {
            if waiting.staged.is_none() && self.router.has_delivered(&waiting.published) {
                waiting.staged = Some(self.router.staged());
            }
            match &waiting.staged {
                Some(staged) if self.router.has_passed(staged) => answer(waiting.done, ()),
                _ => self.settling.push(waiting),
            }
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            links: self.router.all_counters(),
            gaps: self.router.gaps(),
            parks: self.parks,
            wakeups_in: self.wakeups_in,
        }
    }
}

/// Sends an answer; a control plane that has gone away needs none.
fn answer<T>(done: oneshot::Sender<T>, value: T) {
    let _ = done.send(value);
}

fn edge_triggered(key: u64) -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, key)
}

/// The time left, rounded up to milliseconds.
fn epoll_timeout(deadline: Option<Instant>) -> EpollTimeout {
    let Some(deadline) = deadline else {
        return EpollTimeout::NONE;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let millis = left.as_nanos().div_ceil(1_000_000);
    EpollTimeout::try_from(millis.min(60_000) as i32).unwrap_or(EpollTimeout::ZERO)
}
