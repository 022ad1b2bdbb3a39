//! The generated types against the test vectors: the same files that the Python suite reads.
//!
//! Every case is taken both ways, values to bytes and bytes to values, and both languages have to
//! agree on whether its values are valid.

mod bandit;
mod behaviour;
mod control;
#[allow(dead_code, unreachable_pub, reason = "generated for a library")]
#[path = "../../../tests/golden/grammar.rs"]
mod golden;
mod grammar;
mod wire;

use mycelium_messages::Message;
use mycelium_messages::message::{Contracts, NamedInt as _, ViewError};
use serde_json::Value;
use wire::{Build, Values, Visitor, bytes, hex};

/// Holds every case of a file of vectors against its message.
struct Cases {
    messages: Vec<Value>,
    seen: usize,
}

impl Visitor for Cases {
    fn visit<M: Message>(&mut self, build: Build<M>, values: Values<M>) {
        let message = &self.messages[self.seen];
        assert_eq!(
            message["name"],
            M::NAME,
            "the order is that of the topic ids"
        );
        assert_eq!(message["layout_digest"], hex(&M::LAYOUT_DIGEST));
        let cases = message["cases"].as_array().expect("a list");
        assert_eq!(cases.len(), 5, "{}", M::NAME);
        for case in cases {
            check(case, build, values);
        }
        self.seen += 1;
    }
}

/// Takes one case both ways.
fn check<M: Message>(case: &Value, build: Build<M>, values: Values<M>) {
    let name = format!("{} {}", M::NAME, case["name"]);
    let expected = bytes(&case["bytes"]);
    let built = build(&case["values"]);
    let read = M::read(&expected);
    if case["valid"] == false {
        let built = built.expect_err("invalid values");
        assert_eq!(read.expect_err("invalid bytes"), ViewError::Invalid(built));
        assert_eq!(built.message, M::NAME);
        return;
    }
    let built = built.unwrap_or_else(|failed| panic!("{name}: {failed}"));
    assert_eq!(
        hex(built.as_bytes()),
        hex(&expected),
        "{name}: values to bytes"
    );
    let read = read.unwrap_or_else(|failed| panic!("{name}: {failed}"));
    let values = values(&read).unwrap_or_else(|failed| panic!("{name}: {failed}"));
    assert_eq!(values, case["values"], "{name}: bytes to values");
}

/// Runs a file of vectors; every message of the generated list must be in it.
fn run_file(text: &str, contracts: &Contracts, each: fn(&mut Cases)) {
    let file: Value = serde_json::from_str(text).expect("vectors are JSON");
    assert_eq!(file["schema_digest"], hex(&contracts.schema_digest));
    let messages = file["messages"].as_array().expect("a list").clone();
    let mut cases = Cases { messages, seen: 0 };
    each(&mut cases);
    assert_eq!(cases.seen, cases.messages.len());
}

#[test]
fn application_messages_agree_with_their_vectors() {
    let text = include_str!("../../../vectors/bandit.json");
    run_file(text, &mycelium_messages::bandit::CONTRACTS, bandit::each);
}

#[test]
fn control_frames_agree_with_their_vectors() {
    let text = include_str!("../../../vectors/control.json");
    run_file(text, &mycelium_messages::control::CONTRACTS, control::each);
}

#[test]
fn every_type_of_the_grammar_agrees_with_its_vectors() {
    let text = include_str!("../../../tests/golden/grammar.json");
    run_file(text, &golden::CONTRACTS, grammar::each);
    let file =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/grammar.yaml");
    let model = mycelium_contracts::load(file).expect("valid");
    assert_eq!(golden::CONTRACTS.to_json(), model.shape().to_json());
}

#[test]
fn names_of_enum_values_and_unknown_values_can_be_told_apart() {
    use golden::{Colour, OtherRules, OtherRulesState, RulesState};
    assert_eq!(RulesState::DOWN.name(), Some("DOWN"));
    assert_eq!(RulesState(7).name(), None);
    assert_eq!(
        format!("{:?} {}", RulesState(7), RulesState::UP),
        "RulesState(7) UP"
    );
    assert_eq!(Colour::from_name("GREEN"), Some(Colour::GREEN));
    assert_eq!(Colour::from_name("green"), None);
    assert_eq!(Colour::from_value(0x20), Some(Colour::GREEN));
    assert_eq!(RulesState::from_value(-2), None);
    let mut rules = OtherRules {
        colour: Colour::RED,
        ..Default::default()
    };
    assert!(rules.validate().is_ok());
    rules.state = OtherRulesState(9);
    let failed = rules.validate().expect_err("no such value");
    let expected = "message 'OtherRules', field 'state': value has no name in the enum: value=9; use one of its constants";
    assert_eq!(failed.to_string(), expected);
}
