//! One contracts file per bug that was found: what is said about it, and what it becomes.
//!
//! After a wanted change run the test with `UPDATE_EXPECTED=1` and read the difference.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use mycelium_contracts::Contracts;

/// What a file means, one line per fact that a bug could get wrong.
fn meaning(contracts: &Contracts) -> String {
    let mut text = format!("{}\n", contracts.report());
    for message in contracts.messages() {
        let (name, id, topic) = (&message.name, message.topic_id, &message.topic);
        let _ = writeln!(text, "{name} {id} {topic} {} bytes", message.max_size);
        for field in &message.fields {
            let kind = contracts.type_text(field);
            let _ = writeln!(text, "  {} @{} {kind}", field.name, field.offset);
        }
    }
    for found in contracts.enums() {
        let _ = writeln!(text, "enum {}", found.name);
    }
    text
}

#[test]
fn every_bug_stays_fixed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/issues");
    let mut seen = 0;
    for entry in fs::read_dir(folder).expect("the folder exists") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let bytes = fs::read(&path).expect("readable");
        let name = Path::new(path.file_name().expect("a file"));
        let actual = match mycelium_contracts::parse(name, &bytes) {
            Ok(contracts) => meaning(&contracts),
            Err(report) => format!("{report}\n"),
        };
        let expected_path = path.with_extension("expected");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected_path, &actual).expect("writable");
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        assert_eq!(actual, expected, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 5, "files seen: {seen}");
}
