//! Bursts: many frames with one store into the ring, or one send on the socket.

use std::iter::Fuse;
use std::time::{Duration, Instant};

use mycelium_messages::Message;

use super::ends::LinkEnds;
use super::shm::ShmData;
use super::socket::SocketData;
use super::{Channel, Core, Data};
use crate::error::{BatchError, BurstError, ChannelError, ReserveError};
use crate::frame::FrameHeader;
use crate::layout::CORE_TOPIC_MAX;
use crate::ring::Frame;

/// Bytes that come together before they are shown to the other side, which can then begin.
const BURST_BYTES: usize = 64 * 1024;

/// What is left of the frames to publish.
pub(super) struct Burst<'f, I: Iterator<Item = Frame<'f>>> {
    /// The frame that comes next, which found no room or was not tried.
    next: Option<Frame<'f>>,
    rest: Fuse<I>,
    published: usize,
    /// Why the next frame is refused.
    #[cfg(feature = "tokio")]
    pub(super) failed: Option<ChannelError>,
}

impl<'f, I: Iterator<Item = Frame<'f>>> Burst<'f, I> {
    pub(super) fn new(frames: impl IntoIterator<IntoIter = I>) -> Self {
        let mut rest = frames.into_iter().fuse();
        Self {
            next: rest.next(),
            rest,
            published: 0,
            #[cfg(feature = "tokio")]
            failed: None,
        }
    }

    fn pass(&mut self) {
        self.next = self.rest.next();
        self.published += 1;
    }

    /// What came of it.
    pub(super) fn finish(&self, outcome: Result<(), ChannelError>) -> Result<usize, BurstError> {
        let published = self.published;
        match outcome {
            Ok(()) => Ok(published),
            Err(source) => Err(BurstError { published, source }),
        }
    }

    #[cfg(feature = "tokio")]
    pub(super) fn is_done(&self) -> bool {
        self.next.is_none()
    }

    /// What a sleeper waits for before it goes on.
    #[cfg(feature = "tokio")]
    pub(super) fn wants(&self) -> super::ends::WaitFor {
        super::ends::WaitFor::Room {
            payload_len: self.next.map_or(0, |frame| frame.payload_len()),
        }
    }
}

/// The messages as frames.
pub(super) fn frames_of<'m, M: Message + 'm>(
    messages: impl IntoIterator<Item = &'m M>,
) -> impl Iterator<Item = Frame<'m>> {
    let frame = |message: &'m M| Frame::new(M::TOPIC_ID, message.as_bytes());
    messages.into_iter().map(frame)
}

impl Channel {
    /// Publishes messages in their order, waiting for room if need be: at most `timeout` for all of them, `None` for
    /// ever. Returns how many there were.
    ///
    /// Up to 64 KiB at a time become visible together: over shared memory with one look at whether the bridge sleeps,
    /// over a stream with one send.
    ///
    /// # Errors
    ///
    /// [`BurstError`] with the error of the message that was not published, as [`Channel::publish`], and the number of
    /// those in front of it, which are published.
    pub fn publish_all<'m, M: Message + 'm>(
        &mut self,
        messages: impl IntoIterator<Item = &'m M>,
        timeout: Option<Duration>,
    ) -> Result<usize, BurstError> {
        self.publish_frames(frames_of(messages), timeout)
    }

    /// Publishes frames of any topics; otherwise as [`Channel::publish_all`].
    ///
    /// # Errors
    ///
    /// As [`Channel::publish_all`], and [`ChannelError::ReservedTopic`] for topics of the core range.
    pub fn publish_frames<'f>(
        &mut self,
        frames: impl IntoIterator<Item = Frame<'f>>,
        timeout: Option<Duration>,
    ) -> Result<usize, BurstError> {
        let mut burst = Burst::new(frames);
        let outcome = self.publish_burst(&mut burst, timeout);
        burst.finish(outcome)
    }

    /// Publishes what is left of a burst.
    pub(super) fn publish_burst<'f>(
        &mut self,
        burst: &mut Burst<'f, impl Iterator<Item = Frame<'f>>>,
        timeout: Option<Duration>,
    ) -> Result<(), ChannelError> {
        let before = burst.published;
        let refused = &self.refused;
        let admits = |topic| topic > CORE_TOPIC_MAX && !refused.contains(&topic);
        let outcome = match &mut self.data {
            Data::Shm(data) => data.publish_all(&mut self.core, burst, admits, timeout),
            Data::Socket(data) => data.publish_all(&mut self.core, burst, admits, timeout),
        };
        self.core.statistics.frames_out += (burst.published - before) as u64;
        outcome?;
        match burst.next {
            Some(frame) => self.admit(frame.topic_id()),
            None => Ok(()),
        }
    }

    /// Puts as much of a burst into the queue of the stream as is sent at once.
    #[cfg(feature = "tokio")]
    pub(super) fn queue_burst<'f>(
        &mut self,
        burst: &mut Burst<'f, impl Iterator<Item = Frame<'f>>>,
    ) -> Result<(), ChannelError> {
        let Data::Socket(data) = &mut self.data else {
            return Ok(());
        };
        let before = burst.published;
        let refused = &self.refused;
        let admits = |topic| topic > CORE_TOPIC_MAX && !refused.contains(&topic);
        let mut queued = Vec::new();
        let outcome = data.queue_burst(&mut self.core, burst, admits, &mut queued);
        self.core.statistics.frames_out += (burst.published - before) as u64;
        outcome?;
        match burst.next {
            Some(frame) => self.admit(frame.topic_id()),
            None => Ok(()),
        }
    }

    #[cfg(feature = "tokio")]
    pub(super) fn is_socket(&self) -> bool {
        matches!(self.data, Data::Socket(_))
    }
}

