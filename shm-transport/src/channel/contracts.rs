//! What two peers that were generated from different contracts tell each other.
//!
//! The peer shows its contracts ([`PeerContracts`], frame `ContractsOffer`); the bridge answers with one
//! [`ContractDifference`] per message that is not the same on both sides (frame `ContractsReport`). Topics whose layouts
//! are incompatible are refused on the link, everything else flows.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use mycelium_messages::DynamicMessage as _;
use mycelium_messages::control::ContractsReport;
use mycelium_messages::message::Contracts;
use serde_json::{Value, json};

/// Longest text of one difference on the wire, in bytes.
const TEXT_MAX: usize = 2000;

/// The contracts that a program was generated from: one generated module, or several.
#[derive(Debug, Clone, Default)]
pub struct PeerContracts {
    modules: Vec<&'static Contracts>,
}

impl PeerContracts {
    /// Adds the `CONTRACTS` of a generated module.
    pub fn add(&mut self, module: &'static Contracts) {
        if !self.modules.contains(&module) {
            self.modules.push(module);
        }
    }

    /// What the Hello carries: zeros for no contracts, the digest of a single module, otherwise the exclusive or of all
    /// digests, which is the digest of no contracts file, so that the handshake compares message by message.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = [0; 32];
        let distinct: BTreeSet<_> = self.modules.iter().map(|it| it.schema_digest).collect();
        for other in distinct {
            for (byte, theirs) in digest.iter_mut().zip(other) {
                *byte ^= theirs;
            }
        }
        digest
    }

    /// The layout digest of this side's message on a topic.
    #[must_use]
    pub fn layout_digest(&self, topic_id: u16) -> Option<[u8; 32]> {
        let mut messages = self.modules.iter().flat_map(|module| module.messages);
        let message = messages.find(|message| message.topic_id == topic_id)?;
        Some(message.layout_digest)
    }

    /// The payload of a `ContractsOffer`. A message that several modules have in the same form stands there once.
    pub(super) fn to_json(&self) -> String {
        if let [module] = self.modules[..] {
            return module.to_json();
        }
        let mut seen = BTreeSet::new();
        let modules = self.modules.iter().flat_map(|module| module.messages);
        let messages: Vec<Value> = modules
            .filter(|message| seen.insert((message.topic_id, message.layout_digest)))
            .map(|message| {
                let fields = message
                    .fields
                    .iter()
                    .map(|it| json!([it.name, it.type_text, it.offset, it.size]));
                json!({
                    "name": message.name,
                    "id": message.topic_id,
                    "encoding": message.encoding.name(),
                    "max_size": message.max_size,
                    "layout_digest": hex(&message.layout_digest),
                    "fields": fields.collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({"schema_digest": hex(&self.digest()), "messages": messages}).to_string()
    }
}

/// One message that is not the same on both sides of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractDifference {
    /// The topic: the bridge's, or the peer's for a message that the bridge does not have.
    pub topic_id: u16,
    /// The topic on the peer's side, if that is another.
    pub peer_topic_id: Option<u16>,
    /// Name of the message; of a renamed one the name on the bridge's side.
    pub message: String,
    /// Whether frames of the message flow on this link, as far as both sides have it.
    pub compatible: bool,
    /// Digest of the layout on the bridge's side; `None` if the bridge does not have the message.
    pub bridge_digest: Option<[u8; 32]>,
    /// What differs, field by field, as `bridge -> peer`.
    pub text: String,
}

impl fmt::Display for ContractDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A report that is not what the protocol says, with the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} of difference {number} is not {expected}")]
pub struct ReportError {
    /// The key.
    pub what: &'static str,
    /// Which entry, counted from 0.
    pub number: usize,
    /// What the protocol asks for.
    pub expected: &'static str,
}

impl ContractDifference {
    /// Whether frames of this topic are refused because of the difference.
    #[must_use]
    pub fn refuses(&self, topic_id: u16) -> bool {
        !self.compatible && (self.topic_id == topic_id || self.peer_topic_id == Some(topic_id))
    }

    fn to_value(&self, text_max: usize) -> Value {
        json!({
            "id": self.topic_id,
            "peer_id": self.peer_topic_id,
            "name": self.message,
            "compatible": self.compatible,
            "layout_digest": self.bridge_digest.as_ref().map(hex),
            "text": cut(&self.text, text_max),
        })
    }

    fn from_value(value: &Value, number: usize) -> Result<Self, ReportError> {
        let wrong = |what, expected| ReportError {
            what,
            number,
            expected,
        };
        let topic = |key: &'static str| match value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(id) => match id.as_u64().and_then(|id| u16::try_from(id).ok()) {
                Some(id) => Ok(Some(id)),
                None => Err(wrong(key, "a topic id")),
            },
        };
        let string = |key: &'static str| {
            let text = value.get(key).and_then(Value::as_str);
            text.map(printable).ok_or_else(|| wrong(key, "a text"))
        };
        let bridge_digest = match value.get("layout_digest") {
            None | Some(Value::Null) => None,
            Some(digest) => {
                let digest = digest.as_str().and_then(digest_of);
                Some(digest.ok_or_else(|| wrong("layout_digest", "64 hexadecimal digits"))?)
            }
        };
        Ok(Self {
            topic_id: topic("id")?.ok_or_else(|| wrong("id", "a topic id"))?,
            peer_topic_id: topic("peer_id")?,
            message: string("name")?,
            compatible: value
                .get("compatible")
                .and_then(Value::as_bool)
                .ok_or_else(|| wrong("compatible", "true or false"))?,
            bridge_digest,
            text: string("text")?,
        })
    }
}

