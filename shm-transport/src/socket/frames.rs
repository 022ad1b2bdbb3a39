//! Frames over a stream and, during the handshake over a UNIX socket, file descriptors.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, Shutdown, UnixAddr, sendmsg, shutdown};

use mycelium_messages::Message;

use super::buffer::{OverLong, ReceiveBuffer};
use super::descriptors::receive_with_fds;
use super::queue::SendQueue;
use super::stream::{ByteStream as _, Stream, StreamKind, set_nonblocking};
use crate::frame::FrameHeader;
use crate::ring::{Frame, RingSlice, RingSliceMut};

/// Largest payload of a control frame, in bytes. It is the limit of a stream until the handshake sets another.
pub(crate) const CONTROL_PAYLOAD_MAX: usize = 128 * 1024;

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillOutcome {
    /// This many bytes.
    Data(usize),
    /// Nothing for now.
    WouldBlock,
    /// The peer has closed its end.
    HangUp,
}

/// Why a frame was not received or sent.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// A system call failed.
    #[error("socket failed: step={step}: {source}")]
    Io {
        /// `receive`, `send` or `poll`.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The peer announced a payload over the limit. The stream cannot go on behind it.
    #[error(
        "frame too large: payload_len={payload_len} max_payload={max_payload}; the peer must send smaller messages or the ring_capacity of the link be raised"
    )]
    TooLarge {
        /// Bytes that the header announced.
        payload_len: usize,
        /// Bytes that this stream takes.
        max_payload: usize,
    },
    /// The peer hung up.
    #[error("peer hung up")]
    HangUp,
    /// The stream carries bytes only.
    #[error("stream carries no file descriptors: kind={kind}; shared memory needs a unix socket")]
    NoDescriptors {
        /// What the stream is made of.
        kind: &'static str,
    },
    /// Nothing came, or nothing could be sent, until the deadline.
    #[error("no answer until the deadline")]
    TimedOut,
}

/// A non-blocking stream that carries frames both ways: a UNIX or TCP connection, or two pipes.
///
/// Sending and receiving are buffered: [`FrameStream::queue`] and [`FrameStream::peek`] make no system call.
#[derive(Debug)]
pub struct FrameStream {
    stream: Stream,
    receive: ReceiveBuffer,
    send: SendQueue,
    fds: Vec<OwnedFd>,
    traffic: Traffic,
}

/// System calls of a stream that moved something, each of which may have woken the other side or been woken by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Receives that brought data.
    pub receives: u64,
    /// Sends that took data.
    pub sends: u64,
}

impl FrameStream {
    /// Takes a connected stream over and makes it non-blocking.
    ///
    /// # Errors
    ///
    /// If the stream cannot be made non-blocking.
    pub fn new(stream: impl Into<Stream>) -> io::Result<Self> {
        let stream = stream.into();
        set_nonblocking(stream.as_fd())?;
        let receive = ReceiveBuffer::new(CONTROL_PAYLOAD_MAX);
        Ok(Self {
            stream,
            receive,
            send: SendQueue::default(),
            fds: Vec::new(),
            traffic: Traffic::default(),
        })
    }

    /// Prepares for application frames with payloads of up to `max_payload` bytes. Control frames are always accepted.
    pub fn expect_data(&mut self, max_payload: usize) {
        self.receive
            .expect_data(max_payload.max(CONTROL_PAYLOAD_MAX));
    }

    /// Takes control frames with payloads of up to `max_payload` bytes from here on.
    pub(crate) fn limit_control(&mut self, max_payload: usize) {
        self.receive.limit(max_payload);
    }

    /// Reads what has arrived, without blocking. One system call.
    ///
    /// # Errors
    ///
    /// [`StreamError::Io`] for anything but a lack of data or a hang-up.
    pub fn fill(&mut self) -> Result<FillOutcome, StreamError> {
        loop {
            let room = self.receive.room();
            let received = match self.stream.kind() {
                StreamKind::Unix => receive_with_fds(self.stream.as_fd(), room, &mut self.fds),
                StreamKind::Tcp | StreamKind::Tls | StreamKind::Pipes => {
                    self.stream.read_vectored(&mut [RingSliceMut::new(room)])
                }
            };
            let error = match received {
                Ok(0) => return Ok(FillOutcome::HangUp),
                Ok(count) => {
                    self.receive.filled(count);
                    self.traffic.receives += 1;
                    return Ok(FillOutcome::Data(count));
                }
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(FillOutcome::WouldBlock),
                io::ErrorKind::ConnectionReset => return Ok(FillOutcome::HangUp),
                io::ErrorKind::Interrupted => {}
                _ => {
                    return Err(StreamError::Io {
                        step: "receive",
                        source: error,
                    });
                }
            }
        }
    }

