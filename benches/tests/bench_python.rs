//! The measurement of the Python SDK in its short form: every case works, and rivals that are not installed are named.

use std::process::{Command, Output};

use serde_json::Value;

const KEYS: [&str; 11] = [
    "rtt_rust_python_us",
    "rtt_socket_vs_ours",
    "rtt_iceoryx2_vs_ours",
    "accessor_mps",
    "rows_mps",
    "columns_mps",
    "send_mps",
    "reserve_mps",
    "send_many_mps",
    "asyncio_ours_vs_streams",
    "idle_cpu_percent",
];
/// Cases of packages that the development environment need not have.
const RIVALS: [&str; 2] = ["pair-iceoryx2", "pair-pyzmq"];

fn python() -> String {
    std::env::var("MYCELIUM_PYTHON")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin/python").to_owned())
}

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench-python"))
        .arg("--quick")
        .args(arguments)
        .output()
        .expect("the program starts")
}

#[test]
fn every_case_is_measured_and_rivals_that_are_missing_are_named() {
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let (report, docs) = (path("report.json"), path("docs.md"));
    let before = "before\n<!-- python: begin -->\nold\n<!-- python: end -->\nafter\n";
    std::fs::write(&docs, before).expect("written");
    let output = bench(&["--python", &python(), "--report", &report, "--docs", &docs]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = std::fs::read_to_string(&report).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("JSON");

    let mut keys: Vec<&str> = report
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    let mut wanted: Vec<&str> = KEYS.into_iter().chain(["cases", "host"]).collect();
    keys.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(keys, wanted);

    let (mut cases, mut missing) = (0, 0);
    for entry in report["cases"].as_array().expect("cases") {
        if entry["kind"] == "goal" {
            continue;
        }
        cases += 1;
        let name = entry["name"].as_str().expect("a name");
        if let Some(reason) = entry["failure"].as_str() {
            assert!(
                RIVALS.contains(&name) && reason.starts_with("missing: "),
                "{entry}"
            );
            missing += 1;
            continue;
        }
        let rounds = entry["rounds"].as_array().expect("rounds");
        let [figure] = rounds.as_slice() else {
            panic!("one figure for the one round: {entry}");
        };
        assert!(
            figure.as_f64().is_some_and(f64::is_sign_positive),
            "{entry}"
        );
    }
    assert!(cases - missing >= 17, "{text}");
    for key in KEYS {
        let is_open = report[key].is_null();
        assert_eq!(
            is_open,
            key.contains("iceoryx2") && missing > 0,
            "{key}: {said}"
        );
    }
    let docs = std::fs::read_to_string(&docs).expect("the document");
    assert!(docs.starts_with("before\n") && docs.ends_with("\nafter\n") && !docs.contains("old"));
    assert!(
        docs.contains("| idle worker: processor time in percent | <= 0.5 |"),
        "{docs}"
    );
}

#[test]
fn sides_that_spin_do_not_sleep_and_those_that_park_do() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("report.json");
    let path = path.to_str().expect("UTF-8");
    let output = bench(&["--python", &python(), "--report", path, "--only", "echo"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = std::fs::read_to_string(path).expect("a report");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    let parks = |name: &str| {
        let cases = report["cases"].as_array().expect("cases");
        let case = cases.iter().find(|case| case["name"] == name);
        case.and_then(|case| case["parks"][0].as_u64())
            .unwrap_or_else(|| panic!("{name}: {text}"))
    };
    // A side that is kept from its core for a while finds the next message there and does not sleep.
    assert!(parks("echo-parked") > 0);
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
        assert_eq!(parks("echo"), 0);
    }
}

#[test]
fn wrong_arguments_are_told() {
    for (arguments, wanted) in [
        (&["--python", "/nowhere/python"][..], "/nowhere/python"),
        (&["--python", "/bin/false"], "Python ended"),
        (&["--rounds", "0"], "0 is not in 1..=1000"),
    ] {
        let output = bench(&[arguments, &["--only", "rows", "--report", "/dev/null"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(said.contains(wanted), "{arguments:?}: {said}");
    }
}
