//! rtrb: two rings of `[u64; N]` between two threads.

use mycelium_bench_harness::case::measure_threads;
use mycelium_bench_harness::link::{RING_BYTES, Rest};
use mycelium_bench_harness::{CaseArgs, Failure, Link, Sample};
use rtrb::{Consumer, Producer, PushError, RingBuffer};
use zerocopy::IntoBytes as _;

struct Rings<const WORDS: usize> {
    producer: Producer<[u64; WORDS]>,
    consumer: Consumer<[u64; WORDS]>,
    rest: Rest,
}

impl<const WORDS: usize> Rings<WORDS> {
    #[inline]
    fn push(&mut self, mut message: [u64; WORDS]) {
        while let Err(PushError::Full(back)) = self.producer.push(message) {
            message = back;
            self.rest.rest();
        }
    }
}

impl<const WORDS: usize> Link for Rings<WORDS> {
    #[inline]
    fn send(&mut self, _: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        let mut message = [0; WORDS];
        fill(message.as_mut_bytes());
        self.push(message);
        Ok(())
    }

    #[inline]
    fn send_copy(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let mut message = [0; WORDS];
        message.as_mut_bytes().copy_from_slice(payload);
        self.push(message);
        Ok(())
    }

    #[inline]
    fn receive<R>(&mut self, look: impl FnOnce(&[u8]) -> R) -> Result<R, Failure> {
        loop {
            if let Ok(message) = self.consumer.pop() {
                // All of it, and not only the words that are looked at: the compiler would leave the others out.
                return Ok(look(std::hint::black_box(&message).as_bytes()));
            }
            self.rest.rest();
        }
    }
}

fn run<const WORDS: usize>(args: &CaseArgs) -> Result<Sample, Failure> {
    let slots = (RING_BYTES / (8 * WORDS)).max(2);
    let (to_far, from_near) = RingBuffer::new(slots);
    let (to_near, from_far) = RingBuffer::new(slots);
    let (mut near, mut far) = (
        Rings::<WORDS> {
            producer: to_far,
            consumer: from_far,
            rest: Rest::of(args),
        },
        Rings::<WORDS> {
            producer: to_near,
            consumer: from_near,
            rest: Rest::of(args),
        },
    );
    measure_threads(args, &mut near, move |args| args.run_far(&mut far))
}

pub fn near(args: &CaseArgs) -> Result<Sample, Failure> {
    match args.payload {
        8 => run::<1>(args),
        64 => run::<8>(args),
        256 => run::<32>(args),
        1024 => run::<128>(args),
        4096 => run::<512>(args),
        16_384 => run::<2048>(args),
        other => Err(Failure::Unknown(format!("rtrb with payload={other}"))),
    }
}
