//! A peer whose contracts differ from the bridge's: what differs, and which of its topics are refused.

use std::fmt::Write as _;

use mycelium_contracts::diff::{Change, Difference, compare};
use mycelium_contracts::{Contracts, ContractsShape, ShapeError};
use shm_transport::channel::ContractDifference;

use crate::router::Refused;

/// Most messages that one line of the log names.
const NAMED: usize = 20;

/// The outcome of comparing the contracts of the bridge and of one peer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    differences: Vec<ContractDifference>,
    /// Layouts that the bridge takes although their digest is another: of messages that were only renamed.
    accepted: Vec<(u16, [u8; 32])>,
}

impl Verdict {
    /// Compares what a peer sent with the bridge's contracts.
    pub(crate) fn on(offer: &[u8], contracts: &Contracts) -> Result<Self, ShapeError> {
        Ok(Self::between(&ContractsShape::from_json(offer)?, contracts))
    }

    /// Compares a peer's contracts with the bridge's.
    pub(crate) fn between(theirs: &ContractsShape, contracts: &Contracts) -> Self {
        let found = compare(&contracts.shape(), theirs);
        let layout_of = |topic_id| {
            let mut messages = theirs.messages.iter();
            messages.find(|message| message.topic_id == topic_id)
        };
        let accepted = found
            .iter()
            .filter(|difference| difference.compatible)
            .filter_map(|difference| difference.old_id.and(difference.new_id))
            .filter_map(|topic_id| Some((topic_id, layout_of(topic_id)?.layout_digest)))
            .collect();
        let differences = found
            .iter()
            .filter_map(|difference| to_wire(difference, contracts))
            .collect();
        Self {
            differences,
            accepted,
        }
    }

    /// Only what concerns one topic.
    pub(crate) fn about(mut self, topic_id: u16) -> Self {
        self.differences
            .retain(|it| it.topic_id == topic_id || it.peer_topic_id == Some(topic_id));
        self
    }

    /// Both together.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self {
            differences: [&*self.differences, &*other.differences].concat(),
            accepted: [&*self.accepted, &*other.accepted].concat(),
        }
    }

    pub(crate) fn differences(&self) -> &[ContractDifference] {
        &self.differences
    }

    /// Why a topic is refused, if it is.
    pub(crate) fn refusal(&self, topic_id: u16) -> Option<&ContractDifference> {
        self.differences.iter().find(|it| it.refuses(topic_id))
    }

    /// Whether the peer's layout of a topic is the bridge's under another name.
    pub(crate) fn accepts(&self, topic_id: u16, layout_digest: &[u8; 32]) -> bool {
        self.accepted.contains(&(topic_id, *layout_digest))
    }

    /// What the router is not to move for the peer.
    pub(crate) fn refused(&self) -> Refused {
        let refused = self.differences.iter().filter(|it| !it.compatible);
        let topics = refused.flat_map(|it| [Some(it.topic_id), it.peer_topic_id]);
        Refused::Topics(topics.flatten().collect())
    }

    /// Says what differs: one line for the whole link, and one per message for those who look closer.
    pub(crate) fn log(&self, link: crate::routes::LinkId, name: &str) {
        let names = |compatible: bool| {
            let named = self
                .differences
                .iter()
                .filter(|it| it.compatible == compatible)
                .map(|it| it.message.as_str())
                .collect::<Vec<_>>();
            list(&named)
        };
        let (refused, harmless) = (names(false), names(true));
        if refused.is_empty() {
            tracing::info!(%link, name, harmless, "contracts of the peer differ without harm: all common topics flow");
        } else {
            tracing::warn!(%link, name, refused, harmless, "contracts of the peer differ: some topics are refused, the others flow");
        }
        for difference in &self.differences {
            let (topic, compatible) = (difference.topic_id, difference.compatible);
            tracing::info!(%link, name, topic, compatible, %difference, "contracts differ (bridge -> peer)");
        }
    }
}

