//! A stream socket that carries frames and, during the handshake, file descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

use mycelium_messages::Message;

use super::buffer::{OverLong, ReceiveBuffer};
use crate::frame::FrameHeader;
use crate::ring::Frame;

/// Largest payload of a control frame, in bytes. It is the limit of a stream until the handshake sets another.
pub(crate) const CONTROL_PAYLOAD_MAX: usize = 128 * 1024;
/// File descriptors that one frame may carry.
const FDS_MAX: usize = 3;

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
    /// Nothing came, or nothing could be sent, until the deadline.
    #[error("no answer until the deadline")]
    TimedOut,
}

/// A non-blocking UNIX stream socket that carries frames both ways.
///
/// Sending and receiving are buffered: [`FrameStream::queue`] and [`FrameStream::peek`] make no system call.
#[derive(Debug)]
pub struct FrameStream {
    stream: UnixStream,
    receive: ReceiveBuffer,
    /// Queued bytes, of which `sent` have gone out.
    send: Vec<u8>,
    sent: usize,
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
    /// Takes a connected socket over and makes it non-blocking.
    ///
    /// # Errors
    ///
    /// If the socket cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let receive = ReceiveBuffer::new(CONTROL_PAYLOAD_MAX);
        Ok(Self {
            stream,
            receive,
            send: Vec::new(),
            sent: 0,
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
            match receive(&self.stream, room, &mut self.fds) {
                Ok(0) => return Ok(FillOutcome::HangUp),
                Ok(count) => {
                    self.receive.filled(count);
                    self.traffic.receives += 1;
                    return Ok(FillOutcome::Data(count));
                }
                Err(Errno::EAGAIN) => return Ok(FillOutcome::WouldBlock),
                Err(Errno::ECONNRESET) => return Ok(FillOutcome::HangUp),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Err(StreamError::Io {
                        step: "receive",
                        source: errno.into(),
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
        assert_eq!(
            payload.len(),
            header.payload_len as usize,
            "payload has not the announced length"
        );
        let end = self.send.len() + header.record_len();
        self.send.extend_from_slice(&header.to_bytes());
        self.send.extend_from_slice(payload);
        self.send.resize(end, 0);
    }

    /// Appends a copy of a frame to what is to be sent.
    pub fn queue_frame(&mut self, frame: &Frame<'_>) {
        let header = frame.header();
        let end = self.send.len() + header.record_len();
        self.send.extend_from_slice(&header.to_bytes());
        frame.append_to(&mut self.send);
        self.send.resize(end, 0);
    }

    /// Appends a message to what is to be sent.
    pub fn queue_message<M: Message>(&mut self, message: &M) {
        self.queue(
            FrameHeader::new(M::TOPIC_ID, size_of::<M>() as u32),
            message.as_bytes(),
        );
    }

    /// What moved so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.traffic
    }

    /// Takes the frame that was queued last back, given its length in the stream; false if a part of it is sent.
    pub(crate) fn take_back(&mut self, record_len: usize) -> bool {
        let whole = self.unsent() >= record_len;
        if whole {
            self.send.truncate(self.send.len() - record_len);
        }
        whole
    }

    /// Bytes that are queued and not sent.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.send.len() - self.sent
    }

    /// Sends as much of the queue as the socket takes, without blocking; says whether all is gone.
    ///
    /// # Errors
    ///
    /// [`StreamError::HangUp`] if the peer is gone, [`StreamError::Io`] for anything else.
    pub fn flush(&mut self) -> Result<bool, StreamError> {
        while self.unsent() > 0 {
            match self.send_now(&self.send[self.sent..], &[])? {
                0 => {
                    // A queue that is refilled all the time never runs empty, so what is sent is dropped once it is
                    // the larger part.
                    if self.sent > self.unsent() {
                        self.send.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(false);
                }
                count => {
                    self.sent += count;
                    self.traffic.sends += 1;
                }
            }
        }
        self.send.clear();
        self.sent = 0;
        Ok(true)
    }

    /// Sends one frame together with file descriptors, before the deadline. Whatever was queued goes first.
    ///
    /// # Errors
    ///
    /// As [`FrameStream::flush`], and [`StreamError::TimedOut`].
    pub fn send_with_fds<M: Message>(
        &mut self,
        message: &M,
        fds: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<(), StreamError> {
        self.flush_until(deadline)?;
        self.queue_message(message);
        let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        // The descriptors travel with the first byte that goes out.
        while self.sent == 0 {
            self.sent = self.send_now(&self.send, &fds)?;
            if self.sent == 0 {
                self.wait(PollFlags::POLLOUT, Some(deadline))?;
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
        let mut fds = [PollFd::new(self.stream.as_fd(), events)];
        match poll(&mut fds, poll_timeout(deadline)) {
            Ok(0) => Err(StreamError::TimedOut),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(StreamError::Io {
                step: "poll",
                source: errno.into(),
            }),
        }
    }

    /// One non-blocking send; 0 if the socket is full.
    fn send_now(&self, bytes: &[u8], fds: &[RawFd]) -> Result<usize, StreamError> {
        let rights = [ControlMessage::ScmRights(fds)];
        let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        loop {
            match sendmsg::<UnixAddr>(
                self.stream.as_raw_fd(),
                &[IoSlice::new(bytes)],
                control,
                flags,
                None,
            ) {
                Ok(count) => return Ok(count),
                Err(Errno::EAGAIN) => return Ok(0),
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(StreamError::HangUp),
                Err(errno) => {
                    return Err(StreamError::Io {
                        step: "send",
                        source: errno.into(),
                    });
                }
            }
        }
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

fn receive(stream: &UnixStream, room: &mut [u8], fds: &mut Vec<OwnedFd>) -> nix::Result<usize> {
    let mut control = nix::cmsg_space!([RawFd; FDS_MAX]);
    let mut slices = [IoSliceMut::new(room)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    // A peer that sends more descriptors than fit gets them dropped by the kernel (MSG_CTRUNC); what fits is ours and
    // is closed with its OwnedFd.
    if let Ok(messages) = message.cmsgs() {
        for control in messages {
            if let ControlMessageOwned::ScmRights(received) = control {
                // SAFETY: the kernel has just opened these descriptors for this process, and nobody else knows them.
                fds.extend(
                    received
                        .into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
                // Nobody takes more than one frame's; a peer must not be able to use up our descriptors.
                fds.truncate(FDS_MAX);
            }
        }
    }
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
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
        let bytes = std::mem::take(&mut sender.send);
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
