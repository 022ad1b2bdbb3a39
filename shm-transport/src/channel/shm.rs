//! The data path of a channel over shared memory.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::ends::{EndsError, LinkEnds, WaitFor, Waited};
use super::{Core, End};
use crate::error::{ChannelError, ReserveError};
use crate::ring::Frame;

/// Longest time for which a caller that polls does not look at the control socket.
const CONTROL_INTERVAL: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct ShmData {
    ends: LinkEnds,
    /// Whether a frame was handed out that the next call passes.
    handed_out: bool,
    /// When a call that found nothing last looked at the control socket.
    control_seen: Instant,
}

impl ShmData {
    pub(super) fn new(ends: LinkEnds) -> Self {
        Self {
            ends,
            handed_out: false,
            control_seen: Instant::now(),
        }
    }

    pub(super) fn ends(&self) -> &LinkEnds {
        &self.ends
    }

    pub(super) fn ends_mut(&mut self) -> &mut LinkEnds {
        &mut self.ends
    }

    pub(super) fn publish(
        &mut self,
        core: &mut Core,
        frame: &Frame<'_>,
        timeout: Option<Duration>,
    ) -> Result<(), ChannelError> {
        let payload_len = frame.payload_len();
        let mut started = None;
        loop {
            match self.ends.try_publish(frame) {
                Ok(()) => return Ok(()),
                Err(error) => self.wait_after(core, error, payload_len, &mut started, timeout)?,
            }
        }
    }

    /// Waits for room if there was none; `started` is when that was seen first. Other errors are the caller's.
    pub(super) fn wait_after(
        &mut self,
        core: &mut Core,
        error: ReserveError,
        payload_len: usize,
        started: &mut Option<Instant>,
        timeout: Option<Duration>,
    ) -> Result<(), ChannelError> {
        match error {
            ReserveError::Full { .. } => {
                let start = *started.get_or_insert_with(Instant::now);
                let deadline = timeout.and_then(|timeout| start.checked_add(timeout));
                if self.wait(core, WaitFor::Room { payload_len }, deadline)? {
                    return Ok(());
                }
                if let Some(end) = core.end_of_publishing() {
                    return Err(end.to_error());
                }
                Err(ChannelError::Full {
                    payload_len,
                    waited_ms: start.elapsed().as_millis(),
                })
            }
            ReserveError::TooLarge {
                payload_len,
                max_payload,
            } => Err(ChannelError::TooLarge {
                payload_len,
                max_payload,
            }),
            ReserveError::ReservedTopic { topic_id, .. } => {
                Err(ChannelError::ReservedTopic { topic_id })
            }
            ReserveError::Corrupt(corrupt) => Err(corrupt.into()),
        }
    }

    /// Passes the frame that was handed out, and waits for the next. False on timeout or after the end.
    pub(super) fn wait_for_frame(
        &mut self,
        core: &mut Core,
        deadline: Option<Instant>,
    ) -> Result<bool, ChannelError> {
        self.release();
        self.handed_out = self.wait(core, WaitFor::Frame, deadline)?;
        Ok(self.handed_out)
    }

    pub(super) fn frame(&mut self) -> Result<Frame<'_>, ChannelError> {
        let frame = self.ends.peek()?;
        frame.ok_or_else(|| {
            ChannelError::Protocol("a committed frame vanished from the ring".into())
        })
    }

    /// Passes the frame that was handed out.
    fn release(&mut self) {
        if std::mem::take(&mut self.handed_out) {
            self.ends.advance();
        }
    }

    /// Acknowledges everything, the frame that was handed out last included.
    pub(super) fn acknowledge_all(&mut self) {
        self.release();
        self.ends.publish_head();
    }

    /// False on timeout or after the end of the link. What is in the ring comes before the end.
    fn wait(
        &mut self,
        core: &mut Core,
        what: WaitFor,
        deadline: Option<Instant>,
    ) -> Result<bool, ChannelError> {
        loop {
            let until = match (&core.end, what) {
                (None, _) => deadline,
                // The bridge goes on taking what the last frames lead to.
                (Some(End::Shutdown { until, .. }), WaitFor::Room { .. }) if !core.hung_up => {
                    Some(deadline.map_or(*until, |at| at.min(*until)))
                }
                // After the end nothing more comes, so one look is enough.
                (Some(_), _) => Some(Instant::now()),
            };
            match self
                .ends
                .wait(&mut core.spin, what, until, Some(core.stream.as_fd()))?
            {
                Waited::Ready => return Ok(true),
                Waited::TimedOut if core.end.is_some() || !self.control_is_due() => {
                    return Ok(false);
                }
                Waited::TimedOut => {
                    core.read_control()?;
                    if core.end.is_none() {
                        return Ok(false);
                    }
                    // Something may have been committed between the look into the ring and the word of the end.
                }
                Waited::Interrupted => core.read_control()?,
            }
        }
    }
}

impl ShmData {
    /// Whether the control socket was not looked at for a while. One who polls and never sleeps has to look, too, but
    /// not with a system call every time.
    fn control_is_due(&mut self) -> bool {
        let due = self.control_seen.elapsed() >= CONTROL_INTERVAL;
        if due {
            self.control_seen = Instant::now();
        }
        due
    }
}

impl From<EndsError> for ChannelError {
    fn from(error: EndsError) -> Self {
        match error {
            EndsError::Corrupt(corrupt) => Self::Corrupt(corrupt),
            EndsError::Io { step, source } => Self::Io { step, source },
        }
    }
}
