//! The example of two processes runs as its text says.

#[path = "../../tests/src/cargo.rs"]
mod cargo;

use std::path::Path;

#[test]
fn two_processes_share_rings_without_a_bridge() {
    let mut command = cargo::cargo(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    command.args(["run", "--quiet", "--example", "two_processes", "--", "500"]);
    let output = command.output().expect("cargo");
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{text}{errors}");
    assert!(
        text.starts_with("round_trips=500 ") && text.contains("child=exit status: 0"),
        "{text}{errors}"
    );
}
