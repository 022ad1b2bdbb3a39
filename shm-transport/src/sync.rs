//! The atomics that the ring is made of, in one place. A build with `--cfg loom` puts those of the model checker in
//! their stead, so that the very same ring is checked under every interleaving.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence, fence};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// The model checker reorders nothing that the compiler might; it reorders what the machine might, and against that a
/// compiler fence does nothing.
#[cfg(loom)]
pub(crate) fn compiler_fence(_: Ordering) {}
