//! The measurement of dynamic messages in its short form: every encoding comes back as it was sent, in both languages.

use std::process::Command;

use serde_json::Value;

const ENCODINGS: [&str; 4] = ["contract", "json", "msgpack", "raw"];

fn python() -> String {
    std::env::var("MYCELIUM_PYTHON")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin/python").to_owned())
}

fn dynamic(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_dynamic"))
        .args(["--quick", "--python"])
        .arg(python())
        .args(arguments)
        .output()
        .expect("the program starts")
}

#[test]
fn every_encoding_is_measured_in_both_languages_and_the_table_is_replaced() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (report, docs) = (path("report.json"), path("docs.md"));
    std::fs::write(
        &docs,
        "before\n<!-- dynamic: begin -->\nold\n<!-- dynamic: end -->\nafter\n",
    )
    .expect("written");
    let output = dynamic(&["--report", &report, "--docs", &docs]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = std::fs::read_to_string(&report).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    for language in ["rust", "python"] {
        let ratios = &report["ratio_to_contract"][language];
        for encoding in ENCODINGS {
            let figures = report["ns_per_message"][language][encoding].as_array();
            let figures = figures.unwrap_or_else(|| panic!("{language} {encoding}"));
            assert_eq!(figures.len(), 2, "one per round");
            assert!(
                figures
                    .iter()
                    .all(|ns| ns.as_f64().is_some_and(|ns| ns > 0.0))
            );
            assert!(ratios[encoding].as_f64().is_some_and(|ratio| ratio > 0.0));
        }
        assert_eq!(ratios["contract"], 1.0);
    }
    let docs = std::fs::read_to_string(&docs).expect("the document");
    assert!(docs.starts_with("before\n") && docs.ends_with("\nafter\n") && !docs.contains("old"));
    for encoding in ENCODINGS {
        assert!(docs.contains(&format!("\n| {encoding} | ")), "{docs}");
    }
}

#[test]
fn a_missing_interpreter_is_named() {
    let output = Command::new(env!("CARGO_BIN_EXE_dynamic"))
        .args(["--quick", "--python", "/nowhere/python"])
        .output()
        .expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nowhere/python"), "{said}");
}
