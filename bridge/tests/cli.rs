//! The program itself: exit codes, what it prints, signals, and what is left after SIGKILL.

mod common;

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};

use common::{Site, ends_with_this_thread, has_ended, wait_for, wait_until_ended};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn bridge(arguments: &[&str], site: &Site) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mycelium-bridge"));
    command.args(arguments).arg("--config").arg(site.config());
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    ends_with_this_thread(command)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("the process is ours");
}

fn finish(child: Child) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = child.wait_with_output().expect("the process ends");
    (status.code(), text(&stderr))
}

fn shell(name: &str, script: &str) -> String {
    format!("[[worker]]\nname = '{name}'\ncommand = ['sh', '-c', '''{script}''']\n")
}

#[test]
fn check_says_ok_with_the_numbers() {
    let site = Site::new(
        "listen = 'bridge.sock'",
        &(shell("a", "exit 0") + &shell("b", "exit 0")),
    );
    let output = bridge(&["check"], &site).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let stdout = text(&output.stdout);
    assert!(stdout.starts_with("ok: 2 workers, contracts="), "{stdout}");
    assert!(
        stdout.contains("bandit.yaml (4 messages), listen="),
        "{stdout}"
    );
    assert!(!site.path("bridge.sock").exists(), "check creates nothing");
}

#[test]
fn check_says_what_a_reload_would_change() {
    let site = Site::new("", &(shell("a", "exit 0") + &shell("b", "exit 0")));
    let running = site.path("running.toml");
    std::fs::copy(site.config(), &running).unwrap();
    let compare = || {
        let running = running.to_str().unwrap();
        let output = bridge(&["check", "--running", running], &site)
            .output()
            .unwrap();
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr),
        )
    };
    let (code, stdout, _) = compare();
    assert_eq!(code, Some(0));
    assert!(stdout.ends_with("\nreload: nothing differs\n"), "{stdout}");
    let changed = std::fs::read_to_string(site.config()).unwrap();
    let changed = changed
        .replace("name = 'b'", "name = 'c'")
        .replace("[bridge]", "[bridge]\nspin_us = 7");
    std::fs::write(site.config(), changed).unwrap();
    let (code, stdout, _) = compare();
    assert_eq!(code, Some(0));
    let expected = "\nreload: added=c removed=b restarted=a applied=spin_us\n";
    assert!(stdout.ends_with(expected), "{stdout}");
    std::fs::write(&running, "[bridge]\n").unwrap();
    let (code, _, stderr) = compare();
    assert_eq!(code, Some(2));
    assert!(stderr.contains("missing key 'contracts'"), "{stderr}");
}

#[test]
fn check_and_run_print_every_problem_with_its_hint_and_exit_with_2() {
    let site = Site::new(
        "logs = 'info'",
        "[[worker]]\nname = 'a'\ncommand = ['no-such-program']\n",
    );
    for subcommand in ["check", "run"] {
        let output = bridge(&[subcommand], &site).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        let stderr = text(&output.stderr);
        let config = site.config();
        let expected = format!(
            "error: {0}:3:1: [bridge]: unknown key 'logs'\nhint: did you mean 'log'?\n\
             error: {0}:6:1: worker 'a': command not found: value='no-such-program', PATH=",
            config.display()
        );
        assert!(stderr.starts_with(&expected), "{stderr}");
        assert!(
            stderr.ends_with("\nhint: install it, extend PATH, or name it with a path\n"),
            "{stderr}"
        );
    }
}

#[test]
fn wrong_arguments_and_a_wrong_filter_exit_with_2() {
    let site = Site::new("", "");
    let output = bridge(&["run", "--log-format", "xml"], &site)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("[possible values: text, json]"));
    let output = bridge(&["run", "--log", "info,=,"], &site)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).starts_with("error: log filter is not valid: value='info,=,'"));
}

#[test]
fn what_workers_print_is_in_the_log_with_their_name() {
    let site = Site::new(
        "",
        &(shell(
            "chatty",
            "echo to-stdout; echo to-stderr >&2; printf unfinished",
        )),
    );
    let output = bridge(&["run", "--log-format", "json"], &site)
        .output()
        .unwrap();
    let lines: Vec<Value> = text(&output.stderr)
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON object"))
        .collect();
    let printed = |stream: &str| -> Vec<&str> {
        let of_worker = |line: &&Value| {
            line["target"] == "worker" && line["worker"] == "chatty" && line["stream"] == stream
        };
        lines
            .iter()
            .filter(of_worker)
            .filter_map(|line| line["message"].as_str())
            .collect()
    };
    assert_eq!(printed("stdout"), ["to-stdout", "unfinished"]);
    assert_eq!(printed("stderr"), ["to-stderr"]);
    let exited = lines
        .iter()
        .position(|line| line["message"] == "worker exited")
        .expect("the exit is logged");
    let last_print = lines
        .iter()
        .rposition(|line| line["target"] == "worker")
        .expect("prints are logged");
    assert!(last_print < exited, "all output comes before the exit");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn sigterm_stops_a_bridge_that_listens_and_leaves_nothing() {
    for (signal_to_send, name) in [(Signal::SIGTERM, "SIGTERM"), (Signal::SIGINT, "SIGINT")] {
        let site = Site::new("listen = 'bridge.sock'", "");
        let child = bridge(&["run"], &site).spawn().unwrap();
        let socket = site.path("bridge.sock");
        wait_for("the listening socket", || UnixStream::connect(&socket).ok());
        signal(&child, signal_to_send);
        let (code, log) = finish(child);
        assert_eq!(code, Some(0), "{log}");
        assert!(
            log.contains(&format!("bridge stopped: reason={name}, workers=0")),
            "{log}"
        );
        assert!(!socket.exists());
    }
}

#[test]
fn a_second_signal_hurries() {
    // The deadline is longer than any watchdog: only the second signal can end this in time.
    let script = "echo $$ > pid; exec sleep 1000";
    let site = Site::new("shutdown_timeout_ms = 86400000", &shell("stubborn", script));
    let child = bridge(&["run"], &site).spawn().unwrap();
    let worker = site.number("pid");
    signal(&child, Signal::SIGINT);
    // Only repeated because two signals that arrive together count as one.
    wait_for("the end of the worker", || {
        if !has_ended(worker) {
            signal(&child, Signal::SIGINT);
        }
        has_ended(worker).then_some(())
    });
    let (code, log) = finish(child);
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("bridge stopped: reason=SIGINT, workers=1, drained=0"),
        "{log}"
    );
}

