//! The atomics that the ring is made of, in one place, so that a model checker's can be put in their stead.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, compiler_fence, fence};
