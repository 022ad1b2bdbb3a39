//! Random messages across languages: whatever one encodes the other reads, and builds again to the same bytes.
//!
//! Rust draws valid values from the checked model, builds a message and sends values and bytes to Python, which
//! decodes, compares every field and builds the message from the values. For each it sends one of its own, drawn by
//! its own code, and Rust does the same. Values travel as JSON, which neither side uses for messages. Messages that
//! were broken in one field have to be refused by both, with the field's name.
//!
//! Each run draws others; `MYCELIUM_SEED` repeats one, `MYCELIUM_ROUND_TRIPS` sets the messages per type.

#[path = "../../../contracts/messages/tests/vectors/bandit.rs"]
mod bandit;
#[path = "../../../contracts/messages/tests/vectors/control.rs"]
mod control;
#[allow(dead_code, unreachable_pub, reason = "generated for a library")]
#[path = "../../../contracts/tests/golden/grammar.rs"]
mod golden;
#[path = "../../../contracts/messages/tests/vectors/grammar.rs"]
mod grammar;
mod peer;
mod spec;
#[path = "../../../contracts/messages/tests/vectors/wire.rs"]
mod wire;

use std::collections::HashMap;

use mycelium_messages::Message;
use mycelium_messages::message::ViewError;
use mycelium_tests::random::Random;
use mycelium_tests::repository;
use serde_json::Value;

use peer::Peer;
use spec::MessageSpec;
use wire::{Build, Values, Visitor, bytes, hex};

/// Broken messages per type, beside the valid ones.
const BROKEN: usize = 500;

struct RoundTrip {
    specs: HashMap<String, MessageSpec>,
    peer: Peer,
    random: Random,
    count: usize,
    types: usize,
}

impl Visitor for RoundTrip {
    fn visit<M: Message>(&mut self, build: Build<M>, values: Values<M>) {
        let spec = self.specs.remove(M::NAME).expect("a message of the file");
        for _ in 0..self.count {
            let drawn = spec.draw(&mut self.random);
            let message = build(&drawn).unwrap_or_else(|failed| panic!("{failed}: {drawn}"));
            self.peer.send(M::NAME, message.as_bytes(), &drawn, "");
        }
        for _ in 0..self.count {
            let (name, payload, drawn) = self.peer.receive();
            assert_eq!(name, M::NAME);
            check(&payload, &drawn, build, values);
        }
        for _ in 0..BROKEN {
            let message = build(&spec.draw(&mut self.random)).expect("valid");
            let mut payload = message.as_bytes().to_vec();
            let Some(field) = spec.break_one(&mut payload, &mut self.random) else {
                break;
            };
            let Err(ViewError::Invalid(failed)) = M::read(&payload) else {
                panic!("{}: '{field}' is broken: {}", M::NAME, hex(&payload))
            };
            assert_eq!(failed.field, field, "{failed}");
            self.peer.send(M::NAME, &payload, &Value::Null, &field);
        }
        self.types += 1;
    }
}

/// Views, reads and rebuilds a message that Python built.
fn check<M: Message>(payload: &[u8], drawn: &Value, build: Build<M>, values: Values<M>) {
    let mut aligned = vec![M::new_zeroed(); 1];
    aligned.as_mut_slice()[0]
        .as_mut_bytes()
        .copy_from_slice(payload);
    let message =
        M::view(aligned[0].as_bytes()).unwrap_or_else(|failed| panic!("{failed}: {drawn}"));
    let read = values(message).expect("a valid message has values");
    // As texts, so that 0.0 differs from -0.0.
    assert_eq!(read.to_string(), drawn.to_string(), "{}", hex(payload));
    let built = build(drawn).unwrap_or_else(|failed| panic!("{failed}: {drawn}"));
    assert_eq!(hex(built.as_bytes()), hex(payload), "{drawn}");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is not a number: {text}")),
    )
}

/// `module` is what Python imports, or the path of a file.
#[allow(clippy::print_stdout, reason = "what repeats a failed run")]
fn run(file: &str, module: &str, each: fn(&mut RoundTrip), types: usize) {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = number("MYCELIUM_SEED").unwrap_or_else(|| clock.map_or(1, |clock| clock.as_secs()));
    println!("{file}: repeat with MYCELIUM_SEED={seed}");
    let contracts =
        mycelium_contracts::load(repository().join("contracts").join(file)).expect("valid");
    let specs = spec::of(&contracts);
    let mut round_trip = RoundTrip {
        peer: Peer::start(module, seed, &specs),
        specs: specs
            .into_iter()
            .map(|spec| (spec.name.clone(), spec))
            .collect(),
        random: Random::new(seed),
        count: number("MYCELIUM_ROUND_TRIPS")
            .map_or(10_000, |count| usize::try_from(count).expect("64 bits")),
        types: 0,
    };
    each(&mut round_trip);
    assert_eq!(round_trip.types, types);
    assert!(
        round_trip.specs.is_empty(),
        "every message of the file was tried"
    );
    round_trip.peer.finish();
}

#[test]
fn application_messages_survive_the_way_to_the_other_language_and_back() {
    run("bandit.yaml", "mycelium.messages", bandit::each, 4);
}

#[test]
fn control_frames_survive_the_way_to_the_other_language_and_back() {
    run("control.yaml", "mycelium._control", control::each, 13);
}

#[test]
fn every_type_of_the_grammar_survives_the_way_to_the_other_language_and_back() {
    let module = repository().join("contracts/tests/golden/grammar.py");
    run(
        "tests/golden/grammar.yaml",
        &module.to_string_lossy(),
        grammar::each,
        10,
    );
}

#[test]
fn bits_of_a_float_survive_their_way_through_json() {
    for bits in [
        0x7ff8_0000_0000_0001_u64,
        0xfff8_0000_0000_0000,
        0x8000_0000_0000_0000,
        1,
    ] {
        let value: f64 = wire::read(&wire::Wire::write(&f64::from_bits(bits)));
        assert_eq!(value.to_bits(), bits);
    }
    assert_eq!(bytes(&Value::from("00ff")), [0, 255]);
}
