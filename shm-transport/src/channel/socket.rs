//! The data path of a channel over the socket: application frames and control frames on one stream.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

use mycelium_messages::control::Ack;

use super::{ControlFrame, Core};
use crate::error::ChannelError;
use crate::layout::SOCKET_ACK_DELAY_MS;
use crate::ring::Frame;
use crate::socket::{FillOutcome, StreamError, poll_timeout};

#[derive(Debug)]
pub(super) struct SocketData {
    max_payload: u32,
    ack_window: u32,
    /// Sum of the record lengths of all frames that were released.
    released: u64,
    /// What the bridge was told of that.
    acknowledged: u64,
    /// Record length of the frame that was handed out and that the next call passes; 0 if there is none.
    handed_out: usize,
}

impl SocketData {
    pub(super) fn new(max_payload: u32, ack_window: u32) -> Self {
        Self {
            max_payload,
            ack_window,
            released: 0,
            acknowledged: 0,
            handed_out: 0,
        }
    }

    pub(super) fn publish(
        &mut self,
        core: &mut Core,
        frame: &Frame<'_>,
        timeout: Option<Duration>,
    ) -> Result<(), ChannelError> {
        self.check_len(frame)?;
        let payload_len = frame.payload_len();
        let start = Instant::now();
        let deadline = timeout.and_then(|timeout| start.checked_add(timeout));
        let full = || ChannelError::Full {
            payload_len,
            waited_ms: start.elapsed().as_millis(),
        };
        // Nobody sends for an idle publisher, so nothing whole may stay behind in the queue: what an earlier call left
        // goes first, and a frame of which the socket takes nothing is taken back.
        if !core.flush_before(deadline)? {
            return Err(full());
        }
        self.queue_ack(core);
        core.stream.queue_frame(frame);
        if !core.flush_before(deadline)? && core.stream.take_back(frame.header().record_len()) {
            return Err(full());
        }
        Ok(())
    }

    pub(super) fn check_len(&self, frame: &Frame<'_>) -> Result<(), ChannelError> {
        let (payload_len, max_payload) = (frame.payload_len(), self.max_payload as usize);
        if payload_len > max_payload {
            return Err(ChannelError::TooLarge {
                payload_len,
                max_payload,
            });
        }
        Ok(())
    }

    /// Passes the frame that was handed out, and waits for the next. False on timeout or after the end.
    pub(super) fn wait_for_frame(
        &mut self,
        core: &mut Core,
        deadline: Option<Instant>,
    ) -> Result<bool, ChannelError> {
        self.release(core)?;
        loop {
            if self.next_frame(core)? {
                return Ok(true);
            }
            core.flush_while_reading()?;
            match core.fill()? {
                FillOutcome::Data(_) => continue,
                FillOutcome::HangUp => {
                    core.hang_up();
                    return Ok(false);
                }
                FillOutcome::WouldBlock => {}
            }
            if core.end.is_some() || deadline.is_some_and(|at| Instant::now() >= at) {
                return Ok(false);
            }
            self.park(core, deadline)?;
        }
    }

    /// Sleeps until the socket has something. An idle peer keeps its acknowledgement back a little, in case it can
    /// travel with a frame.
    fn park(&mut self, core: &mut Core, deadline: Option<Instant>) -> Result<(), ChannelError> {
        let mut events = PollFlags::POLLIN;
        if core.stream.unsent() > 0 {
            events |= PollFlags::POLLOUT;
        }
        if self.released > self.acknowledged {
            let ack_at = Instant::now() + Duration::from_millis(SOCKET_ACK_DELAY_MS);
            if core.wait_for(events, Some(deadline.map_or(ack_at, |at| at.min(ack_at))))? {
                return Ok(());
            }
            self.acknowledge_all(core);
            core.flush_while_reading()?;
            if deadline.is_some_and(|at| Instant::now() >= at) {
                return Ok(());
            }
        }
        core.wait_for(events, deadline)?;
        Ok(())
    }

    /// Finds the next application frame in the receive buffer and handles the control frames in front of it.
    fn next_frame(&mut self, core: &mut Core) -> Result<bool, ChannelError> {
        loop {
            let Some(frame) = core.stream.peek().map_err(stream_error)? else {
                return Ok(false);
            };
            let header = frame.header();
            if !header.is_control() {
                self.handed_out = header.record_len();
                return Ok(true);
            }
            core.take_control()?;
        }
    }

    pub(super) fn frame<'a>(&self, core: &'a Core) -> Result<Frame<'a>, ChannelError> {
        let frame = core.stream.peek().map_err(stream_error)?;
        frame.ok_or_else(|| {
            ChannelError::Protocol("a received frame vanished from the buffer".into())
        })
    }

    fn release(&mut self, core: &mut Core) -> Result<(), ChannelError> {
        if self.handed_out > 0 {
            core.stream.advance(self.handed_out);
            self.released += self.handed_out as u64;
            self.handed_out = 0;
            if self.released - self.acknowledged >= self.ack_window.into() {
                self.queue_ack(core);
                core.flush_while_reading()?;
            }
        }
        Ok(())
    }

    /// Acknowledges everything, the frame that was handed out last included.
    pub(super) fn acknowledge_all(&mut self, core: &mut Core) {
        self.released += self.handed_out as u64;
        core.stream.advance(self.handed_out);
        self.handed_out = 0;
        self.queue_ack(core);
    }

    /// Acknowledges at once what was released, for a side that goes to sleep without a timer.
    #[cfg(feature = "tokio")]
    pub(super) fn settle(&mut self, core: &mut Core) -> Result<(), ChannelError> {
        self.queue_ack(core);
        core.flush_while_reading()
    }

    pub(super) fn queue_ack(&mut self, core: &mut Core) {
        if self.released > self.acknowledged {
            core.stream.queue_message(&Ack {
                bytes: self.released,
            });
            self.acknowledged = self.released;
        }
    }

    /// Waits for more of the stream while a request is open. Application frames in front of the answer stay in the
    /// buffer, so they must be looked through without being passed.
    pub(super) fn collect_replies(
        &mut self,
        core: &mut Core,
        deadline: Instant,
    ) -> Result<(), ChannelError> {
        core.take_buffered_replies()?;
        if !core.replies.is_empty() || core.end.is_some() {
            return Ok(());
        }
        match core.fill()? {
            FillOutcome::Data(_) => core.take_buffered_replies(),
            FillOutcome::HangUp => {
                core.hang_up();
                Ok(())
            }
            FillOutcome::WouldBlock => core.wait_for(PollFlags::POLLIN, Some(deadline)).map(drop),
        }
    }
}

