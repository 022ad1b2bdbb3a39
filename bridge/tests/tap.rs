//! The messages of a topic as they come.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use common::running::{Running, connect, program, run, text};
use common::{Site, WATCHDOG, wait_for};
use mycelium_messages::bandit::Quote;
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_transport::channel::Channel;

const WORKER: &str =
    "[[worker]]\nname = 'sleeper'\ncommand = ['sh', '-c', 'sleep 1000']\nrestart = 'never'\n";

/// Publishes quotes at a leisurely pace until `is_over` says so.
fn publish_until(publisher: &mut Channel, mut is_over: impl FnMut() -> bool) {
    let mut sequence = 0;
    wait_for("the end of what quotes are published for", || {
        sequence += 1;
        let mut quote = Quote {
            sequence,
            bid: 1.5,
            ..Quote::default()
        };
        quote.set_symbol("EUR/USD").expect("a symbol");
        publisher.publish(&quote, Some(WATCHDOG)).expect("publish");
        is_over().then_some(())
    });
}

#[test]
fn tap_prints_decoded_messages() {
    let site = Site::new("listen = 'bridge.sock'", "");
    let bridge = Running::start(&site, "bridge.sock.control");
    let mut publisher = connect(&site, "feed");
    for form in [Some("--json"), None] {
        let mut tap = program(&["tap", "Quote", "--count", "3"]);
        tap.args(form).arg("--config");
        let mut child = tap.arg(site.config()).spawn().expect("tap starts");
        publish_until(&mut publisher, || child.try_wait().unwrap().is_some());
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), text(&output.stderr)),
            (Some(0), String::new())
        );
        let shown = text(&output.stdout);
        let lines: Vec<_> = shown
            .lines()
            .filter(|line| !line.starts_with("-- "))
            .collect();
        assert_eq!(lines.len(), 3, "{shown}");
        if form.is_some() {
            let line: serde_json::Value = serde_json::from_str(lines[0]).expect("JSON");
            assert_eq!(
                (&line["message"], &line["bytes"]),
                (&"Quote".into(), &size_of::<Quote>().into())
            );
            assert_eq!(line["value"]["symbol"], "EUR/USD");
            assert_eq!(line["value"]["bid"], 1.5);
        } else {
            assert!(
                lines[0].starts_with("Quote ") && lines[0].contains("symbol=\"EUR/USD\""),
                "{shown}"
            );
            assert!(lines[0].contains(" bid=1.5"), "{shown}");
        }
        wait_for("the link of the tap to be gone", || {
            (bridge.status().links.len() == 1).then_some(())
        });
    }
}

#[test]
fn a_tap_that_nobody_reads_holds_nobody_up() {
    let site = Site::new("listen = 'bridge.sock'", "");
    let bridge = Running::start(&site, "bridge.sock.control");
    let mut publisher = connect(&site, "feed");
    let mut idle = UnixStream::connect(&bridge.control).unwrap();
    idle.write_all(b"{\"tap\":\"Quote\"}\n").unwrap();
    wait_for("the link of the tap", || {
        (bridge.status().links.len() == 2).then_some(())
    });
    // The contract says block, and this is many times what socket, ring and stage take together.
    for _ in 0..50_000 {
        publisher
            .publish(&Quote::default(), Some(WATCHDOG))
            .expect("publish");
    }
    let feed = wait_for("all quotes to be taken", || {
        let status = bridge.status();
        let feed = status.links.into_iter().find(|link| link.name == "feed")?;
        (feed.published.frames == 50_000).then_some(feed)
    });
    assert_eq!((feed.dropped, feed.times_full), (0, 0));
    // What was taken is there.
    let mut lines = BufReader::new(idle)
        .lines()
        .map(|line| line.expect("a line"));
    assert_eq!(lines.next().as_deref(), Some("{\"tap\":\"Quote\"}"));
    assert!(lines.next().is_some_and(|line| line.starts_with("Quote ")));
    // A tap does not hold up the end of the bridge either.
    publisher.close().expect("goodbye");
    assert_eq!(bridge.stop(), Some(0));
}

#[test]
fn tap_of_an_unknown_message_names_those_that_there_are() {
    let site = Site::new("control = 'look'", WORKER);
    let _bridge = Running::start(&site, "look");
    let (code, _, errors) = run(program(&["tap", "Quotes", "--config"]).arg(site.config()));
    assert_eq!(code, Some(2));
    let expected = "error: no such message: name=Quotes, known=Quote,";
    assert!(errors.starts_with(expected), "{errors}");
    assert!(
        errors.ends_with("\nhint: the nearest name is Quote\n"),
        "{errors}"
    );
}

#[test]
fn tap_says_on_a_terminal_that_it_waits() {
    let site = Site::new("control = 'look'", WORKER);
    let _bridge = Running::start(&site, "look");
    let pty = openpty(None, None).expect("a terminal");
    let child = program(&["tap", "Quote", "--config"])
        .arg(site.config())
        .stderr(Stdio::from(pty.slave))
        .spawn()
        .expect("tap starts");
    let mut line = String::new();
    let mut terminal = BufReader::new(File::from(pty.master));
    terminal.read_line(&mut line).expect("what tap says");
    assert_eq!(line.trim_end(), "waiting for messages: Quote; Ctrl-C ends");
    // Not SIGINT, which is ignored by whatever a shell has started in the background.
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("tap is there");
    let output = child.wait_with_output().expect("its end");
    assert_eq!(text(&output.stdout), "");
}
