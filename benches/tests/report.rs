//! The measuring program in its short form: every case works, and the report has everything that was promised.

use std::process::Command;

use mycelium_benches::catalog::{CALLS, COMPARED, GOALS, SIZES, tabled};
use serde_json::Value;

fn measure(arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_measure"))
        .args(arguments)
        .output()
        .expect("the program starts")
}

#[test]
fn the_short_form_measures_every_case_and_every_ratio() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("report.json");
    let output = measure(&["--quick", "--report", path.to_str().expect("UTF-8")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = std::fs::read_to_string(&path).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("JSON");

    let ratios = report["ratios"].as_object().expect("ratios");
    let has_strace = Command::new("strace").arg("--version").output().is_ok();
    for key in GOALS.iter().map(|goal| goal.key).chain([CALLS.0]) {
        let ratio = &ratios[key];
        if key == CALLS.0 && !has_strace {
            assert!(ratio.is_null(), "{key} cannot have been counted");
            continue;
        }
        let value = ratio.as_f64().unwrap_or_else(|| panic!("{key}: {said}"));
        assert!(value.is_finite(), "{key}={value}");
        assert!(value > 0.0 || key == CALLS.0, "{key}={value}");
    }
    assert_eq!(ratios.len(), GOALS.len() + 1);
    for key in ["cpu", "kernel", "cores", "date", "commit", "command"] {
        assert!(!report["host"][key].is_null(), "host has no {key}");
    }

    let (mut cases, mut goals) = (0, 0);
    for entry in report["cases"].as_array().expect("cases") {
        if entry["kind"] == "goal" {
            goals += 1;
            continue;
        }
        cases += 1;
        assert!(entry["failure"].is_null(), "{entry}");
        let figures = if entry["measure"] == "latency" {
            ["one_way_ns", "round_trip_ns"]
        } else {
            ["rate", "bytes_per_second"]
        };
        for figure in figures {
            assert!(!entry[figure].is_null(), "{figure} is missing: {entry}");
        }
    }
    assert_eq!(cases, COMPARED.len() + tabled(&SIZES[1..2]).len());
    assert_eq!(goals, GOALS.len() + 1);
}

#[test]
fn the_tables_are_written_between_the_markers_and_nothing_else_is_touched() {
    let folder = tempfile::tempdir().expect("folder");
    let (report, docs) = (
        folder.path().join("report.json"),
        folder.path().join("doc.md"),
    );
    std::fs::write(
        &docs,
        "before\n<!-- measured: begin -->\nold\n<!-- measured: end -->\nafter\n",
    )
    .expect("write");
    let paths = [&report, &docs].map(|path| path.to_str().expect("UTF-8"));
    let arguments = |only, check: &[&str]| {
        let mut arguments = vec![
            "--quick",
            "--only",
            only,
            "--rivals",
            "/nonexistent",
            "--report",
            paths[0],
            "--docs",
            paths[1],
        ];
        arguments.extend(check);
        measure(&arguments)
    };
    let output = arguments("memcpy throughput", &[]);
    assert!(output.status.success(), "goals that are open are no error");
    let text = std::fs::read_to_string(&docs).expect("read");
    assert!(
        text.starts_with("before\n<!-- measured: begin -->\n"),
        "{text}"
    );
    assert!(text.ends_with("<!-- measured: end -->\nafter\n"), "{text}");
    assert!(!text.contains("old"), "{text}");
    assert!(text.contains("not measured"), "{text}");

    let output = arguments("memcpy throughput", &["--check"]);
    assert_eq!(output.status.code(), Some(1), "--check asks for the goals");

    std::fs::write(&docs, "no markers").expect("write");
    let output = arguments("memcpy throughput", &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains("doc.md") && said.contains("measured: begin"),
        "{said}"
    );
}

#[test]
fn wrong_arguments_are_told() {
    for (arguments, wanted) in [
        (&["case", "pigeon"][..], "no such case: pigeon"),
        (&["case", "ring", "--payload", "12"], "multiple of 8"),
        (&["--cores", "3"], "value=3"),
        (&["--rounds", "0"], "0 is not in 1..=1000"),
    ] {
        let output = measure(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
}
