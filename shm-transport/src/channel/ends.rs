//! One side of a duplex link: the reading end of one ring, the writing end of the other, and two doorbells.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{AttachError, Corrupt, ReserveError};
use crate::ring::{Consumer, Fencing, Frame, Producer, RingMemory};
use crate::socket::poll_timeout;
use crate::wakeup::{Doorbell, SpinBudget, heavy_fence};

/// Time between two looks of a side that never sleeps at the descriptor that may interrupt it.
const BUSY_LOOK: Duration = Duration::from_millis(1);

/// One side of a duplex link over two rings. The bridge's router, a peer in another process and an actor in the same
/// process all hold one.
///
/// Publishing and reading make no system call unless the other side sleeps.
#[derive(Debug)]
pub struct LinkEnds {
    consumer: Consumer,
    producer: Producer,
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

impl LinkEnds {
    /// Attaches to both rings, and rings the peer's doorbell: a predecessor may have died after it had cleared the flag
    /// of a sleeping peer and before it rang itself, so the flags cannot tell whether a wakeup is owed.
    ///
    /// # Errors
    ///
    /// [`AttachError`] if an end is taken or a ring was left in an impossible state.
    pub fn attach(
        read: RingMemory,
        write: RingMemory,
        own_doorbell: Doorbell,
        peer_doorbell: Doorbell,
        fencing: Fencing,
    ) -> Result<Self, AttachError> {
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
    pub fn try_publish(&mut self, frame: &Frame<'_>) -> Result<(), ReserveError> {
        self.producer.try_forward(frame)?;
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
    pub fn peek(&mut self) -> Result<Option<Frame<'_>>, Corrupt> {
        self.consumer.peek()
    }

    /// Passes the frame that was looked at last, and wakes the peer if it waits for the room.
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
    fn flush_wakeups(&mut self) {
        if self.consumer.wakeup_due() {
            self.notify();
        }
    }

    fn notify(&mut self) {
        self.wakeups_sent += 1;
        // Fails only on a descriptor that is no doorbell; then the peer sleeps until its next bounded wait or hangs up.
        if let Err(error) = self.peer_doorbell.notify() {
            tracing::warn!(%error, "doorbell of the peer cannot be rung");
        }
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
        let slept = match self.is_ready(what) {
            Ok(true) => Ok((false, false)),
            Ok(false) => self.sleep(deadline, interrupt),
            Err(corrupt) => Err(corrupt.into()),
        };
        match what {
            WaitFor::Frame => self.consumer.disarm(),
            WaitFor::Room { .. } => self.producer.disarm_room(),
        }
        let (rung, interrupted) = slept?;
        if rung {
            self.own_doorbell.drain().map_err(|source| EndsError::Io {
                step: "drain",
                source,
            })?;
        }
        Ok(interrupted)
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

/// Whether a descriptor has something to read, at this instant.
fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}
