//! One side of a duplex link: the reading end of one ring, the writing end of the other, and two doorbells.

use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use mycelium_messages::Message;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{AttachError, Corrupt, ReserveError};
use crate::frame::FrameHeader;
use crate::ring::{Consumer, Fencing, Frame, Producer, Reservation, RingMemory};
use crate::socket::poll_timeout;
use crate::wakeup::{Doorbell, SpinBudget, heavy_fence, membarrier_is_available};

/// Time between two looks of a side that never sleeps at the descriptor that may interrupt it.
const BUSY_LOOK: Duration = Duration::from_millis(1);

/// One side of a duplex link over two rings. The bridge's router, a peer in another process and an actor in the same
/// process all hold one.
///
/// Publishing and reading make no system call unless the other side sleeps.
///
/// It needs no bridge: two processes that share a [`Segment`](crate::segment::Segment) and two doorbells hold one each.
/// `examples/two_processes.rs` shows how the descriptors get there; here both sides are in one process.
///
/// ```
/// use shm_transport::channel::LinkEnds;
/// use shm_transport::frame::FrameHeader;
/// use shm_transport::layout::{RING_TO_BRIDGE, RING_TO_PEER};
/// use shm_transport::ring::Fencing;
/// use shm_transport::segment::{Segment, SegmentOptions};
/// use shm_transport::wakeup::{Doorbell, SpinBudget, WaitStrategy};
///
/// let segment = Segment::create(&SegmentOptions::new(4096))?;
/// let (bell, peer_bell) = (Doorbell::new()?, Doorbell::new()?);
/// let (to_peer, from_peer) = (segment.ring(RING_TO_PEER), segment.ring(RING_TO_BRIDGE));
/// let mut ours = LinkEnds::attach(
///     from_peer.clone(), to_peer.clone(), bell.try_clone()?, peer_bell.try_clone()?, Fencing::Fenced)?;
/// let mut theirs = LinkEnds::attach(to_peer, from_peer, peer_bell, bell, Fencing::Fenced)?;
///
/// let peer = std::thread::spawn(move || {
///     let mut spin = SpinBudget::new(WaitStrategy::default());
///     let question = theirs.read(&mut spin, None).unwrap().expect("no time limit").to_vec();
///     theirs.advance();
///     let mut answer = theirs.reserve(&mut spin, FrameHeader::new(1001, 5), None).unwrap();
///     answer.copy_from_slice(&question.repeat(5));
///     answer.commit(); // wakes the other side if it sleeps
/// });
/// let mut spin = SpinBudget::new(WaitStrategy::Park);
/// let mut question = ours.reserve(&mut spin, FrameHeader::new(1001, 1), None)?;
/// question.copy_from_slice(b"?");
/// question.commit();
/// assert_eq!(ours.read(&mut spin, None)?.expect("no time limit").to_vec(), b"?????");
/// # peer.join().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct LinkEnds {
    consumer: Consumer,
    pub(super) producer: Producer,
    own_doorbell: Doorbell,
    peer_doorbell: Doorbell,
    fencing: Fencing,
    wakeups_sent: u64,
    parks: u64,
}

/// What a sleeping side waits for.
#[derive(Debug, Clone, Copy)]
pub enum WaitFor {
    /// A frame to read.
    Frame,
    /// Room for a payload of this many bytes.
    Room {
        /// Bytes of the payload.
        payload_len: usize,
    },
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// What was waited for is there.
    Ready,
    /// The deadline has passed.
    TimedOut,
    /// The other descriptor became readable.
    Interrupted,
}