    /// The oldest frame that has arrived whole.
    ///
    /// # Errors
    ///
    /// [`StreamError::TooLarge`] if its header announces more than the limit.
    pub fn peek(&self) -> Result<Option<Frame<'_>>, StreamError> {
        self.receive.peek().map_err(too_large)
    }

    /// Passes the frame that `peek` showed, given its length in the stream.
    pub fn advance(&mut self, record_len: usize) {
        self.receive.advance(record_len);
    }

    /// Takes the control frames out of what has arrived and leaves the application frames in their order. For a side
    /// that waits for an answer and must not lose what comes before it.
    ///
    /// # Errors
    ///
    /// As [`FrameStream::peek`].
    pub fn take_control_frames(&mut self) -> Result<Vec<(FrameHeader, Vec<u8>)>, StreamError> {
        self.receive.take_control_frames().map_err(too_large)
    }

    /// The file descriptors that came since the last call, at most three; those above are closed.
    pub fn take_fds(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.fds)
    }

    /// Appends a frame to what is to be sent.
    ///
    /// # Panics
    ///
    /// If `payload.len()` is not `header.payload_len`.
    pub fn queue(&mut self, header: FrameHeader, payload: &[u8]) {
        self.send.push(header, payload);
    }

    /// Appends a copy of a frame to what is to be sent.
    pub fn queue_frame(&mut self, frame: &Frame<'_>) {
        self.send.push_frame(frame);
    }

    /// Appends a message to what is to be sent.
    pub fn queue_message<M: Message>(&mut self, message: &M) {
        self.send.push_message(message);
    }

    /// What moved so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Takes the frame that was queued last back, given its length in the stream; false if a part of it is sent.
    pub(crate) fn take_back(&mut self, record_len: usize) -> bool {
        self.send.take_back(record_len)
    }

    /// Bytes that are queued and not sent.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.send.unsent().len()
    }

    /// Sends as much of the queue as the socket takes, without blocking; says whether all is gone.
    ///
    /// # Errors
    ///
    /// [`StreamError::HangUp`] if the peer is gone, [`StreamError::Io`] for anything else.
    pub fn flush(&mut self) -> Result<bool, StreamError> {
        while self.unsent() > 0 {
            match self.send_now(&[])? {
                0 => return Ok(false),
                count => {
                    self.send.advance(count);
                    self.traffic.sends += 1;
                }
            }
        }
        Ok(true)
    }

    /// Sends one frame together with file descriptors, before the deadline. Whatever was queued goes first.
    ///
    /// # Errors
    ///
    /// As [`FrameStream::flush`], and [`StreamError::TimedOut`]; [`StreamError::NoDescriptors`] if the stream is no UNIX
    /// socket.
    pub fn send_with_fds<M: Message>(
        &mut self,
        message: &M,
        fds: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<(), StreamError> {
        if !self.stream.passes_fds() {
            return Err(StreamError::NoDescriptors {
                kind: self.stream.kind().name(),
            });
        }
        self.flush_until(deadline)?;
        self.queue_message(message);
        let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        // The descriptors travel with the first byte that goes out.
        loop {
            match self.send_now(&fds)? {
                0 => self.wait(PollFlags::POLLOUT, Some(deadline))?,
                count => {
                    self.send.advance(count);
                    break;
                }
            }
        }
        self.flush_until(deadline)
    }

    /// Sends the whole queue before the deadline.
    ///
    /// # Errors
    ///
    /// As [`FrameStream::flush`], and [`StreamError::TimedOut`].
    pub fn flush_until(&mut self, deadline: Instant) -> Result<(), StreamError> {
        while !self.flush()? {
            self.wait(PollFlags::POLLOUT, Some(deadline))?;
        }
        Ok(())
    }

    /// Over TCP, tells the peer that nothing more comes and waits until it has closed: a connection that is closed with
    /// something unread is reset, and what was sent last may be lost with it. What still comes is dropped.
    pub(crate) fn part(&mut self, deadline: Instant) {
        if self.stream.kind() != StreamKind::Tcp
            || shutdown(self.stream.as_raw_fd(), Shutdown::Write).is_err()
        {
            return;
        }
        let mut rest = vec![0; CONTROL_PAYLOAD_MAX];
        loop {
            match self
                .stream
                .read_vectored(&mut [RingSliceMut::new(&mut rest)])
            {
                Ok(count) if count > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.wait(PollFlags::POLLIN, Some(deadline)).is_err() {
                        return;
                    }
                }
                Ok(_) | Err(_) => return,
            }
            if Instant::now() >= deadline {
                return;
            }
        }
    }

    /// Waits until a whole frame has arrived.
    ///
    /// # Errors
    ///
    /// As [`FrameStream::fill`] and [`FrameStream::peek`], [`StreamError::HangUp`], [`StreamError::TimedOut`].
    pub fn receive_until(
        &mut self,
        deadline: Instant,
    ) -> Result<(FrameHeader, Vec<u8>), StreamError> {
        loop {
            if let Some(frame) = self.peek()? {
                let (header, payload) = (frame.header(), frame.to_vec());
                self.advance(header.record_len());
                return Ok((header, payload));
            }
            match self.fill()? {
                FillOutcome::Data(_) => {}
                FillOutcome::WouldBlock => self.wait(PollFlags::POLLIN, Some(deadline))?,
                FillOutcome::HangUp => return Err(StreamError::HangUp),
            }
        }
    }

    /// Sleeps until the socket is ready for `events` or the deadline has passed.
    fn wait(&self, events: PollFlags, deadline: Option<Instant>) -> Result<(), StreamError> {
        match self.poll(events, poll_timeout(deadline)) {
            Ok(false) => Err(StreamError::TimedOut),
            Ok(true) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(StreamError::Io {
                step: "poll",
                source: errno.into(),
            }),
        }
    }

    /// Sleeps until one of `events` or the timeout; says whether there was one.
    pub(crate) fn poll(&self, events: PollFlags, timeout: PollTimeout) -> nix::Result<bool> {
        let (input, output) = (self.stream.as_fd(), self.stream.output_fd());
        let ready = if input.as_raw_fd() == output.as_raw_fd() {
            poll(&mut [PollFd::new(input, events)], timeout)?
        } else {
            let mut fds = [
                PollFd::new(input, events & PollFlags::POLLIN),
                PollFd::new(output, events & PollFlags::POLLOUT),
            ];
            // Without an event to wait for a descriptor still reports a hang-up, for ever.
            let from = usize::from(!events.contains(PollFlags::POLLIN));
            let to = 1 + usize::from(events.contains(PollFlags::POLLOUT));
            poll(&mut fds[from..to], timeout)?
        };
        Ok(ready > 0)
    }

    /// One non-blocking send of what is queued; 0 if the stream takes nothing now.
    fn send_now(&mut self, fds: &[RawFd]) -> Result<usize, StreamError> {
        loop {
            let bytes = self.send.unsent();
            let sent = if fds.is_empty() {
                self.stream.write_vectored(&[RingSlice::new(bytes)])
            } else {
                let rights = [ControlMessage::ScmRights(fds)];
                let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
                let fd = self.stream.as_raw_fd();
                sendmsg::<UnixAddr>(fd, &[IoSlice::new(bytes)], &rights, flags, None)
                    .map_err(io::Error::from)
            };
            let error = match sent {
                Ok(count) => return Ok(count),
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(0),
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                    return Err(StreamError::HangUp);
                }
                _ => {
                    return Err(StreamError::Io {
                        step: "send",
                        source: error,
                    });
                }
            }
        }
    }

    /// What the stream is made of.
    #[must_use]
    pub fn kind(&self) -> StreamKind {
        self.stream.kind()
    }

    /// The descriptor that is written to: the one of [`AsFd`] unless the stream is two pipes.
    #[must_use]
    pub fn output_fd(&self) -> BorrowedFd<'_> {
        self.stream.output_fd()
    }

    /// Bytes that are missing of a frame whose beginning has arrived; 0 if there is none.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.receive.missing()
    }

    pub(crate) fn into_parts(self) -> (Stream, ReceiveBuffer, SendQueue, Traffic) {
        (self.stream, self.receive, self.send, self.traffic)
    }
}