/// The payload of a `ContractsReport`. Texts are cut, in the end to nothing, where there are so many that they do not
/// fit; `None` if not even that helps.
pub(super) fn encode_report(differences: &[ContractDifference]) -> Option<String> {
    [TEXT_MAX, 240, 0].into_iter().find_map(|text_max| {
        let entries = differences.iter().map(|it| it.to_value(text_max));
        let report = Value::Array(entries.collect()).to_string();
        (report.len() <= ContractsReport::MAX_SIZE).then_some(report)
    })
}

/// Reads the payload of a `ContractsReport`.
pub(super) fn decode_report(payload: &[u8]) -> Result<Vec<ContractDifference>, String> {
    let report: Vec<Value> =
        serde_json::from_slice(payload).map_err(|error| format!("no JSON array: {error}"))?;
    let entries = report.iter().enumerate();
    entries
        .map(|(number, value)| ContractDifference::from_value(value, number))
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}

/// Text of a peer for the log: without control characters.
fn printable(text: &str) -> String {
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(clean).collect()
}

fn cut(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let mut end = max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn hex(digest: &[u8; 32]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest_of(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    let bytes = text.as_bytes();
    if bytes.len() != 2 * digest.len() {
        return None;
    }
    let value = |byte: u8| char::from(byte).to_digit(16);
    for (byte, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
        *byte = (value(pair[0])? << 4 | value(pair[1])?) as u8;
    }
    Some(digest)
}

/// Topics whose frames do not flow because of the differences.
pub(super) fn refused_topics(differences: &[ContractDifference]) -> Vec<u16> {
    let incompatible = differences.iter().filter(|it| !it.compatible);
    incompatible
        .flat_map(|it| [Some(it.topic_id), it.peer_topic_id])
        .flatten()
        .collect()
}

/// One warning if there is a message that does not flow; the others do no harm.
pub(super) fn tell_differences(link: &str, differences: &[ContractDifference]) {
    if differences.is_empty() {
        return;
    }
    let (common, refused): (Vec<_>, Vec<_>) = differences.iter().partition(|it| it.compatible);
    let texts = |of: &[&ContractDifference]| {
        let texts: Vec<_> = of.iter().map(|it| it.text.as_str()).collect();
        texts.join("; ")
    };
    if !refused.is_empty() {
        let refused = texts(&refused);
        tracing::warn!(%link, %refused, "contracts differ (bridge -> this side): these topics are refused, the others flow");
    }
    if !common.is_empty() {
        let differences = texts(&common);
        tracing::info!(%link, %differences, "contracts differ (bridge -> this side) without harm");
    }
}

#[cfg(test)]
mod tests {
    use mycelium_messages::bandit::{CONTRACTS, Quote};
    use mycelium_messages::{Message as _, control};

    use super::*;

    fn difference(text: &str) -> ContractDifference {
        ContractDifference {
            topic_id: 1001,
            peer_topic_id: Some(1003),
            message: "Quote".into(),
            compatible: false,
            bridge_digest: Some([0xa5; 32]),
            text: text.into(),
        }
    }

    #[test]
    fn a_report_survives_the_wire() {
        let sent = [
            difference("field 'high': type f64 -> f32"),
            ContractDifference {
                peer_topic_id: None,
                compatible: true,
                bridge_digest: None,
                ..difference("added")
            },
        ];
        let payload = encode_report(&sent).expect("short");
        assert_eq!(decode_report(payload.as_bytes()).expect("sound"), sent);
        assert!(sent[0].refuses(1001) && sent[0].refuses(1003) && !sent[0].refuses(1002));
        assert!(!sent[1].refuses(1001), "compatible");
    }

    #[test]
    fn a_long_report_loses_texts_and_no_topic() {
        let many: Vec<_> = (0..4000).map(|_| difference(&"ä".repeat(5000))).collect();
        let payload = encode_report(&many).expect("texts are cut");
        assert!(payload.len() <= ContractsReport::MAX_SIZE);
        assert_eq!(
            decode_report(payload.as_bytes()).expect("sound").len(),
            4000
        );
        let hopeless: Vec<_> = (0..20_000).map(|_| difference("")).collect();
        assert_eq!(encode_report(&hopeless), None);
    }

    #[test]
    fn a_report_that_breaks_the_protocol_names_the_key() {
        let cases = [
            ("{}", "no JSON array"),
            ("[1]", "id of difference 0"),
            (r#"[{"id":70000}]"#, "id of difference 0 is not a topic id"),
            (r#"[{"id":1,"name":3}]"#, "name of difference 0"),
            (
                r#"[{"id":1,"name":"A","text":"","compatible":1}]"#,
                "compatible of",
            ),
            (
                r#"[{"id":1,"name":"A","text":"","compatible":true,"layout_digest":"é"}]"#,
                "layout_digest of difference 0",
            ),
        ];
        for (payload, expected) in cases {
            let error = decode_report(payload.as_bytes()).expect_err(payload);
            assert!(error.contains(expected), "{payload}: {error}");
        }
        let hostile = r#"[{"id":1,"name":"A\u001b[2J","text":"a\nb","compatible":true}]"#;
        let read = decode_report(hostile.as_bytes()).expect("legal JSON");
        assert_eq!((&*read[0].message, &*read[0].text), ("A [2J", "a b"));
    }

    #[test]
    fn one_module_has_its_own_digest_and_several_have_that_of_no_file() {
        let mut contracts = PeerContracts::default();
        assert_eq!(contracts.digest(), [0; 32]);
        contracts.add(&CONTRACTS);
        contracts.add(&CONTRACTS);
        assert_eq!(contracts.digest(), CONTRACTS.schema_digest);
        assert_eq!(contracts.to_json(), CONTRACTS.to_json());
        assert_eq!(contracts.layout_digest(1001), Some(Quote::LAYOUT_DIGEST));
        assert_eq!(contracts.layout_digest(9), None);
        contracts.add(&control::CONTRACTS);
        let digest = contracts.digest();
        assert!(digest != [0; 32] && digest != CONTRACTS.schema_digest);
        let json: Value = serde_json::from_str(&contracts.to_json()).expect("JSON");
        let messages = json["messages"].as_array().expect("an array");
        let count = CONTRACTS.messages.len() + control::CONTRACTS.messages.len();
        assert_eq!(messages.len(), count);
        assert_eq!(messages[0]["fields"][0][0], "symbol");
    }
}
