//! Messages through serde: every type of the grammar, a format for people and two binary ones.

#[path = "../vectors/bandit.rs"]
mod bandit;
#[path = "../vectors/control.rs"]
mod control;
mod errors;
#[allow(unreachable_pub, reason = "generated for a library")]
#[path = "../../../tests/golden/grammar.rs"]
mod golden;
#[path = "../vectors/grammar.rs"]
mod grammar;
#[allow(dead_code, reason = "its visitor is for tests without serde")]
#[path = "../vectors/wire.rs"]
mod values;

/// What the functions for the vectors ask for; here every message has serde's traits too.
mod wire {
    pub(crate) use super::values::{Build, Checked, Values, put, read};
    use mycelium_messages::Message;
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    pub(crate) trait Visitor {
        fn visit<M: Message + Serialize + DeserializeOwned>(
            &mut self,
            build: Build<M>,
            values: Values<M>,
        );
    }
}

use mycelium_messages::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use values::bytes;
use wire::{Build, Values, Visitor};

struct Cases {
    messages: Vec<Value>,
    seen: usize,
    valid: usize,
}

impl Visitor for Cases {
    fn visit<M>(&mut self, build: Build<M>, _: Values<M>)
    where
        M: Message + Serialize + DeserializeOwned,
    {
        let cases = self.messages[self.seen]["cases"].as_array();
        for case in cases.expect("a list") {
            let name = format!("{} {}", M::NAME, case["name"]);
            let text = case["values"].to_string();
            if case["valid"] == true {
                let message = build(&case["values"]).expect("valid");
                assert_eq!(message.as_bytes(), bytes(&case["bytes"]), "{name}");
                people(&name, &message, &case["values"]);
                binary(&name, &message);
                self.valid += 1;
            } else {
                let failed = serde_json::from_str::<M>(&text).expect_err("not valid");
                let start = format!("message '{}', field '", M::NAME);
                assert!(failed.to_string().starts_with(&start), "{name}: {failed}");
                let invalid = M::read_from_bytes(&bytes(&case["bytes"])).expect("the size");
                let failed = serde_json::to_string(&invalid).expect_err("not valid");
                assert!(failed.to_string().starts_with(&start), "{name}: {failed}");
                assert!(postcard::to_stdvec(&invalid).is_err(), "{name}");
            }
        }
        self.seen += 1;
    }
}

/// JSON is what the vectors say, but for the names of enums; both are understood.
fn people<M: Message + Serialize + DeserializeOwned>(name: &str, message: &M, expected: &Value) {
    let written = serde_json::to_value(message).expect("it can be written");
    assert_eq!(&numbered::<M>(&written), expected, "{name}");
    let text = serde_json::to_string(message).expect("it can be written");
    for text in [text, expected.to_string()] {
        let read: M =
            serde_json::from_str(&text).unwrap_or_else(|failed| panic!("{name}: {failed}"));
        assert_eq!(read.as_bytes(), message.as_bytes(), "{name}: {text}");
    }
    let read: M = serde_json::from_value(written).expect("its own form");
    assert_eq!(read.as_bytes(), message.as_bytes(), "{name}");
}

/// The numbers in place of names, as the description of the type says: `u8 BUY=1 SELL=2`.
fn numbered<M: Message>(written: &Value) -> Value {
    let written = written.as_object().expect("fields");
    let fields = M::FIELDS.iter().map(|field| {
        let value = &written[field.name];
        let mut members = field
            .type_text
            .split(' ')
            .filter_map(|it| it.split_once('='));
        let number = members
            .find(|(name, _)| value == name)
            .map(|(_, number)| Value::from(number.parse::<i64>().expect("a number")));
        (
            field.name.to_owned(),
            number.unwrap_or_else(|| value.clone()),
        )
    });
    let fields: Map<_, _> = fields.collect();
    assert_eq!(fields.len(), written.len());
    Value::Object(fields)
}

fn binary<M: Message + Serialize + DeserializeOwned>(name: &str, message: &M) {
    let written = postcard::to_stdvec(message).expect("it can be written");
    let read: M = postcard::from_bytes(&written).unwrap_or_else(|it| panic!("{name}: {it}"));
    assert_eq!(read.as_bytes(), message.as_bytes(), "{name}: postcard");
    let list = rmp_serde::to_vec(message).expect("it can be written");
    let map = rmp_serde::to_vec_named(message).expect("it can be written");
    for written in [list, map] {
        let read: M = rmp_serde::from_slice(&written).unwrap_or_else(|it| panic!("{name}: {it}"));
        assert_eq!(read.as_bytes(), message.as_bytes(), "{name}: MessagePack");
    }
}

fn run(text: &str, each: fn(&mut Cases), valid: usize) {
    let file: Value = serde_json::from_str(text).expect("vectors are JSON");
    let messages = file["messages"].as_array().expect("a list").clone();
    let mut cases = Cases {
        messages,
        seen: 0,
        valid: 0,
    };
    each(&mut cases);
    assert_eq!(cases.seen, cases.messages.len());
    assert!(cases.valid >= valid, "{}", cases.valid);
}

#[test]
fn every_type_of_the_grammar_goes_through_json_and_binary_formats() {
    run(
        include_str!("../../../tests/golden/grammar.json"),
        grammar::each,
        40,
    );
}

#[test]
fn application_messages_go_through_json_and_binary_formats() {
    run(
        include_str!("../../../vectors/bandit.json"),
        bandit::each,
        16,
    );
}

#[test]
fn control_frames_go_through_json_and_binary_formats() {
    run(
        include_str!("../../../vectors/control.json"),
        control::each,
        30,
    );
}
