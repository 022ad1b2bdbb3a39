//! Why a link does not use shared memory.

use mycelium_messages::control::FallbackCode;

use crate::disable;
use crate::error::{CreateError, OpenError};

/// The reason why a link runs over the socket: a code for programs and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallback {
    /// The code of the control contract.
    pub code: FallbackCode,
    /// The code as a sentence, with the numbers.
    pub reason: String,
}

impl Fallback {
    /// A fallback with its sentence.
    #[must_use]
    pub fn new(code: FallbackCode, reason: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.into(),
        }
    }

    /// Somebody asked for the socket.
    #[must_use]
    pub fn requested(by: &str) -> Self {
        Self::new(
            FallbackCode::REQUESTED,
            format!("{by} asked for transport socket"),
        )
    }

    /// Name of the code, for the log.
    #[must_use]
    pub fn code_name(&self) -> &'static str {
        self.code.name().unwrap_or("UNKNOWN")
    }
}

impl From<&CreateError> for Fallback {
    fn from(error: &CreateError) -> Self {
        let code = match error {
            CreateError::Disabled => FallbackCode::DISABLED,
            CreateError::Memfd { .. } => FallbackCode::MEMFD_UNAVAILABLE,
            CreateError::NoSpace { .. } | CreateError::NoMemory { .. } => FallbackCode::NO_SPACE,
            CreateError::Prepare { .. } | CreateError::Required { .. } => FallbackCode::MAP_FAILED,
            CreateError::Capacity { .. } => FallbackCode::SEGMENT_INVALID,
        };
        Self::new(code, error.to_string())
    }
}

impl From<&OpenError> for Fallback {
    fn from(error: &OpenError) -> Self {
        let code = match error {
            OpenError::Disabled if disable::is_disabled("shm") => FallbackCode::DISABLED,
            OpenError::Disabled | OpenError::Io { .. } | OpenError::Required { .. } => {
                FallbackCode::MAP_FAILED
            }
            OpenError::Invalid { .. } | OpenError::Ring(_) => FallbackCode::SEGMENT_INVALID,
        };
        Self::new(code, error.to_string())
    }
}

impl std::fmt::Display for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.reason, self.code_name())
    }
}
