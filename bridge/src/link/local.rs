//! What an actor in the bridge's process was compiled with, compared with the bridge's contracts.

use std::sync::Arc;

use mycelium_contracts::{ContractsShape, Encoding, FieldShape, MessageShape};
use mycelium_messages::control::TopicReplyCode;
use mycelium_messages::message::MessageInfo;
use shm_transport::error::{ChannelError, ContractMismatch};

use super::contracts::Verdict;
use super::registry::Registry;
use super::topics::{differing_digests, unknown_topic};
use crate::routes::LinkId;

impl Registry {
    /// Whether frames of this message may flow on the link of an actor. A refusal is logged once per topic, and stays with
    /// the link as a difference of its contracts.
    pub(crate) fn check_local(
        &self,
        link: LinkId,
        message: &MessageInfo,
    ) -> Result<(), ChannelError> {
        let (shared, topic_id) = (&self.shared, message.topic_id);
        let Some(ours) = shared.contracts.by_id(topic_id) else {
            let (code, reason) = unknown_topic(topic_id, &shared.contracts);
            return Err(refused(message, code, reason));
        };
        if ours.layout_digest == message.layout_digest {
            return Ok(());
        }
        let verdict = Verdict::between(&shape(message), &shared.contracts).about(topic_id);
        if verdict.accepts(topic_id, &message.layout_digest) {
            return Ok(());
        }
        shared.update(link, |entry| {
            if entry.verdict.refusal(topic_id).is_none() && verdict.refusal(topic_id).is_some() {
                verdict.log(link, &entry.status.name);
                entry.verdict = Arc::new(entry.verdict.and(&verdict));
            }
        });
        Err(ChannelError::ContractMismatch(Box::new(ContractMismatch {
            topic_id,
            expected: Some(ours.layout_digest),
            actual: Some(message.layout_digest),
            differences: verdict.differences().to_vec(),
            reason: differing_digests(ours, &message.layout_digest),
        })))
    }
}

fn refused(message: &MessageInfo, code: TopicReplyCode, reason: String) -> ChannelError {
    ChannelError::Topic {
        topic_id: message.topic_id,
        message: message.name,
        code: code.0,
        name: code.name().unwrap_or("UNKNOWN"),
        reason,
    }
}

/// The contracts of somebody who has this message only.
fn shape(message: &MessageInfo) -> ContractsShape {
    let encoding = Encoding::ALL
        .into_iter()
        .find(|it| it.name() == message.encoding.name());
    let fields = message.fields.iter().map(|field| FieldShape {
        name: field.name.to_owned(),
        type_text: field.type_text.to_owned(),
        offset: field.offset,
        size: field.size,
    });
    let shape = MessageShape {
        name: message.name.to_owned(),
        topic_id: message.topic_id,
        encoding: encoding.unwrap_or(Encoding::Contract),
        max_size: message.max_size,
        layout_digest: message.layout_digest,
        fields: fields.collect(),
    };
    ContractsShape {
        schema_digest: [0; 32],
        messages: vec![shape],
    }
}
