//! [`Channel`] on the measuring side, over shared memory and over sockets; the bridge's side answers.

use std::os::fd::AsFd as _;

use mycelium_bench_harness::{CaseArgs, Failure, Link, PeerProcess, Sample, Waiting};
use shm_transport::channel::{Channel, ConnectOptions, Transport, TransportRequest};
use shm_transport::ring::Frame;
use shm_transport::wakeup::WaitStrategy;

use super::bridge::{Accepted, accept};
use super::fallback::Frames;
use super::ring::{Bytes, Side};
use super::{Family, TOPIC, stream};

struct Peer {
    channel: Channel,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
}

impl Link for Peer {
    fn send(&mut self, payload_len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        let payload = &mut self.outgoing[..payload_len];
        fill(payload);
        let frame = Frame::new(TOPIC, payload);
        let published = self.channel.publish_frame(&frame, None);
        published.map_err(Failure::carrier("publish"))
    }

    fn send_copy(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let frame = Frame::new(TOPIC, payload);
        let published = self.channel.publish_frame(&frame, None);
        published.map_err(Failure::carrier("publish"))
    }

    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, Failure> {
        let frame = self.channel.recv(None).map_err(Failure::carrier("recv"))?;
        self.incoming.clear();
        frame.append_to(&mut self.incoming);
        Ok(look(&self.incoming))
    }
}

pub(super) fn near(
    args: &CaseArgs,
    request: TransportRequest,
    family: Family,
) -> Result<Sample, Failure> {
    let [ours, theirs] = family.pair()?;
    let peer = PeerProcess::start(args, &[theirs.as_fd()], "")?;
    drop(theirs);
    let mut options = ConnectOptions::default().over(request);
    options.wait = Some(match args.waiting {
        Waiting::Spin => WaitStrategy::BusySpin,
        Waiting::Hybrid => WaitStrategy::default(),
        Waiting::Park => WaitStrategy::Park,
    });
    let channel =
        Channel::from_stream(stream(ours)?, &options).map_err(Failure::carrier("connect"))?;
    if (channel.transport() == Transport::Shm) != (request == TransportRequest::Shm) {
        let name = channel.transport().name();
        return Err(Failure::Peer(format!("another transport: {name}")));
    }
    let mut link = Peer {
        channel,
        outgoing: vec![0; args.payload],
        incoming: Vec::with_capacity(args.payload),
    };
    let sample = args.run_near(&mut link)?;
    peer.finish()?;
    Ok(sample)
}

pub(super) fn far(args: &CaseArgs) -> Result<(), Failure> {
    let [theirs] = args.inherited_fds()?;
    match accept(stream(theirs)?, args.payload)? {
        Accepted::Rings(ends, _control) => {
            args.run_far(&mut Bytes::new(Side::new(*ends, args), args.payload))
        }
        Accepted::Stream(stream) => args.run_far(&mut Frames::new(stream)),
    }
}