/// Why a call on [`LinkEnds`] failed.
#[derive(Debug, thiserror::Error)]
pub enum EndsError {
    /// The peer broke the rules of the ring.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// A system call failed.
    #[error("link failed: step={step}: {source}")]
    Io {
        /// `notify`, `drain` or `poll`.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Why [`LinkEnds::reserve`] gave no room.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// There was no room in time, or the frame was refused for itself.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    /// The wait failed.
    #[error(transparent)]
    Ends(#[from] EndsError),
}

impl LinkEnds {
    /// Attaches to both rings, and rings the peer's doorbell: a predecessor may have died after it had cleared the flag
    /// of a sleeping peer and before it rang itself, so the flags cannot tell whether a wakeup is owed.
    ///
    /// With [`Fencing::Asymmetric`] it also registers this process for `membarrier`: the fence of a peer that goes to sleep
    /// reaches registered processes only, and one that never sleeps itself has no other reason to register.
    ///
    /// # Errors
    ///
    /// [`AttachError`] if an end is taken, a ring was left in an impossible state, or the fencing is asymmetric and this
    /// process has no `membarrier`.
    pub fn attach(
        read: RingMemory,
        write: RingMemory,
        own_doorbell: Doorbell,
        peer_doorbell: Doorbell,
        fencing: Fencing,
    ) -> Result<Self, AttachError> {
        if fencing == Fencing::Asymmetric && !membarrier_is_available() {
            return Err(AttachError::NoMembarrier);
        }
        let mut consumer = Consumer::attach(read)?;
        let mut producer = Producer::attach(write)?;
        consumer.set_fencing(fencing);
        producer.set_fencing(fencing);
        // A doorbell that cannot be rung belongs to a peer that is gone; its hang-up tells.
        let _ = peer_doorbell.notify();
        Ok(Self {
            consumer,
            producer,
            own_doorbell,
            peer_doorbell,
            fencing,
            wakeups_sent: 0,
            parks: 0,
        })
    }

    /// How commits are ordered against parked flags.
    #[must_use]
    pub fn fencing(&self) -> Fencing {
        self.fencing
    }

    /// Doorbell notifications that this side made.
    #[must_use]
    pub fn wakeups_sent(&self) -> u64 {
        self.wakeups_sent
    }

    /// Times that this side slept.
    #[must_use]
    pub fn parks(&self) -> u64 {
        self.parks
    }

    /// Commits a frame and wakes the peer if it sleeps.
    ///
    /// # Errors
    ///
    /// As [`Producer::try_reserve`].
    #[inline]
    pub fn try_publish(&mut self, frame: &Frame<'_>) -> Result<(), ReserveError> {
        self.producer.try_forward(frame)?;
        if self.producer.wakeup_due() {
            self.notify();
        }
        Ok(())
    }

    /// Commits a message and wakes the peer if it sleeps. As its length is known at compile time, this is the quickest way
    /// to send one.
    ///
    /// # Errors
    ///
    /// As [`Producer::try_reserve`].
    #[inline]
    pub fn try_publish_message<M: Message>(&mut self, message: &M) -> Result<(), ReserveError> {
        self.producer.try_publish(message)?;
        if self.producer.wakeup_due() {
            self.notify();
        }
        Ok(())
    }

    /// The oldest frame that was not passed, if there is one.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] if its header breaks the rules.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<Frame<'_>>, Corrupt> {
        self.consumer.peek()
    }

    /// Passes the frame that was looked at last, and wakes the peer if it waits for the room.
    #[inline]
    pub fn advance(&mut self) {
        self.consumer.advance();
        self.flush_wakeups();
    }

    /// Acknowledges everything that was passed, and wakes the peer if it waits for the room.
    pub fn publish_head(&mut self) {
        self.consumer.publish_head();
        self.flush_wakeups();
    }

    /// Wakes the peer if a head store made room that it sleeps for.
    #[inline]
    fn flush_wakeups(&mut self) {
        if self.consumer.wakeup_due() {
            self.notify();
        }
    }

    #[cold]
    pub(super) fn notify(&mut self) {
        ring(&self.peer_doorbell, &mut self.wakeups_sent);
    }

    fn is_ready(&mut self, what: WaitFor) -> Result<bool, Corrupt> {
        match what {
            WaitFor::Frame => Ok(self.consumer.peek()?.is_some()),
            WaitFor::Room { payload_len } => self.producer.has_room(payload_len),
        }
    }

    /// Spins and then sleeps until there is what is waited for, the deadline has passed, or `interrupt` is readable
    /// (which is looked at only when going to sleep, and every millisecond by a side that never sleeps).
    ///
    /// # Errors
    ///
    /// [`EndsError`].
    pub fn wait(
        &mut self,
        spin: &mut SpinBudget,
        what: WaitFor,
        deadline: Option<Instant>,
        interrupt: Option<BorrowedFd<'_>>,
    ) -> Result<Waited, EndsError> {
        loop {
            // The clock is read only if this has to wait.
            if self.is_ready(what)? {
                return Ok(Waited::Ready);
            }
            let until = if spin.is_endless() {
                let look = Instant::now() + BUSY_LOOK;
                Some(deadline.map_or(look, |at| at.min(look)))
            } else {
                deadline
            };
            let mut outcome = Ok(false);
            let found = spin.spin(until, || {
                outcome = self.is_ready(what);
                !matches!(outcome, Ok(false))
            });
            if found {
                outcome?;
                return Ok(Waited::Ready);
            }
            // Finding the ring empty may have published the head.
            self.flush_wakeups();
            if deadline.is_some_and(|at| Instant::now() >= at) {
                return Ok(Waited::TimedOut);
            }
            if spin.is_endless() {
                if interrupt.is_some_and(is_readable) {
                    return Ok(Waited::Interrupted);
                }
                continue;
            }
            let started = Instant::now();
            if self.park(what, deadline, interrupt)? {
                return Ok(Waited::Interrupted);
            }
            spin.parked_for(started.elapsed());
        }
    }

    /// Sleeps until the doorbell rings, unless what is waited for is there already. Says whether `interrupt` is
    /// readable.
    fn park(
        &mut self,
        what: WaitFor,
        deadline: Option<Instant>,
        interrupt: Option<BorrowedFd<'_>>,
    ) -> Result<bool, EndsError> {
        let slept = match self.arm(what) {
            Ok(true) => Ok((false, false)),
            Ok(false) => self.sleep(deadline, interrupt),
            Err(corrupt) => Err(corrupt.into()),
        };
        self.disarm(what);
        let (rung, interrupted) = slept?;
        if rung {
            self.drain()?;
        }
        Ok(interrupted)
    }

    /// Asks the peer to ring for what is waited for, and looks again: true if it is there already.
    pub(super) fn arm(&mut self, what: WaitFor) -> Result<bool, Corrupt> {
        match what {
            WaitFor::Frame => self.consumer.arm(),
            WaitFor::Room { .. } => {
                // What was read is room that the peer may be sleeping for; two sides must not wait for each other.
                self.consumer.publish_head();
                self.producer.arm_room();
            }
        }
        self.flush_wakeups();
        // SYNC: heavy fence (here) ↔ light fence (Producer::wakeup_due, Consumer::wakeup_due of the peer).
        heavy_fence();
        self.is_ready(what)
    }

    /// Takes back that the peer is to ring.
    pub(super) fn disarm(&mut self, what: WaitFor) {
        match what {
            WaitFor::Frame => self.consumer.disarm(),
            WaitFor::Room { .. } => self.producer.disarm_room(),
        }
    }

    /// Spins within the budget until what is waited for is there; says whether it is. A side that never sleeps spins
    /// until `limit` only.
    #[cfg(feature = "tokio")]
    pub(super) fn spin(
        &mut self,
        spin: &mut SpinBudget,
        what: WaitFor,
        limit: Duration,
    ) -> Result<bool, Corrupt> {
        let until = spin.is_endless().then(|| Instant::now() + limit);
        let mut outcome = Ok(false);
        spin.spin(until, || {
            outcome = self.is_ready(what);
            !matches!(outcome, Ok(false))
        });
        outcome
    }

    #[cfg(feature = "tokio")]
    pub(super) fn own_doorbell(&self) -> &Doorbell {
        &self.own_doorbell
    }

    #[cfg(feature = "tokio")]
    pub(super) fn count_park(&mut self) {
        self.parks += 1;
    }

    /// As [`Doorbell::drain_all`].
    #[cfg(feature = "tokio")]
    pub(super) fn drain_all(&mut self) -> Result<bool, EndsError> {
        self.own_doorbell
            .drain_all()
            .map_err(|source| EndsError::Io {
                step: "drain",
                source,
            })
    }

    /// Takes back that the doorbell was rung.
    pub(super) fn drain(&mut self) -> Result<(), EndsError> {
        self.own_doorbell.drain().map_err(|source| EndsError::Io {
            step: "drain",
            source,
        })
    }

    /// Says whether the doorbell rang and whether `interrupt` is readable.
    fn sleep(
        &mut self,
        deadline: Option<Instant>,
        interrupt: Option<BorrowedFd<'_>>,
    ) -> Result<(bool, bool), EndsError> {
        self.parks += 1;
        let doorbell = PollFd::new(self.own_doorbell.as_fd(), PollFlags::POLLIN);
        let mut fds = [
            doorbell,
            PollFd::new(
                interrupt.unwrap_or(self.own_doorbell.as_fd()),
                PollFlags::POLLIN,
            ),
        ];
        match poll(&mut fds, poll_timeout(deadline)) {
            Ok(_) => {
                let is_set = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
                Ok((is_set(&fds[0]), interrupt.is_some() && is_set(&fds[1])))
            }
            Err(Errno::EINTR) => Ok((false, false)),
            Err(errno) => Err(EndsError::Io {
                step: "poll",
                source: errno.into(),
            }),
        }
    }

    /// Waits for the oldest frame that was not passed: at most `timeout`, `None` for ever. It stays in front until
    /// [`LinkEnds::advance`]. No system call if it is there.
    ///
    /// Nothing here tells that the peer has died; see [`LinkEnds::wait`] for a descriptor that does.
    ///
    /// # Errors
    ///
    /// [`EndsError`].
    pub fn read(
        &mut self,
        spin: &mut SpinBudget,
        timeout: Option<Duration>,
    ) -> Result<Option<Frame<'_>>, EndsError> {
        // The clock is read only if this has to wait.
        if self.consumer.peek()?.is_none() {
            let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            self.wait(spin, WaitFor::Frame, deadline, None)?;
        }
        Ok(self.peek()?)
    }

