//! Every file in `tests/invalid` prints exactly its expected findings.
//!
//! After a wanted change run the test with `UPDATE_EXPECTED=1` and read the difference.

use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/invalid")
}

fn findings(path: &Path) -> String {
    let bytes = fs::read(path).expect("the file exists");
    let name = Path::new(path.file_name().expect("a file"));
    match mycelium_contracts::parse(name, &bytes) {
        Ok(contracts) => format!("{}\n", contracts.report()),
        Err(report) => format!("{report}\n"),
    }
}

#[test]
fn every_invalid_file_prints_its_findings() {
    let mut seen = 0;
    for entry in fs::read_dir(folder()).expect("the folder exists") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let expected_path = path.with_extension("expected");
        let actual = findings(&path);
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected_path, &actual).expect("writable");
        }
        let expected = fs::read_to_string(&expected_path).unwrap_or_default();
        assert_eq!(actual, expected, "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 18, "files seen: {seen}");
}

#[test]
fn a_missing_file_is_a_finding_with_its_path() {
    let report = mycelium_contracts::load("no/such/contracts.yaml").expect_err("missing");
    let text = report.to_string();
    assert!(
        text.starts_with("no/such/contracts.yaml: contracts file cannot be read: "),
        "{text}"
    );
    assert!(text.contains("\n  hint: check the path"), "{text}");
}

#[test]
fn bytes_that_are_not_utf8_are_a_finding_with_their_line() {
    let report = mycelium_contracts::parse(Path::new("x.yaml"), b"a: 1\nb: \xff").expect_err("bad");
    let expected = "x.yaml:2:1: not UTF-8: offset=8\n  hint: save the file as UTF-8";
    assert_eq!(report.to_string(), expected);
}

#[test]
fn of_very_many_findings_the_errors_are_shown_first_and_the_rest_is_counted() {
    use std::fmt::Write as _;
    let mut text =
        String::from("messages:\n  A:\n    tlv_type: 1000\n    domain: D\n    fields:\n");
    for number in 0..300 {
        let _ = writeln!(text, "      f{number}: {{ type: u8, colour: red }}");
    }
    text.push_str("      last: { type: u7 }\n");
    let report = mycelium_contracts::parse(Path::new("many.yaml"), text.as_bytes());
    let report = report.expect_err("an unknown type");
    assert_eq!(report.diagnostics.len(), 301);
    let shown = report.to_string();
    assert!(shown.starts_with("many.yaml:306:"), "{shown:.100}");
    assert_eq!(shown.matches(" warning: ").count(), 199);
    assert!(
        shown.ends_with("\nmany.yaml: 101 more findings are not shown"),
        "{shown}"
    );
}