impl AsFd for FrameStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsRawFd for FrameStream {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

fn too_large(over: OverLong) -> StreamError {
    StreamError::TooLarge {
        payload_len: over.payload_len,
        max_payload: over.max_payload,
    }
}

/// The time left to a deadline, rounded up to whole milliseconds, as poll(2) takes it.
pub(crate) fn poll_timeout(deadline: Option<Instant>) -> PollTimeout {
    let Some(deadline) = deadline else {
        return PollTimeout::NONE;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    let millis = left.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(i32::try_from(millis).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    fn pair() -> (FrameStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        (FrameStream::new(ours).expect("stream"), theirs)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn frames_arrive_whole_however_the_stream_is_cut() {
        let (mut ours, mut theirs) = pair();
        let mut sender =
            FrameStream::new(UnixStream::pair().expect("socketpair").0).expect("stream");
        let payloads: Vec<Vec<u8>> = (0..40).map(|len| vec![len as u8; len * 7]).collect();
        for payload in &payloads {
            sender.queue(FrameHeader::new(1001, payload.len() as u32), payload);
        }
        let bytes = sender.send.unsent().to_vec();
        assert!(bytes.len().is_multiple_of(8));
        let writer = std::thread::spawn(move || {
            for piece in bytes.chunks(13) {
                theirs.write_all(piece).expect("write");
            }
        });
        for payload in &payloads {
            let (header, received) = ours.receive_until(soon()).expect("frame");
            assert_eq!((header.topic_id, &received), (1001, payload));
        }
        writer.join().expect("writer");
        assert!(matches!(
            ours.receive_until(soon()),
            Err(StreamError::HangUp)
        ));
    }

    #[test]
    fn an_impossible_length_is_an_error_with_both_numbers() {
        let (mut ours, mut theirs) = pair();
        theirs
            .write_all(&FrameHeader::new(1001, u32::MAX).to_bytes())
            .expect("write");
        let error = ours.receive_until(soon()).expect_err("too large");
        assert!(
            error
                .to_string()
                .contains("payload_len=4294967295 max_payload=131072"),
            "{error}"
        );
    }

    #[test]
    fn a_full_socket_keeps_the_rest_queued_and_in_order() {
        let (mut ours, theirs) = pair();
        let mut theirs = FrameStream::new(theirs).expect("stream");
        let payload = vec![5; 100_000];
        let mut queued = 0_u32;
        loop {
            ours.queue(
                FrameHeader::new(1000 + queued as u16, payload.len() as u32),
                &payload,
            );
            queued += 1;
            if !ours.flush().expect("open") {
                break;
            }
        }
        assert!(ours.unsent() > 0);
        for number in 0..queued {
            let (header, received) = loop {
                ours.flush().expect("open");
                match theirs.peek().expect("sound") {
                    Some(frame) => break (frame.header(), frame.to_vec()),
                    None => assert_ne!(theirs.fill().expect("open"), FillOutcome::HangUp),
                }
            };
            theirs.advance(header.record_len());
            assert_eq!(
                (header.topic_id, received.len()),
                (1000 + number as u16, payload.len())
            );
        }
        assert_eq!(ours.unsent(), 0);
    }

    #[test]
    fn a_queue_that_never_runs_empty_does_not_keep_what_it_has_sent() {
        let (mut ours, theirs) = pair();
        let mut theirs = FrameStream::new(theirs).expect("stream");
        let payload = vec![5; 50_000];
        let mut received = 0;
        while received < 32 << 20 {
            while ours.unsent() < 100_000 {
                ours.queue(FrameHeader::new(1000, payload.len() as u32), &payload);
            }
            if !ours.flush().expect("open") {
                // The reader is a little slower than the writer.
                assert_ne!(theirs.fill().expect("open"), FillOutcome::HangUp);
                while let Some(frame) = theirs.peek().expect("sound") {
                    let record_len = frame.header().record_len();
                    received += record_len;
                    theirs.advance(record_len);
                }
            }
        }
        let kept = ours.send.capacity();
        assert!(kept < 1 << 20, "kept={kept}");
    }
}
