//! The example of two processes runs as its text says.

use std::process::Command;

#[test]
fn two_processes_share_rings_without_a_bridge() {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.args(["run", "--quiet", "--example", "two_processes", "--", "500"]);
    // What cargo tells a running test about itself would make build scripts run again.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_MANIFEST_")
            || text.starts_with("CARGO_PKG_")
            || text == "OUT_DIR"
        {
            command.env_remove(name);
        }
    }
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
