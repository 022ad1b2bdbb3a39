//! The data plane: a router, the commands that reach it, and how it waits.
//!
//! [`DataPlane::run`] drives it on a thread of its own. A host that embeds the bridge may instead call
//! [`DataPlane::turn`] on the thread of its own actor and save a hop between threads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use shm_transport::channel::LinkEnds;
use shm_transport::layout::FENCED_PARK_MS;
use shm_transport::ring::Fencing;
use shm_transport::wakeup::{Doorbell, SpinBudget, WaitStrategy, heavy_fence};
use tokio::sync::{mpsc as tokio_mpsc, oneshot};

use crate::router::{LinkCounters, Refused, Router, RouterEvent};
use crate::routes::{LinkId, Topic};

/// The epoll key of the doorbell that announces commands; links use their slot.
const COMMAND_KEY: u64 = u64::MAX;

/// Longest spin while a subscriber is full: it makes room once per eighth of its ring, which is long, and it may need
/// this very core for it. Long enough to take in a burst of answers without a wakeup for each.
const STALLED_SPIN: Duration = Duration::from_micros(10);

/// What the control plane asks of the data plane. Those with `done` are answered once they have taken effect; an answer
/// that nobody waits for any more is dropped.
enum Command {
    Add {
        link: LinkId,
        ends: Box<LinkEnds>,
        subscribe: Vec<u16>,
    },
    Subscribe {
        link: LinkId,
        topic_id: u16,
        done: oneshot::Sender<bool>,
    },
    Unsubscribe {
        link: LinkId,
        topic_id: u16,
        done: oneshot::Sender<bool>,
    },
    SetFencing {
        link: LinkId,
        fencing: Fencing,
        done: oneshot::Sender<()>,
    },
    Refuse {
        link: LinkId,
        since: u64,
        refused: Refused,
        done: oneshot::Sender<()>,
    },
    WakeAll,
    Settle {
        done: oneshot::Sender<()>,
    },
    Drain {
        link: LinkId,
        done: oneshot::Sender<LinkCounters>,
    },
    Remove {
        link: LinkId,
        done: oneshot::Sender<LinkCounters>,
    },
    Counters {
        done: oneshot::Sender<Snapshot>,
    },
    Stop,
}

/// Somebody who waits until what was published is delivered.
struct Settling {
    /// How far every link had published.
    published: Vec<(LinkId, u64)>,
    done: oneshot::Sender<()>,
}

/// What the data plane counted.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Every link, in no particular order.
    pub links: Vec<(LinkId, LinkCounters)>,
    /// Times that the data plane slept.
    pub parks: u64,
    /// Sleeps that a doorbell ended.
    pub wakeups_in: u64,
}

/// The data plane has stopped, so a command has no effect any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data plane has stopped; the bridge is shutting down")]
pub struct Stopped;

/// Sends commands to the data plane, from any thread.
#[derive(Debug, Clone)]
pub struct DataPlaneHandle {
    commands: mpsc::Sender<Command>,
    doorbell: Arc<Doorbell>,
    ended: Arc<Doorbell>,
}

impl DataPlaneHandle {
    fn send(&self, command: Command) -> Result<(), Stopped> {
        self.commands.send(command).map_err(|_| Stopped)?;
        self.doorbell.notify().map_err(|_| Stopped)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (done, answer) = oneshot::channel();
        self.send(command(done))?;
        answer.await.map_err(|_| Stopped)
    }

    fn ask_blocking<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Stopped> {
        let (done, answer) = oneshot::channel();
        self.send(command(done))?;
        answer.blocking_recv().map_err(|_| Stopped)
    }

    /// Hands the bridge's side of a link over; it is served from then on, even if nobody waits for the answer.
    pub(crate) fn add(
        &self,
        link: LinkId,
        ends: LinkEnds,
        subscribe: Vec<u16>,
    ) -> Result<(), Stopped> {
        self.send(Command::Add {
            link,
            ends: Box::new(ends),
            subscribe,
        })
    }

    /// Puts fresh ends in the place of a link that broke its old ones.
    pub(crate) fn replace(
        &self,
        link: LinkId,
        ends: LinkEnds,
        subscribe: Vec<u16>,
    ) -> Result<(), Stopped> {
        let (done, _answer) = oneshot::channel();
        self.send(Command::Remove { link, done })?;
        self.add(link, ends, subscribe)
    }

    /// Subscribes a link; says whether the topic exists.
    pub(crate) async fn subscribe(&self, link: LinkId, topic_id: u16) -> Result<bool, Stopped> {
        self.ask(|done| Command::Subscribe {
            link,
            topic_id,
            done,
        })
        .await
    }

    /// As `subscribe`, without waiting for the effect.
    pub(crate) fn subscribe_soon(&self, link: LinkId, topic_id: u16) -> Result<(), Stopped> {
        let (done, _answer) = oneshot::channel();
        self.send(Command::Subscribe {
            link,
            topic_id,
            done,
        })
    }

    /// Unsubscribes a link; says whether the topic exists.
    pub(crate) async fn unsubscribe(&self, link: LinkId, topic_id: u16) -> Result<bool, Stopped> {
        self.ask(|done| Command::Unsubscribe {
            link,
            topic_id,
            done,
        })
        .await
    }

