//! iceoryx2: a publish-subscribe service each way, between two processes; payloads are written and read where they lie.

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use mycelium_bench_harness::link::{RING_BYTES, Rest};
use mycelium_bench_harness::{CaseArgs, Failure, Link, PeerProcess, Sample};

/// The longest queue of a subscriber; what the ring holds in messages, within limits.
const QUEUE_MAX: usize = 1024;

struct Services {
    publisher: Publisher<ipc::Service, [u8], ()>,
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    rest: Rest,
    _node: Node<ipc::Service>,
}

impl Services {
    /// Opens both services, and waits until both sides are there.
    fn open(
        args: &CaseArgs,
        name: &str,
        publishes_on: &str,
        listens_on: &str,
    ) -> Result<Self, Failure> {
        set_log_level(LogLevel::Error);
        let node = NodeBuilder::new()
            .create::<ipc::Service>()
            .map_err(Failure::carrier("node"))?;
        let queue = (RING_BYTES / args.payload).clamp(2, QUEUE_MAX);
        let service = |direction: &str| {
            let name = format!("{name}/{direction}");
            let name = name.as_str().try_into().map_err(Failure::carrier("name"))?;
            node.service_builder(&name)
                .publish_subscribe::<[u8]>()
                .max_publishers(1)
                .max_subscribers(1)
                .subscriber_max_buffer_size(queue)
                .subscriber_max_borrowed_samples(2)
                .history_size(0)
                .enable_safe_overflow(false)
                .open_or_create()
                .map_err(Failure::carrier("service"))
        };
        let (outgoing, incoming) = (service(publishes_on)?, service(listens_on)?);
        let subscriber = incoming
            .subscriber_builder()
            .create()
            .map_err(Failure::carrier("subscriber"))?;
        let publisher = outgoing
            .publisher_builder()
            .initial_max_slice_len(args.payload)
            .max_loaned_samples(2)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .map_err(Failure::carrier("publisher"))?;
        while outgoing.dynamic_config().number_of_subscribers() == 0
            || incoming.dynamic_config().number_of_publishers() == 0
        {
            std::thread::yield_now();
        }
        Ok(Self {
            publisher,
            subscriber,
            rest: Rest::of(args),
            _node: node,
        })
    }
}

impl Link for Services {
    fn send(&mut self, payload_len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        let mut sample = self
            .publisher
            .loan_slice_uninit(payload_len)
            .map_err(Failure::carrier("loan"))?;
        let room = sample.payload_mut();
        // SAFETY: pointer and length are those of the loan, which is borrowed exclusively; its bytes are memory of a
        // mapping, which the kernel has zeroed, so they are initialised.
        fill(unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast(), room.len()) });
        // SAFETY: as above.
        let sample = unsafe { sample.assume_init() };
        sample.send().map(drop).map_err(Failure::carrier("send"))
    }

    fn send_copy(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let sample = self
            .publisher
            .loan_slice_uninit(payload.len())
            .map_err(Failure::carrier("loan"))?;
        let sample = sample.write_from_slice(payload);
        sample.send().map(drop).map_err(Failure::carrier("send"))
    }

    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, Failure> {
        loop {
            if let Some(sample) = self
                .subscriber
                .receive()
                .map_err(Failure::carrier("receive"))?
            {
                return Ok(look(sample.payload()));
            }
            self.rest.rest();
        }
    }
}

pub fn near(args: &CaseArgs) -> Result<Sample, Failure> {
    let name = format!("mycelium-bench/{}", std::process::id());
    let peer = PeerProcess::start(args, &[], &name)?;
    let mut services = Services::open(args, &name, "there", "back")?;
    let sample = args.run_near(&mut services)?;
    peer.finish()?;
    Ok(sample)
}

pub fn far(args: &CaseArgs) -> Result<(), Failure> {
    let mut services = Services::open(args, &args.handles, "back", "there")?;
    args.run_far(&mut services)
}