    /// Waits for room for a frame and lends it to be filled in place: at most `timeout`, `None` for ever. No system call
    /// if there is room.
    ///
    /// # Errors
    ///
    /// [`WaitError::Reserve`] with [`ReserveError::Full`] if there was no room in time, and at once for a frame that
    /// never fits; [`WaitError::Ends`].
    pub fn reserve(
        &mut self,
        spin: &mut SpinBudget,
        header: FrameHeader,
        timeout: Option<Duration>,
    ) -> Result<LinkReservation<'_>, WaitError> {
        let payload_len = header.payload_len as usize;
        let fits = payload_len <= self.producer.max_payload();
        if fits
            && !self
                .producer
                .has_room(payload_len)
                .map_err(EndsError::from)?
        {
            let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            self.wait(spin, WaitFor::Room { payload_len }, deadline, None)?;
        }
        Ok(LinkReservation {
            reservation: self.producer.try_reserve(header)?,
            doorbell: &self.peer_doorbell,
            wakeups_sent: &mut self.wakeups_sent,
        })
    }

    /// Takes the side apart, for a router that drives many of them.
    #[must_use]
    pub fn into_parts(self) -> (Consumer, Producer, Doorbell, Doorbell) {
        (
            self.consumer,
            self.producer,
            self.own_doorbell,
            self.peer_doorbell,
        )
    }
}