#[test]
fn a_bridge_whose_log_has_no_reader_or_no_room_goes_on_and_counts() {
    let keys = "listen = 'bridge.sock'\nshutdown_timeout_ms = 50";
    let site = Site::new(keys, &shell("a", "exec sleep 1000"));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    for stderr in [Stdio::piped(), full.expect("a full device").into()] {
        let mut child = bridge(&["run"], &site).stderr(stderr).spawn().unwrap();
        // A pipe that nobody can read from any more.
        drop(child.stderr.take());
        let status = || {
            let output = bridge(&["status", "--json"], &site).output().unwrap();
            serde_json::from_slice::<Value>(&output.stdout).ok()
        };
        let lost = || status()?["totals"]["log_lines_lost"].as_u64();
        let before = wait_for("a lost line", || lost().filter(|&lost| lost > 0));
        signal(&child, Signal::SIGHUP);
        wait_for("further ones", || lost().filter(|&lost| lost > before));
        let tables = bridge(&["status"], &site).output().unwrap().stdout;
        assert!(text(&tables).contains("\nlog lines lost: "), "{tables:?}");
        signal(&child, Signal::SIGTERM);
        // The worker knows nothing of a shutdown and is ended by force.
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}

#[test]
fn a_bridge_whose_log_is_not_read_goes_on_and_says_what_is_lost() {
    // More than a pipe and the bridge hold, and no end of it.
    let script = "echo $$ > pid; exec yes $(head -c 8000 /dev/zero | tr '\\0' x)";
    let keys = "listen = 'bridge.sock'\nshutdown_timeout_ms = 50";
    let site = Site::new(keys, &shell("talker", script));
    let mut child = bridge(&["run"], &site).spawn().unwrap();
    let stderr = child.stderr.take().unwrap();
    let lost = || {
        let output = bridge(&["status", "--json"], &site).output().unwrap();
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        status["totals"]["log_lines_lost"].as_u64()
    };
    wait_for("a lost line", || lost().filter(|&lost| lost > 0));
    // The first of these pipes is full, and the worker prints on.
    let mut lines = BufReader::new(stderr).lines();
    let told = lines.by_ref().map(Result::unwrap).find_map(|line| {
        let (_, count) = line.split_once("because nobody read it lost=")?;
        Some(count.parse::<u64>().unwrap())
    });
    assert!(told > Some(0), "{told:?}");
    let before = lost().unwrap();
    wait_for("further ones", || lost().filter(|&lost| lost > before));
    signal(&child, Signal::SIGTERM);
    // The worker knows nothing of a shutdown and is ended by force.
    assert_eq!(child.wait().unwrap().code(), Some(1));
    wait_until_ended(site.number("pid"));
}

#[test]
fn a_socket_in_use_is_named_with_its_owner_and_exits_with_1() {
    let site = Site::new("listen = 'bridge.sock'", "");
    let first = bridge(&["run"], &site).spawn().unwrap();
    let socket = site.path("bridge.sock");
    wait_for("the listening socket", || UnixStream::connect(&socket).ok());
    let output = bridge(&["run"], &site).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    let expected = format!(
        "error: socket path in use: path={}, pid={}, ",
        socket.display(),
        first.id()
    );
    assert!(stderr.contains(&expected), "{stderr}");
    assert!(
        stderr.contains("\nhint: stop that process, or choose another path for listen\n"),
        "{stderr}"
    );
    signal(&first, Signal::SIGTERM);
    assert_eq!(
        finish(first).0,
        Some(0),
        "the first bridge goes on undisturbed"
    );
}

#[test]
fn after_sigkill_of_the_bridge_its_workers_are_gone_and_the_next_start_works() {
    let script = "echo $$ > pid; exec sleep 1000";
    let site = Site::new("listen = 'bridge.sock'", &shell("orphan", script));
    let socket = site.path("bridge.sock");
    let mut child = bridge(&["run"], &site).spawn().unwrap();
    let worker = site.number("pid");
    wait_for("the listening socket", || UnixStream::connect(&socket).ok());
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    wait_until_ended(worker);
    assert!(socket.exists(), "a killed bridge cannot clean up");

    std::fs::remove_file(site.path("pid")).unwrap();
    let child = bridge(&["run", "--log", "info"], &site).spawn().unwrap();
    let successor = site.number("pid");
    assert_ne!(successor, worker);
    wait_for("the listening socket", || UnixStream::connect(&socket).ok());
    signal(&child, Signal::SIGTERM);
    signal(&child, Signal::SIGINT);
    let (_, log) = finish(child);
    assert!(
        log.contains("removed a socket that a bridge left behind"),
        "{log}"
    );
    wait_until_ended(successor);
    assert!(!socket.exists());
}