    /// Changes how a link orders its commits. To be done before the peer starts on the rings.
    pub(crate) async fn set_fencing(&self, link: LinkId, fencing: Fencing) -> Result<(), Stopped> {
        self.ask(|done| Command::SetFencing {
            link,
            fencing,
            done,
        })
        .await
    }

    /// Says what the next peer of a link must not publish, from the position `since` of its ring on. To be done before the
    /// peer starts on the rings, by a thread without a runtime.
    pub(crate) fn refuse_blocking(
        &self,
        link: LinkId,
        since: u64,
        refused: Refused,
    ) -> Result<(), Stopped> {
        self.ask_blocking(|done| Command::Refuse {
            link,
            since,
            refused,
            done,
        })
    }

    /// Looks after every ring and wakes who sleeps for something that is there: a peer may have died between a commit
    /// and the wakeup that it owed.
    pub(crate) fn wake_all(&self) -> Result<(), Stopped> {
        self.send(Command::WakeAll)
    }

    /// Stops delivering to a link, delivers what it published, and then drops it.
    pub(crate) async fn drain(&self, link: LinkId) -> Result<LinkCounters, Stopped> {
        self.ask(|done| Command::Drain { link, done }).await
    }

    /// Waits until everything that is published by now has been delivered.
    pub(crate) async fn settle(&self) -> Result<(), Stopped> {
        self.ask(|done| Command::Settle { done }).await
    }

    /// As `drain`, without waiting for the effect.
    pub(crate) fn drain_soon(&self, link: LinkId) {
        let (done, _answer) = oneshot::channel();
        // A data plane that has stopped has dropped the link as well.
        let _ = self.send(Command::Drain { link, done });
    }

    /// What was counted so far, once the data plane gets to it. For threads without a runtime.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub fn snapshot(&self) -> Result<Snapshot, Stopped> {
        self.ask_blocking(|done| Command::Counters { done })
    }

    /// Readable once the data plane is gone, so that nobody in this process waits for it for ever.
    pub(crate) fn ended(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }

    /// Ends [`DataPlane::run`].
    pub(crate) fn stop(&self) {
        // A data plane that has stopped already is just what was wanted.
        let _ = self.send(Command::Stop);
    }
}

/// A router with its commands and its way of waiting. Owned by the thread that drives it.
pub struct DataPlane {
    router: Router,
    commands: mpsc::Receiver<Command>,
    epoll: Epoll,
    spin: SpinBudget,
    draining: Vec<(LinkId, oneshot::Sender<LinkCounters>)>,
    settling: Vec<Settling>,
    events: tokio_mpsc::UnboundedSender<RouterEvent>,
    stopped: bool,
    /// Rung at the end and never drained.
    ended: Arc<Doorbell>,
    parks: u64,
    wakeups_in: u64,
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
            draining: Vec::new(),
            settling: Vec::new(),
            events,
            stopped: false,
            ended: Arc::clone(&ended),
            parks: 0,
            wakeups_in: 0,
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
        let moved = self.poll();
        if moved > 0 || self.stopped {
            return moved;
        }
        let now = Instant::now();
        let deadline = timeout.map(|timeout| now + timeout);
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
            spin.parked_for(started.elapsed());
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
        if !self.settling.is_empty() {
            self.finish_settled();
        }
        for event in self.router.take_events() {
            // Without a control plane there is nobody left to act on it.
            let _ = self.events.send(event);
        }
        any
    }

    fn carry_out(&mut self, command: Command) {
        match command {
            Command::Add {
                link,
                ends,
                subscribe,
            } => {
                let slot = self.router.add(link, *ends);
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
                done,
            } => {
                let slot = self.router.slot_of(link);
                answer(
                    done,
                    slot.is_some_and(|slot| self.router.subscribe(slot, topic_id)),
                );
            }
            Command::Unsubscribe {
                link,
                topic_id,
                done,
            } => {
                let slot = self.router.slot_of(link);
                answer(
                    done,
                    slot.is_some_and(|slot| self.router.unsubscribe(slot, topic_id)),
                );
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
            Command::WakeAll => self.router.wake_all(),
            Command::Settle { done } => {
                let published = self.router.published();
                self.settling.push(Settling { published, done });
            }
            Command::Drain { link, done } => {
                if let Some(slot) = self.router.slot_of(link) {
                    self.router.stop_delivering(slot);
                    self.draining.push((link, done));
                }
            }
            Command::Remove { link, done } => answer(done, self.remove(link)),
            Command::Counters { done } => answer(done, self.snapshot()),
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
        for (link, done) in std::mem::take(&mut self.draining) {
            let is_drained = self
                .router
                .slot_of(link)
                .is_none_or(|slot| self.router.is_drained(slot));
            if is_drained {
                answer(done, self.remove(link));
            } else {
                self.draining.push((link, done));
            }
        }
    }

    fn finish_settled(&mut self) {
        for waiting in std::mem::take(&mut self.settling) {
            if self.router.has_delivered(&waiting.published) {
                answer(waiting.done, ());
            } else {
                self.settling.push(waiting);
            }
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            links: self.router.all_counters(),
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