fn to_wire(difference: &Difference, contracts: &Contracts) -> Option<ContractDifference> {
    let topic_id = difference.old_id.or(difference.new_id)?;
    let ours = difference.old_id.and_then(|id| contracts.by_id(id));
    let text = match difference.change {
        // The other words say what became of a message; these two say who has it.
        Change::Added if difference.compatible => {
            let name = &difference.message;
            format!("message '{name}' (topic {topic_id}): only the peer has it")
        }
        Change::Removed if difference.compatible => {
            let name = &difference.message;
            format!("message '{name}' (topic {topic_id}): only the bridge has it")
        }
        _ => difference.to_string(),
    };
    Some(ContractDifference {
        topic_id,
        peer_topic_id: difference.new_id.filter(|&id| id != topic_id),
        message: difference.message.clone(),
        compatible: difference.compatible,
        bridge_digest: ours.map(|message| message.layout_digest),
        text,
    })
}

fn list(names: &[&str]) -> String {
    let mut text = names[..names.len().min(NAMED)].join(", ");
    if names.len() > NAMED {
        let _ = write!(text, " and {} more", names.len() - NAMED);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn contracts(text: &str) -> Contracts {
        mycelium_contracts::parse(Path::new("test.yaml"), text.as_bytes()).expect("sound")
    }

    const OURS: &str = "messages:
  Quote: { tlv_type: 1001, domain: D, fields: { bid: { type: f64 }, ask: { type: f64 } } }
  Signal: { tlv_type: 1002, domain: D, fields: { price: { type: f64 } } }
  Mark: { tlv_type: 1003, domain: D, fields: { at: { type: u64 } } }
  Gone: { tlv_type: 1004, domain: D, fields: { at: { type: u64 } } }
";

    fn verdict(change: impl FnOnce(&str) -> String) -> (Verdict, Contracts) {
        let theirs = contracts(&change(OURS));
        let offer = theirs.shape().to_json();
        let verdict = Verdict::on(offer.as_bytes(), &contracts(OURS)).expect("sound");
        (verdict, theirs)
    }

    #[test]
    fn only_incompatible_layouts_refuse_their_topics() {
        let (verdict, theirs) = verdict(|ours| {
            ours.replace("ask: { type: f64 }", "ask: { type: f32 }")
                .replace("Mark:", "Stamp:")
                .replace("Gone: { tlv_type: 1004", "New: { tlv_type: 1005")
        });
        assert_eq!(verdict.refused(), Refused::Topics(vec![1001]));
        let refusal = verdict.refusal(1001).expect("refused");
        assert_eq!(refusal.message, "Quote");
        assert_eq!(
            refusal.bridge_digest,
            Some(contracts(OURS).by_id(1001).expect("there").layout_digest)
        );
        assert!(
            refusal.text.contains("field 'ask': type f64 -> f32"),
            "{}",
            refusal.text
        );
        assert!(verdict.refusal(1002).is_none() && verdict.refusal(1003).is_none());
        let stamp = theirs.by_name("Stamp").expect("there").layout_digest;
        assert!(verdict.accepts(1003, &stamp), "renamed is the same layout");
        let quote = theirs.by_name("Quote").expect("there").layout_digest;
        assert!(!verdict.accepts(1001, &quote));
        let texts: Vec<_> = verdict.differences().iter().map(|it| &*it.text).collect();
        assert!(
            texts.contains(&"message 'Gone' (topic 1004): only the bridge has it"),
            "{texts:?}"
        );
        assert!(
            texts.contains(&"message 'New' (topic 1005): only the peer has it"),
            "{texts:?}"
        );
    }

    #[test]
    fn a_message_under_another_topic_refuses_both_topics() {
        let (verdict, _) = verdict(|ours| ours.replace("1002", "1009"));
        assert_eq!(verdict.refused(), Refused::Topics(vec![1002, 1009]));
    }

    #[test]
    fn rules_that_do_not_change_bytes_refuse_nothing() {
        let (verdict, theirs) = verdict(|ours| {
            ours.replace(
                "price: { type: f64 }",
                "price: { type: f64, validation: [ { min: 1 } ] }",
            )
        });
        assert_ne!(theirs.schema_digest(), contracts(OURS).schema_digest());
        assert_eq!(verdict.refused(), Refused::Topics(Vec::new()));
        assert!(verdict.differences().is_empty());
    }

    #[test]
    fn an_offer_that_is_no_contracts_is_an_error_that_names_the_place() {
        for offer in ["", "{}", "[1,2]", r#"{"schema_digest":"00","messages":[]}"#] {
            assert!(
                Verdict::on(offer.as_bytes(), &contracts(OURS)).is_err(),
                "{offer}"
            );
        }
    }
}
