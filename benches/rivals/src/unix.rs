//! A plain UNIX stream socket: one write per message, large reads.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use mycelium_bench_harness::{CaseArgs, Failure, Link, PeerProcess, Sample};

/// Bytes that are read at once, so that the reading side is as quick as it can be.
const READ_LEN: usize = 256 * 1024;

struct Stream {
    stream: UnixStream,
    payload_len: usize,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// Received bytes that were not shown yet: `start..end`.
    start: usize,
    end: usize,
}

impl Stream {
    fn new(stream: UnixStream, payload_len: usize) -> Self {
        Self {
            stream,
            payload_len,
            outgoing: vec![0; payload_len],
            incoming: vec![0; READ_LEN + payload_len],
            start: 0,
            end: 0,
        }
    }
}

impl Link for Stream {
    fn send(&mut self, payload_len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        let payload = &mut self.outgoing[..payload_len];
        fill(payload);
        self.stream
            .write_all(payload)
            .map_err(Failure::carrier("write"))
    }

    fn send_copy(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.stream
            .write_all(payload)
            .map_err(Failure::carrier("write"))
    }

    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, Failure> {
        while self.end - self.start < self.payload_len {
            self.incoming.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            match self.stream.read(&mut self.incoming[self.end..]) {
                Ok(0) => return Err(Failure::Peer("hung up".to_owned())),
                Ok(count) => self.end += count,
                Err(error) => return Err(Failure::carrier("read")(error)),
            }
        }
        let message = &self.incoming[self.start..self.start + self.payload_len];
        self.start += self.payload_len;
        Ok(look(message))
    }
}

pub fn near(args: &CaseArgs) -> Result<Sample, Failure> {
    let (ours, theirs) = UnixStream::pair().map_err(Failure::carrier("socketpair"))?;
    let peer = PeerProcess::start(args, &[theirs.as_fd()], "")?;
    drop(theirs);
    let sample = args.run_near(&mut Stream::new(ours, args.payload))?;
    peer.finish()?;
    Ok(sample)
}

pub fn far(args: &CaseArgs) -> Result<(), Failure> {
    let [stream] = args.inherited_fds()?;
    args.run_far(&mut Stream::new(stream.into(), args.payload))
}
