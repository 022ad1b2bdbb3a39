//! What the router reports of links: into the log, into their states, and on to their peers.

use mycelium_messages::control::{LinkErrorCode, TopicReplyCode};

use super::registry::Shared;
use super::session::Notice;
use super::topics::mismatch;
use crate::router::{Rejection, RouterEvent};

pub(super) fn on_router_event(shared: &Shared, event: RouterEvent) {
    match event {
        RouterEvent::Violation { link, corrupt } => {
            let message = corrupt.to_string();
            tracing::error!(%link, %message, "link broke the rules of its ring");
            let code = if corrupt.field == "head" {
                LinkErrorCode::CORRUPT_HEAD
            } else {
                LinkErrorCode::CORRUPT_RECORD
            };
            let mut worker = None;
            shared.update(link, |entry| {
                entry.status.last_error = Some(message.clone());
                worker = entry.worker;
                if let Some(notices) = entry.notices.take() {
                    let _ = notices.send(Notice::Condemned {
                        code,
                        message: message.clone(),
                    });
                }
            });
            if let (Some((worker, incarnation)), Some(control)) = (worker, shared.control()) {
                control.condemn_worker(worker, incarnation, message);
            }
        }
        RouterEvent::Gap {
            link,
            topic_id,
            missed,
            cause,
        } => {
            let policy = cause.name().unwrap_or("UNKNOWN");
            shared.update(link, |entry| {
                if entry.missed.total() == 0 {
                    let name = &entry.status.name;
                    tracing::warn!(%link, name, topic = topic_id, missed, policy, "link misses frames; further ones are only counted");
                }
                entry.missed.add(topic_id, missed, cause);
                if let Some(notices) = &entry.notices {
                    // A session that has ended needs no notice; its successor is told.
                    let _ = notices.send(Notice::Missed);
                }
            });
        }
        RouterEvent::Rejected {
            link,
            topic_id,
            why,
        } => {
            let file = shared.contracts.file().display();
            let (code, reason) = match why {
                Rejection::UnknownTopic => (
                    TopicReplyCode::UNKNOWN_TOPIC,
                    format!("no message with topic_id={topic_id} in the bridge's contracts {file}"),
                ),
                Rejection::WrongSize {
                    message,
                    expected,
                    actual,
                } => (
                    TopicReplyCode::WRONG_SIZE,
                    format!(
                        "payload of {message} has the wrong size: expected={expected:?} actual={actual} bytes"
                    ),
                ),
                Rejection::WrongEncoding {
                    message,
                    expected,
                    actual,
                } => (
                    TopicReplyCode::WRONG_ENCODING,
                    format!(
                        "payload of {message} has another encoding: expected={} actual={}",
                        expected.name(),
                        actual.name()
                    ),
                ),
                Rejection::LayoutMismatch => {
                    let verdict = shared.verdict(link);
                    let reason = verdict.refusal(topic_id).map_or_else(
                        || "published before the contracts were compared".to_owned(),
                        mismatch,
                    );
                    (TopicReplyCode::LAYOUT_MISMATCH, reason)
                }
                Rejection::TooLarge {
                    subscriber,
                    payload_len,
                    max_payload,
                } => (
                    TopicReplyCode::WRONG_SIZE,
                    format!(
                        "payload does not fit into the ring of link {subscriber}: payload_len={payload_len} \
                         max_payload={max_payload}; raise its ring_capacity"
                    ),
                ),
            };
            tracing::warn!(%link, topic = topic_id, %reason, "published frame dropped; further ones are only counted");
            shared.update(link, |entry| {
                if let Some(notices) = &entry.notices {
                    let _ = notices.send(Notice::Rejected {
                        topic_id,
                        code,
                        reason,
                    });
                }
            });
        }
    }
}
