//! Parking and waking: the doorbell, the heavy fence, and how long to spin before parking. Knows no ring.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use shm_transport::wakeup::{Doorbell, SpinBudget, WaitStrategy};
//!
//! let (notify, wait) = Doorbell::pair()?;
//! notify.notify()?; // kept until somebody waits
//! wait.drain()?;
//!
//! let mut spin = SpinBudget::new(WaitStrategy::Hybrid { spin_us: 50 });
//! let mut looks = 0;
//! let found = spin.spin(Some(Instant::now() + Duration::from_secs(1)), || {
//!     looks += 1;
//!     looks == 3
//! });
//! assert!(found, "within the budget; otherwise it would be time to park");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod doorbell;
mod membarrier;
mod strategy;

pub use doorbell::Doorbell;
pub use membarrier::{heavy_fence, is_available as membarrier_is_available};
pub use strategy::{SpinBudget, WaitStrategy, default_spin_us};
