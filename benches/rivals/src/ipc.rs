//! ipc-channel: a byte channel each way, between two processes.

use ipc_channel::ipc::{
    IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender, bytes_channel,
};
use mycelium_bench_harness::{CaseArgs, Failure, Link, PeerProcess, Sample};

/// The ends that the peer process makes for the one that started it.
type Ends = (IpcBytesSender, IpcBytesReceiver);

struct Channels {
    sender: IpcBytesSender,
    receiver: IpcBytesReceiver,
    outgoing: Vec<u8>,
}

impl Channels {
    fn new((sender, receiver): Ends, payload_len: usize) -> Self {
        Self {
            sender,
            receiver,
            outgoing: vec![0; payload_len],
        }
    }
}

impl Link for Channels {
    fn send(&mut self, payload_len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        let payload = &mut self.outgoing[..payload_len];
        fill(payload);
        self.sender.send(payload).map_err(Failure::carrier("send"))
    }

    fn send_copy(&mut self, payload: &[u8]) -> Result<(), Failure> {
        self.sender.send(payload).map_err(Failure::carrier("send"))
    }

    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, Failure> {
        let message = self.receiver.recv().map_err(Failure::carrier("recv"))?;
        Ok(look(&message))
    }
}

pub fn near(args: &CaseArgs) -> Result<Sample, Failure> {
    let (server, name) = IpcOneShotServer::<Ends>::new().map_err(Failure::carrier("server"))?;
    let peer = PeerProcess::start(args, &[], &name)?;
    let (_, ends) = server.accept().map_err(Failure::carrier("accept"))?;
    let sample = args.run_near(&mut Channels::new(ends, args.payload))?;
    peer.finish()?;
    Ok(sample)
}

pub fn far(args: &CaseArgs) -> Result<(), Failure> {
    let there =
        IpcSender::<Ends>::connect(args.handles.clone()).map_err(Failure::carrier("connect"))?;
    let (our_sender, their_receiver) = bytes_channel().map_err(Failure::carrier("channel"))?;
    let (their_sender, our_receiver) = bytes_channel().map_err(Failure::carrier("channel"))?;
    there
        .send((their_sender, their_receiver))
        .map_err(Failure::carrier("hand over"))?;
    args.run_far(&mut Channels::new((our_sender, our_receiver), args.payload))
}
