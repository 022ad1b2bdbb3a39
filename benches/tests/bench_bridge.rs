//! The measurement of the bridge in its short form: every case works, and the report has everything that was promised.

use std::process::{Command, Output};

use serde_json::Value;

const FIGURES: [&str; 10] = [
    "router_ns_per_frame",
    "rtt_us_shm",
    "rtt_us_shm_inline",
    "rtt_us_shm_parked",
    "rtt_us_shm_spinning",
    "rtt_us_socket",
    "rtt_us_socket_parked",
    "rtt_us_socket_spinning",
    "stalled_worker_p99_ratio",
    "idle_1000_links_cpu_percent",
];
const CASES: usize = 17;
const GOALS: usize = 3;

fn python() -> String {
    std::env::var("MYCELIUM_PYTHON")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin/python").to_owned())
}

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench-bridge"))
        .arg("--quick")
        .args(arguments)
        .output()
        .expect("the program starts")
}

#[test]
fn every_case_is_measured_and_every_key_has_a_figure() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (report, docs) = (path("report.json"), path("docs.md"));
    let before = "before\n<!-- bridge: begin -->\nold\n<!-- bridge: end -->\nafter\n";
    std::fs::write(&docs, before).expect("written");
    let output = bench(&["--python", &python(), "--report", &report, "--docs", &docs]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = std::fs::read_to_string(&report).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("JSON");

    let keys = report.as_object().expect("an object").keys();
    let mut keys: Vec<&str> = keys.map(String::as_str).collect();
    let mut wanted: Vec<&str> = FIGURES
        .into_iter()
        .chain(["fanout", "host", "cases"])
        .collect();
    keys.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(keys, wanted);
    for key in FIGURES {
        let figure = report[key].as_f64();
        assert!(
            figure.is_some_and(|it| it.is_finite() && it >= 0.0),
            "{key}: {text}"
        );
    }
    let fanout = report["fanout"].as_object().expect("an object");
    assert_eq!(fanout.keys().collect::<Vec<_>>(), ["1", "16", "4"]);
    for (workers, found) in fanout {
        for key in ["delivered_per_second", "p50_us", "p99_us"] {
            assert!(
                found[key].as_f64().is_some_and(|it| it > 0.0),
                "{workers}: {found}"
            );
        }
    }

    let entries = report["cases"].as_array().expect("cases");
    let goals = entries
        .iter()
        .filter(|entry| entry["kind"] == "goal")
        .count();
    assert_eq!((entries.len() - goals, goals), (CASES, GOALS));
    for entry in entries {
        let rounds = entry["rounds"].as_array().expect("rounds");
        assert_eq!(rounds.len(), 1, "{entry}");
        assert!(entry["failure"].is_null(), "{entry}");
    }
    let idle = entries
        .iter()
        .find(|entry| entry["name"] == "idle")
        .expect("a case");
    assert_eq!(idle["idle"]["links"], 40);
    assert!(
        idle["idle"]["own_bytes_per_link"]
            .as_f64()
            .is_some_and(|it| it > 0.0),
        "{idle}"
    );

    let docs = std::fs::read_to_string(&docs).expect("the document");
    assert!(
        docs.starts_with("before\n") && docs.ends_with("\nafter\n") && !docs.contains("\nold\n")
    );
    assert!(
        docs.contains("| router, 64 B to one link: nanoseconds per frame | <= 60 |"),
        "{docs}"
    );
    assert!(!docs.contains("Not measured"), "{docs}");
}

#[test]
fn what_was_not_measured_is_null_and_says_why() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("report.json");
    let path = path.to_str().expect("UTF-8");
    let output = bench(&["--only", "router", "--python", "/nowhere", "--report", path]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "the router needs no Python: {said}"
    );
    let text = std::fs::read_to_string(path).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert!(report["router_ns_per_frame"].is_number() && report["rtt_us_shm"].is_null());
    let entries = report["cases"].as_array().expect("cases");
    let open = entries
        .iter()
        .find(|it| it["key"] == "stalled_worker_p99_ratio");
    assert_eq!(open.expect("the goal")["reason"], "not measured");
    let checked = bench(&["--only", "router", "--check", "--report", path]);
    assert_eq!(
        checked.status.code(),
        Some(1),
        "--check asks for every goal"
    );
}

#[test]
fn wrong_arguments_are_told() {
    for (arguments, wanted) in [
        (&["--python", "/nowhere/python"][..], "/nowhere/python"),
        (&["--idle-links", "0"], "0 is not in 1..=10000"),
    ] {
        let more = ["--only", "echo-shm", "--report", "/dev/null"];
        let output = bench(&[arguments, &more].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
}
