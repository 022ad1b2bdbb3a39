//! What does the router take for a frame?
//!
//! A publisher and a subscriber in one process; 256 frames of 64 bytes are published, the data plane is polled until it has
//! moved them, and they are read and checked. `one frame` is the time of the polls alone, over the frames; `publish,
//! route, read` is everything.

#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use mycelium_benches::inline::{BURST, InlineRouter};

fn router(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("folder");
    let mut router = InlineRouter::start(folder.path()).expect("started");
    let mut group = criterion.benchmark_group("router, 64 B to one link");
    for (name, only_router) in [("one frame", true), ("publish, route, read", false)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|frames| {
                let mut total = Duration::ZERO;
                let bursts = frames.div_ceil(BURST);
                for _ in 0..bursts {
                    let (routing, all) = router.burst().expect("nothing is lost");
                    total += if only_router { routing } else { all };
                }
                total.mul_f64(frames as f64 / (bursts * BURST) as f64)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, router);
criterion_main!(benches);
