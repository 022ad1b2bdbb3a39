//! How a peer's stay ends, and what makes it end.

use std::io;

use mycelium_messages::control::LinkErrorCode;
use shm_transport::error::DecodeError;
use shm_transport::pump::PumpError;
use shm_transport::socket::StreamError;

use super::topics::TopicError;
use super::wire::WireError;

/// How a session ended.
#[derive(Debug)]
pub(crate) enum SessionEnd {
    /// The peer said goodbye.
    Goodbye { reason: String },
    /// The peer hung up without a word: it crashed. Of the frame that it was sending this many bytes are missing.
    HangUp { missing: usize },
    /// The peer broke a rule and was told so.
    Violation { message: String },
    /// The data plane has stopped or the socket failed.
    Failed { message: String },
}

/// Why a session cannot go on.
pub(super) enum Failure {
    End(SessionEnd),
    Violation(LinkErrorCode, String),
}

pub(super) fn failed(error: io::Error) -> Failure {
    Failure::End(SessionEnd::Failed {
        message: error.to_string(),
    })
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::HangUp => Self::End(SessionEnd::HangUp { missing: 0 }),
            StreamError::TooLarge { .. } => {
                Self::Violation(LinkErrorCode::FRAME_TOO_LARGE, error.to_string())
            }
            StreamError::Io { .. } | StreamError::TimedOut | StreamError::NoDescriptors { .. } => {
                Self::End(SessionEnd::Failed {
                    message: error.to_string(),
                })
            }
        }
    }
}

impl From<PumpError> for Failure {
    fn from(error: PumpError) -> Self {
        let code = match error {
            PumpError::Io { .. } => {
                return Self::End(SessionEnd::Failed {
                    message: error.to_string(),
                });
            }
            PumpError::Corrupt(_) => LinkErrorCode::CORRUPT_RECORD,
            PumpError::TooLarge { .. } => LinkErrorCode::FRAME_TOO_LARGE,
            PumpError::Reserved { .. } | PumpError::Acknowledgement { .. } => {
                LinkErrorCode::PROTOCOL
            }
        };
        Self::Violation(code, error.to_string())
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Stream(error) => error.into(),
            WireError::Pump(error) => error.into(),
        }
    }
}

impl From<DecodeError> for Failure {
    fn from(error: DecodeError) -> Self {
        Self::Violation(LinkErrorCode::PROTOCOL, error.to_string())
    }
}

impl From<TopicError> for Failure {
    fn from(error: TopicError) -> Self {
        match error {
            TopicError::Unreadable(error) => error.into(),
            TopicError::Stopped(stopped) => Self::End(SessionEnd::Failed {
                message: stopped.to_string(),
            }),
        }
    }
}