impl ShmData {
    /// Stops without an error in front of a frame that is not admitted.
    fn publish_all<'f>(
        &mut self,
        core: &mut Core,
        burst: &mut Burst<'f, impl Iterator<Item = Frame<'f>>>,
        admits: impl Fn(u16) -> bool,
        timeout: Option<Duration>,
    ) -> Result<(), ChannelError> {
        let mut started = None;
        while let Some(frame) = burst.next.filter(|frame| admits(frame.topic_id())) {
            let before = burst.published;
            let outcome = self.ends_mut().try_publish_burst(burst, &admits);
            if burst.published > before {
                continue;
            }
            if let Err(error) = outcome {
                let payload_len = frame.payload_len();
                self.wait_after(core, error, payload_len, &mut started, timeout)?;
            }
        }
        Ok(())
    }
}

impl LinkEnds {
    /// Commits frames at one instant, as many as there is room for, and wakes the peer if it sleeps.
    fn try_publish_burst<'f>(
        &mut self,
        burst: &mut Burst<'f, impl Iterator<Item = Frame<'f>>>,
        admits: impl Fn(u16) -> bool,
    ) -> Result<(), ReserveError> {
        let mut batch = self.producer.batch();
        let mut outcome = Ok(());
        while let Some(frame) = burst.next.filter(|frame| admits(frame.topic_id())) {
            if batch.batch_len() >= BURST_BYTES {
                break;
            }
            match batch.try_forward(&frame) {
                Ok(()) => burst.pass(),
                // What is in the batch goes first; a frame that never fits has an error of its own.
                Err(BatchError::TooLong { .. }) => break,
                Err(BatchError::Reserve(error)) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        let is_empty = batch.is_empty();
        batch.commit();
        if !is_empty && self.producer.wakeup_due() {
            self.notify();
        }
        outcome
    }
}

impl SocketData {
    /// Stops without an error in front of a frame that is not admitted.
    fn publish_all<'f>(
        &mut self,
        core: &mut Core,
        burst: &mut Burst<'f, impl Iterator<Item = Frame<'f>>>,
        admits: impl Fn(u16) -> bool,
        timeout: Option<Duration>,
    ) -> Result<(), ChannelError> {
        let Some(first) = burst.next else {
            return Ok(());
        };
        let start = Instant::now();
        let deadline = timeout.and_then(|timeout| start.checked_add(timeout));
        let full = |payload_len| ChannelError::Full {
            payload_len,
            waited_ms: start.elapsed().as_millis(),
        };
        // As for a single frame, nothing whole may stay behind in the queue.
        if !core.flush_before(deadline)? {
            return Err(full(first.payload_len()));
        }
        let mut queued: Vec<FrameHeader> = Vec::new();
        while burst.next.is_some_and(|frame| admits(frame.topic_id())) {
            queued.clear();
            let outcome = self.queue_burst(core, burst, &admits, &mut queued);
            let sent = core.flush_before(deadline);
            if !matches!(sent, Ok(true)) {
                let mut taken_back = None;
                while let Some(header) = queued.pop() {
                    if !core.stream.take_back(header.record_len()) {
                        break;
                    }
                    burst.published -= 1;
                    taken_back = Some(header.payload_len as usize);
                }
                sent?;
                if let Some(payload_len) = taken_back {
                    return Err(full(payload_len));
                }
            }
            outcome?;
        }
        Ok(())
    }

    fn queue_burst<'f>(
        &mut self,
        core: &mut Core,
        burst: &mut Burst<'f, impl Iterator<Item = Frame<'f>>>,
        admits: impl Fn(u16) -> bool,
        queued: &mut Vec<FrameHeader>,
    ) -> Result<(), ChannelError> {
        self.queue_ack(core);
        while let Some(frame) = burst.next.filter(|frame| admits(frame.topic_id())) {
            if core.stream.unsent() >= BURST_BYTES {
                break;
            }
            self.check_len(&frame)?;
            core.stream.queue_frame(&frame);
            queued.push(frame.header());
            burst.pass();
        }
        Ok(())
    }
}
