//! Two hundred messages of twelve fields: every output has every message, twice the same.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use mycelium_contracts::{Config, Target, render};

const MESSAGES: usize = 200;

fn file() -> String {
    let kinds = [
        "u64",
        "f64",
        "i32",
        "u16",
        "bool",
        "String",
        "Vec<f64>",
        "\"[u8; 20]\"",
        "U256",
        "u128",
        "Vec<u8>",
        "u8, enum: { A: 1, B: 2 }",
    ];
    let mut text = String::from("messages:\n");
    for message in 0..MESSAGES {
        let _ = writeln!(
            text,
            "  Event{message}:\n    tlv_type: {}\n    domain: Events\n    fields:",
            1000 + message
        );
        for (number, kind) in kinds.iter().enumerate() {
            let _ = writeln!(
                text,
                "      field_{number}: {{ type: {kind}, description: \"Number {number}.\" }}"
            );
        }
    }
    text
}

fn outputs(folder: &Path) -> Vec<String> {
    let mut target = Target::new(folder.join("events.yaml"));
    target.rust = Some(folder.join("events.rs"));
    target.python = Some(folder.join("events.py"));
    target.docs = Some(folder.join("events.md"));
    target.vectors = Some(folder.join("events.json"));
    let rendered = render(&Config::single(target)).expect("valid");
    assert!(rendered.warnings.is_empty());
    rendered.outputs.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn two_hundred_messages_are_in_every_output_and_always_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("events.yaml"), file()).expect("writable");
    let first = outputs(folder.path());
    for message in 0..MESSAGES {
        assert!(
            first[0].contains(&format!("pub struct Event{message} {{")),
            "{message}"
        );
        assert!(
            first[1].contains(&format!("class Event{message}(")),
            "{message}"
        );
        assert!(
            first[2].contains(&format!("\n## Event{message}\n")),
            "{message}"
        );
        assert!(
            first[3].contains(&format!("\"Event{message}\"")),
            "{message}"
        );
    }
    // The same file elsewhere, called by another path.
    let elsewhere = tempfile::tempdir().expect("a folder");
    fs::write(elsewhere.path().join("events.yaml"), file()).expect("writable");
    assert!(
        outputs(elsewhere.path()) == first,
        "another folder changes the output"
    );
}
