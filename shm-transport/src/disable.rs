//! The switch that forces a fallback: the environment variable `MYCELIUM_DISABLE`, a comma-separated list.
//!
//! | word | what is treated as unavailable |
//! |---|---|
//! | `shm` | shared memory as a whole |
//! | `memfd` | `memfd_create` |
//! | `map` | mapping a segment that was received |
//! | `fd-passing` | receiving file descriptors |
//! | `membarrier` | `membarrier`, so links run in fenced mode |
//!
//! It is meant for tests and for finding out whether a problem lies with shared memory.

use std::sync::OnceLock;

/// Name of the environment variable.
pub const VARIABLE: &str = "MYCELIUM_DISABLE";

/// Whether `feature` is switched off in this process. Reads the environment once.
#[must_use]
pub fn is_disabled(feature: &str) -> bool {
    static LIST: OnceLock<Vec<String>> = OnceLock::new();
    let list = LIST.get_or_init(|| {
        let value = std::env::var(VARIABLE).unwrap_or_default();
        value
            .split(',')
            .map(|word| word.trim().to_owned())
            .filter(|word| !word.is_empty())
            .collect()
    });
    list.iter().any(|word| word == feature)
}
