//! Variables that go before what the file says, in a bridge that runs as a program.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Command, Output};

use mycelium_tests::{BridgeProcess, Place, bridge_binary, wait_for};
use nix::sys::signal::Signal;

/// What the host of these tests says otherwise than the file.
const VARIABLES: [(&str, &str); 6] = [
    ("MYCELIUM_BRIDGE__LISTEN", "elsewhere.sock"),
    ("MYCELIUM_BRIDGE__LOG", "debug"),
    ("MYCELIUM_BRIDGE__MEMORY__PREFAULT", "false"),
    ("MYCELIUM_BRIDGE__RING_CAPACITY", "64KiB"),
    ("MYCELIUM_BRIDGE__TRANSPORT", ""),
    ("MYCELIUM_METRICS__LISTEN", "127.0.0.1:0"),
];

fn program(place: &Place, arguments: &[&str]) -> Output {
    let mut command = Command::new(bridge_binary());
    command.args(arguments).current_dir(place.path());
    command.envs(VARIABLES).output().expect("run the program")
}

fn stdout(output: Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn variables_go_before_the_file_and_still_do_after_a_reload() {
    let place = Place::new()
        .listening()
        .bridge("ring_capacity = '4KiB'\nlog = 'error'");
    let bridge = BridgeProcess::start_with(&place, VARIABLES);
    let elsewhere = place.path().join("elsewhere.sock");
    let client = wait_for("the other socket", || UnixStream::connect(&elsewhere).ok());
    assert!(!place.socket().exists(), "the file's socket is not made");
    bridge.wait_for_log(&["listening", "elsewhere.sock"]);
    for (name, value) in VARIABLES {
        let line = format!("variable=\"{name}\"");
        assert_eq!(bridge.log().contains(&line), !value.is_empty(), "{name}");
    }
    drop(client);

    // The control socket is bound after the others.
    let status = wait_for("an answer", || {
        let output = program(&place, &["status", "--json"]);
        output.status.success().then(|| stdout(output))
    });
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    assert!(status["metrics"].is_string(), "{status}");
    let checked = stdout(program(&place, &["check"]));
    let names: Vec<_> = VARIABLES
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|it| it.0)
        .collect();
    let expected = format!(", environment={}\n", names.join(" "));
    assert!(checked.ends_with(&expected), "{checked}");

    let config = place.path().join("bridge.toml");
    let text = fs::read_to_string(&config).expect("text");
    fs::write(
        &config,
        text.replace("bridge.sock", "third.sock") + "\n[contracts]\non_mismatch = 'refuse'\n",
    )
    .expect("write");
    bridge.signal(Signal::SIGHUP);
    let line = bridge.wait_for_log(&["configuration reloaded"]);
    assert!(
        line.contains("on_mismatch") && !line.contains("elsewhere"),
        "{line}"
    );
    assert!(
        UnixStream::connect(&elsewhere).is_ok(),
        "it listens there still"
    );
    assert!(
        !place.path().join("third.sock").exists(),
        "and not where the file says"
    );
}

#[test]
fn a_file_without_a_table_gets_it_from_the_environment() {
    let place = Place::new();
    fs::write(place.path().join("bridge.toml"), "").expect("write");
    let contracts = mycelium_tests::repository().join("contracts/bandit.yaml");
    let mut command = Command::new(bridge_binary());
    command.arg("check").current_dir(place.path());
    let output = command
        .env("MYCELIUM_BRIDGE__CONTRACTS", contracts)
        .output();
    let checked = stdout(output.expect("run the program"));
    assert!(checked.starts_with("ok: 0 workers, "), "{checked}");
    assert!(
        checked.ends_with(", environment=MYCELIUM_BRIDGE__CONTRACTS\n"),
        "{checked}"
    );
}