fn ring(doorbell: &Doorbell, wakeups_sent: &mut u64) {
    *wakeups_sent += 1;
    // Fails only on a descriptor that is no doorbell; then the peer sleeps until its next bounded wait or hangs up.
    if let Err(error) = doorbell.notify() {
        tracing::warn!(%error, "doorbell of the peer cannot be rung");
    }
}

/// Room in the writing ring of a [`LinkEnds`], to be filled in place. Dropping it gives the room back.
///
/// Everything that a [`Reservation`] can do, it does through dereferencing; only its commits also wake the peer.
///
/// ```
/// use std::io::Write;
/// use std::time::{Duration, Instant};
/// use shm_transport::channel::{EndsError, LinkEnds, LinkReservation, WaitError, WaitFor, Waited};
/// use shm_transport::error::ReserveError;
/// use shm_transport::frame::FrameHeader;
/// use shm_transport::ring::{Fencing, RingMemory};
/// use shm_transport::wakeup::{Doorbell, SpinBudget, WaitStrategy};
///
/// let (there, back) = (RingMemory::heap(4096)?, RingMemory::heap(4096)?);
/// let mut ends = LinkEnds::attach(back, there, Doorbell::new()?, Doorbell::new()?, Fencing::Fenced)?;
/// let mut spin = SpinBudget::new(WaitStrategy::Park);
/// let mut room: LinkReservation<'_> = ends.reserve(&mut spin, FrameHeader::new(1001, 64), None)?;
/// write!(room, "price={}", 42)?;
/// room.commit_written();
///
/// // Nobody reads, so a full ring stays full.
/// let moment = Some(Duration::from_millis(1));
/// let error = loop {
///     match ends.reserve(&mut spin, FrameHeader::new(1001, 1000), moment) {
///         Ok(room) => room.commit(),
///         Err(error) => break error,
///     }
/// };
/// assert!(matches!(error, WaitError::Reserve(ReserveError::Full { .. })));
/// let waited: Result<Waited, EndsError> = ends.wait(&mut spin, WaitFor::Frame, Some(Instant::now()), None);
/// assert_eq!(waited?, Waited::TimedOut);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a reservation that is not committed is aborted"]
pub struct LinkReservation<'a> {
    reservation: Reservation<'a>,
    doorbell: &'a Doorbell,
    wakeups_sent: &'a mut u64,
}

impl<'a> LinkReservation<'a> {
    /// Makes the frame visible and wakes the peer if it sleeps.
    pub fn commit(self) {
        if self.reservation.commit_and_ask() {
            ring(self.doorbell, self.wakeups_sent);
        }
    }

    /// Commits only the first `payload_len` bytes of the payload.
    ///
    /// # Panics
    ///
    /// If `payload_len` is more than is reserved.
    pub fn commit_len(mut self, payload_len: usize) {
        self.reservation.shrink(payload_len);
        self.commit();
    }

    /// Commits what was written through [`std::io::Write`].
    pub fn commit_written(self) {
        let written = self.reservation.written();
        self.commit_len(written);
    }
}

impl<'a> Deref for LinkReservation<'a> {
    type Target = Reservation<'a>;

    fn deref(&self) -> &Self::Target {
        &self.reservation
    }
}

impl DerefMut for LinkReservation<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.reservation
    }
}

/// Whether a descriptor has something to read, at this instant.
fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
