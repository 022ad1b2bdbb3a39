//! Commands to the data plane, from any thread.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc;

use mycelium_contracts::Delivery;
use shm_transport::channel::LinkEnds;
use shm_transport::error::Corrupt;
use shm_transport::ring::Fencing;
use shm_transport::wakeup::{Doorbell, WaitStrategy};
use tokio::sync::oneshot;

use super::{PlaneView, Snapshot};
use crate::router::{DeliveryTerms, Granted, LinkCounters, Progress, Refused, Wish};
use crate::routes::LinkId;

/// What the control plane asks of the data plane. Those with `done` are answered once they have taken effect; an answer
/// that nobody waits for any more is dropped.
pub(super) enum Command {
    Add {
        link: LinkId,
        ends: Box<LinkEnds>,
        terms: DeliveryTerms,
        subscribe: Vec<u16>,
    },
    Subscribe {
        link: LinkId,
        topic_id: u16,
        /// What happens to a frame without room; `None` leaves it to the terms of the link.
        delivery: Option<Delivery>,
    },
    Ask {
        link: LinkId,
        topic_id: u16,
        wish: Wish,
        done: oneshot::Sender<Granted>,
    },
    Unsubscribe {
        link: LinkId,
        topic_id: u16,
        done: oneshot::Sender<bool>,
    },
    SetTerms {
        link: LinkId,
        terms: DeliveryTerms,
        unsubscribe: Vec<u16>,
        subscribe: Vec<u16>,
    },
    SetDelivery {
        topics: Vec<(u16, Delivery)>,
    },
    SetWait {
        wait: WaitStrategy,
    },
    Silence {
        link: LinkId,
        done: oneshot::Sender<()>,
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
    Progress {
        link: LinkId,
        done: oneshot::Sender<Option<Result<Progress, Corrupt>>>,
    },
    Recall {
        link: LinkId,
        done: oneshot::Sender<Result<(), Corrupt>>,
    },
    SetAside {
        link: LinkId,
        number: u64,
        done: oneshot::Sender<Result<bool, Corrupt>>,
    },
    Waits {
        done: oneshot::Sender<Vec<(LinkId, Vec<LinkId>)>>,
    },
    WakeAll,
    CheckLeft {
        link: LinkId,
    },
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
    View {
        done: oneshot::Sender<PlaneView>,
    },
    Stop,
}

/// The data plane has stopped, so a command has no effect any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data plane has stopped; the bridge is shutting down")]
pub struct Stopped;

/// Sends commands to the data plane, from any thread.
#[derive(Debug, Clone)]
pub struct DataPlaneHandle {
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) doorbell: Arc<Doorbell>,
    pub(super) ended: Arc<Doorbell>,
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
        terms: DeliveryTerms,
        subscribe: Vec<u16>,
    ) -> Result<(), Stopped> {
        self.send(Command::Add {
            link,
            ends: Box::new(ends),
            terms,
            subscribe,
        })
    }

    /// Puts fresh ends in the place of a link that broke its old ones.
    pub(crate) fn replace(
        &self,
        link: LinkId,
        ends: LinkEnds,
        terms: DeliveryTerms,
        subscribe: Vec<u16>,
    ) -> Result<(), Stopped> {
        let (done, _answer) = oneshot::channel();
        self.send(Command::Remove { link, done })?;
        self.add(link, ends, terms, subscribe)
    }

    /// Subscribes a link as its peer wants it, unless there is a reason against it.
    pub(crate) async fn subscribe(
        &self,
        link: LinkId,
        topic_id: u16,
        wish: Wish,
    ) -> Result<Granted, Stopped> {
        self.ask(|done| Command::Ask {
            link,
            topic_id,
            wish,
            done,
        })
        .await
    }

    /// Subscribes a link of this process, with a policy of its own if one is given. Does not wait for the effect.
    pub(crate) fn subscribe_soon(
        &self,
        link: LinkId,
        topic_id: u16,
        delivery: Option<Delivery>,
    ) -> Result<(), Stopped> {
        self.send(Command::Subscribe {
            link,
            topic_id,
            delivery,
        })
    }

    /// How far the peer of a link has acknowledged; `None` without such a link.
    pub(crate) async fn progress(
        &self,
        link: LinkId,
    ) -> Result<Option<Result<Progress, Corrupt>>, Stopped> {
        self.ask(|done| Command::Progress { link, done }).await
    }

    /// Gives what a dead peer had not acknowledged to the next one frame after the other. Only while the link has no peer.
    pub(crate) async fn recall(&self, link: LinkId) -> Result<Result<(), Corrupt>, Stopped> {
        self.ask(|done| Command::Recall { link, done }).await
    }

    /// Drops the frame with this number, which a dead peer had in hand; says whether it was still there. Only while the link
    /// has no peer.
    pub(crate) async fn set_aside(
        &self,
        link: LinkId,
        number: u64,
    ) -> Result<Result<bool, Corrupt>, Stopped> {
        self.ask(|done| Command::SetAside { link, number, done })
            .await
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

    /// Gives a link other terms: the first topics are given up, the second ones subscribed. Of those that are in both only the
    /// policy or the group is another.
    pub(crate) fn set_terms(
        &self,
        link: LinkId,
        terms: DeliveryTerms,
        [unsubscribe, subscribe]: [Vec<u16>; 2],
    ) -> Result<(), Stopped> {
        self.send(Command::SetTerms {
            link,
            terms,
            unsubscribe,
            subscribe,
        })
    }

    /// Gives topics another policy for the subscriptions that name none.
    pub(crate) fn set_delivery(&self, topics: Vec<(u16, Delivery)>) -> Result<(), Stopped> {
        self.send(Command::SetDelivery { topics })
    }

    /// Changes how the data plane waits.
    pub(crate) fn set_wait(&self, wait: WaitStrategy) -> Result<(), Stopped> {
        self.send(Command::SetWait { wait })
    }

    /// Stops delivering to a link, and waits until everything that waited for it is in its ring.
    pub(crate) async fn silence(&self, link: LinkId) -> Result<(), Stopped> {
        self.ask(|done| Command::Silence { link, done }).await
    }

    /// As `silence`, without waiting for the effect.
    pub(crate) fn silence_soon(&self, link: LinkId) {
        let (done, _answer) = oneshot::channel();
        // A data plane that has stopped delivers nothing any more.
        let _ = self.send(Command::Silence { link, done });
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

    /// Which links wait for room at which.
    pub(crate) async fn waits(&self) -> Result<Vec<(LinkId, Vec<LinkId>)>, Stopped> {
        self.ask(|done| Command::Waits { done }).await
    }

    /// Looks after every ring and wakes who sleeps for something that is there: a peer may have died between a commit
    /// and the wakeup that it owed.
    pub(crate) fn wake_all(&self) -> Result<(), Stopped> {
        self.send(Command::WakeAll)
    }

    /// Looks at what a dead peer has left in its rings, before the next gets them; a violation comes as an event. Only for
    /// rings in shared memory: others nobody but the bridge writes to.
    pub(crate) fn check_left(&self, link: LinkId) -> Result<(), Stopped> {
        self.send(Command::CheckLeft { link })
    }

    /// Stops delivering to a link, delivers what it published by now, and then drops it.
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

    /// Waits until the data plane has gone through a round.
    pub(crate) async fn round(&self) -> Result<(), Stopped> {
        self.ask(|done| Command::Counters { done }).await.map(drop)
    }

    /// What was counted so far, once the data plane gets to it. For threads without a runtime.
    ///
    /// # Errors
    ///
    /// [`Stopped`].
    pub fn snapshot(&self) -> Result<Snapshot, Stopped> {
        self.ask_blocking(|done| Command::Counters { done })
    }

    /// What every link looks like, once the data plane gets to it.
    pub(crate) async fn view(&self) -> Result<PlaneView, Stopped> {
        self.ask(|done| Command::View { done }).await
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
