//! The demo in small: it exits with 0, and its report has the documented form with nothing lost.

use std::process::Command;

use mycelium_tests::{bridge_binary, expected_transport, python, repository};
use serde_json::Value;
use shm_transport::channel::Transport;
use shm_transport::disable::is_disabled;

fn demo(output: &std::path::Path, python: &std::path::Path) -> std::process::Output {
    Command::new(bridge_binary())
        .arg("demo")
        .args([
            "--quotes",
            "20000",
            "--round-trips",
            "200",
            "--kill-quotes",
            "20000",
        ])
        .arg("--root")
        .arg(repository())
        .arg("--output")
        .arg(output)
        .arg("--python")
        .arg(python)
        .output()
        .expect("start the demo")
}

#[test]
fn the_demo_verifies_both_transports_and_a_kill() {
    let place = tempfile::tempdir().expect("temporary directory");
    let done = demo(place.path(), &python());
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let report = std::fs::read(place.path().join("report.json")).expect("report.json");
    let report: Value = serde_json::from_slice(&report).expect("JSON");

    let runs = report["runs"].as_array().expect("runs");
    let transports: Vec<_> = runs
        .iter()
        .map(|run| run["transport"].as_str().expect("a name"))
        .collect();
    // A segment that nobody may map still counts as shared memory here, so only its creation matters.
    let expected: &[&str] = if is_disabled("shm") || is_disabled("memfd") {
        &["socket"]
    } else {
        &["shm", "socket"]
    };
    assert_eq!(transports, expected);
    assert_eq!(report["shm_unavailable"].is_null(), expected.len() == 2);
    assert_eq!(expected_transport() == Transport::Shm, expected.len() == 2);
    for run in runs {
        assert_eq!(run["messages"], 20_000);
        assert_eq!(run["round_trips"], 200);
        for clean in ["lost", "out_of_order", "drops"] {
            assert_eq!(run[clean], 0, "{run}");
        }
        assert_eq!(run["checksum_ok"], true, "{run}");
        for number in [
            &run["rate_per_s"],
            &run["rtt_us"]["p50"],
            &run["rtt_us"]["p999"],
        ] {
            assert!(number.as_f64().is_some_and(|number| number > 0.0), "{run}");
        }
        assert!(run["wakeups_per_message"].is_number(), "{run}");
        assert!(
            text.contains(run["transport"].as_str().expect("a name")),
            "{text}"
        );
    }
    let kill = &report["kill"];
    assert_eq!(
        (&kill["lost"], &kill["restarts"], &kill["checksum_ok"]),
        (&0.into(), &1.into(), &true.into())
    );
    assert!(kill["redelivered"].is_u64());
}

#[test]
fn a_worker_that_cannot_run_ends_the_demo_with_its_name() {
    let place = tempfile::tempdir().expect("temporary directory");
    let done = demo(place.path(), std::path::Path::new("/bin/false"));
    assert_eq!(done.status.code(), Some(1));
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        text.contains("error: stuck in") && text.contains("momentum: "),
        "{text}"
    );
}
