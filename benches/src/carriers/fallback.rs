//! Frames over a socket, as the fallback sends them: as many as there are in one write.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use mycelium_bench_harness::{CaseArgs, Failure, Link, PeerProcess, Sample};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use shm_transport::ring::Frame;
use shm_transport::socket::{FillOutcome, FrameStream, Stream};

use super::{Family, TOPIC, stream};

/// Bytes that come together before they are sent, unless an answer is waited for.
const BATCH_BYTES: usize = 64 * 1024;
/// Longest wait for the other side to read; what hangs fails.
const WATCHDOG: Duration = Duration::from_secs(60);

/// A stream with frames.
pub(super) struct Frames {
    stream: FrameStream,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Frames {
    pub(super) fn new(stream: FrameStream) -> Self {
        Self {
            stream,
            outgoing: vec![],
            incoming: vec![],
        }
    }
}

impl Link for Frames {
    fn send(&mut self, payload_len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        let mut payload = std::mem::take(&mut self.outgoing);
        payload.resize(payload_len, 0);
        fill(&mut payload);
        let sent = self.send_copy(&payload);
        self.outgoing = payload;
        sent
    }

    fn send_copy(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.stream.queue_frame(&Frame::new(TOPIC, payload));
        if self.stream.unsent() < BATCH_BYTES {
            return Ok(());
        }
        self.flush()
    }

    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, Failure> {
        loop {
            let frame = self.stream.peek().map_err(Failure::carrier("peek"))?;
            if let Some(frame) = frame {
                let header = frame.header();
                self.incoming.clear();
                frame.append_to(&mut self.incoming);
                self.stream.advance(header.record_len());
                // Acknowledgements of a `Channel` travel between its messages.
                if header.is_control() {
                    continue;
                }
                return Ok(look(&self.incoming));
            }
            match self.stream.fill().map_err(Failure::carrier("receive"))? {
                FillOutcome::Data(_) => {}
                FillOutcome::WouldBlock => {
                    let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
                    match poll(&mut fds, PollTimeout::NONE) {
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(errno) => return Err(Failure::carrier("poll")(errno)),
                    }
                }
                FillOutcome::HangUp => return Err(Failure::Peer("hung up".to_owned())),
            }
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let sent = self.stream.flush_until(Instant::now() + WATCHDOG);
        sent.map_err(Failure::carrier("send"))
    }
}

fn frames(stream: Stream, payload_len: usize) -> Result<Frames, Failure> {
    let mut stream = FrameStream::new(stream).map_err(Failure::carrier("stream"))?;
    stream.expect_data(payload_len);
    Ok(Frames::new(stream))
}

pub(super) fn near(args: &CaseArgs, family: Family) -> Result<Sample, Failure> {
    let [ours, theirs] = family.pair()?;
    let peer = PeerProcess::start(args, &[theirs.as_fd()], "")?;
    drop(theirs);
    let sample = args.run_near(&mut frames(stream(ours)?, args.payload)?)?;
    peer.finish()?;
    Ok(sample)
}

pub(super) fn far(args: &CaseArgs) -> Result<(), Failure> {
    let [theirs] = args.inherited_fds()?;
    args.run_far(&mut frames(stream(theirs)?, args.payload)?)
}