impl Core {
    pub(super) fn fill(&mut self) -> Result<FillOutcome, ChannelError> {
        self.stream.fill().map_err(stream_error)
    }

    /// Reads once, and picks control frames out; application frames stay in the buffer.
    pub(super) fn look_for_replies(&mut self) -> Result<(), ChannelError> {
        self.take_buffered_replies()?;
        if self.end.is_some() {
            return Ok(());
        }
        match self.fill()? {
            FillOutcome::Data(_) => self.take_buffered_replies(),
            FillOutcome::HangUp => {
                self.hang_up();
                Ok(())
            }
            FillOutcome::WouldBlock => Ok(()),
        }
    }

    pub(super) fn flush(&mut self) -> Result<bool, ChannelError> {
        self.stream.flush().map_err(stream_error)
    }

    /// Sends the whole queue; false if the deadline passed before.
    pub(super) fn flush_before(&mut self, deadline: Option<Instant>) -> Result<bool, ChannelError> {
        while !self.flush()? {
            if !self.wait_for(PollFlags::POLLOUT, deadline)? {
                return self.flush();
            }
        }
        Ok(true)
    }

    /// Sends what the socket takes. A bridge that has gone does not want it any more, but what it sent before is still
    /// to be read; the end of the stream says the rest.
    fn flush_while_reading(&mut self) -> Result<(), ChannelError> {
        match self.stream.flush() {
            Ok(_) | Err(StreamError::HangUp) => Ok(()),
            Err(error) => Err(stream_error(error)),
        }
    }

    pub(super) fn flush_until(&mut self, deadline: Instant) -> Result<(), ChannelError> {
        self.stream.flush_until(deadline).map_err(stream_error)
    }

    /// Sleeps until the socket is ready for `events`; false on timeout.
    fn wait_for(
        &mut self,
        events: PollFlags,
        deadline: Option<Instant>,
    ) -> Result<bool, ChannelError> {
        self.statistics.parks += 1;
        match self.stream.poll(events, poll_timeout(deadline)) {
            Ok(ready) => Ok(ready),
            Err(Errno::EINTR) => Ok(true),
            Err(errno) => Err(ChannelError::Io {
                step: "poll",
                source: errno.into(),
            }),
        }
    }

    /// Sleeps until the control socket of a shared memory link has something, and handles it.
    pub(super) fn wait_for_control(&mut self, deadline: Instant) -> Result<(), ChannelError> {
        self.wait_for(PollFlags::POLLIN, Some(deadline))?;
        self.read_control()
    }

    /// Handles what the control socket of a shared memory link has, without blocking.
    pub(super) fn read_control(&mut self) -> Result<(), ChannelError> {
        loop {
            match self.fill()? {
                FillOutcome::Data(_) => {}
                FillOutcome::WouldBlock => return Ok(()),
                FillOutcome::HangUp => {
                    self.hang_up();
                    return Ok(());
                }
            }
            while self.stream.peek().map_err(stream_error)?.is_some() {
                self.take_control()?;
            }
        }
    }

    /// Passes the frame at the front of the stream, which is a control frame, and handles it.
    fn take_control(&mut self) -> Result<(), ChannelError> {
        let Some(frame) = self.stream.peek().map_err(stream_error)? else {
            return Ok(());
        };
        let (header, payload) = (frame.header(), frame.to_vec());
        self.stream.advance(header.record_len());
        self.on_control(&ControlFrame {
            topic_id: header.topic_id,
            payload,
        })
    }

    /// Handles the control frames in the buffer and leaves the application frames there, in their order.
    pub(super) fn take_buffered_replies(&mut self) -> Result<(), ChannelError> {
        for (header, payload) in self.stream.take_control_frames().map_err(stream_error)? {
            self.on_control(&ControlFrame {
                topic_id: header.topic_id,
                payload,
            })?;
        }
        Ok(())
    }
}

fn stream_error(error: StreamError) -> ChannelError {
    match error {
        StreamError::Io { step, source } => ChannelError::Io { step, source },
        StreamError::HangUp => ChannelError::PeerLost {
            detail: "the socket is closed".into(),
        },
        StreamError::TimedOut => ChannelError::Io {
            step: "send",
            source: std::io::ErrorKind::TimedOut.into(),
        },
        error @ (StreamError::TooLarge { .. } | StreamError::NoDescriptors { .. }) => {
            ChannelError::Protocol(error.to_string())
        }
    }
}
