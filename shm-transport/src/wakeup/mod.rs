//! Parking and waking: the doorbell, the heavy fence, and how long to spin before parking. Knows no ring.

mod doorbell;
mod membarrier;
mod strategy;

pub use doorbell::Doorbell;
pub use membarrier::{heavy_fence, is_available as membarrier_is_available};
pub use strategy::{SpinBudget, WaitStrategy, default_spin_us};
