//! The control loop with real processes and a link layer that only records what it is told.

mod common;

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use common::links::{HeldSockets, Told, run, run_config};
use common::{Site, WATCHDOG, has_ended, runtime, wait_for, wait_until_ended};
use mycelium_bridge::config::Config;
use mycelium_bridge::event_loop::{ControlOptions, ControlThread};
use mycelium_bridge::supervisor::spawn_worker;
use mycelium_bridge::worker::Outcome;
use nix::sys::signal::Signal;

/// A worker that runs a shell script in the directory of the site.
fn shell(script: &str, keys: &str) -> String {
    format!("[[worker]]\nname = 'worker'\ncommand = ['sh', '-c', '''{script}''']\n{keys}\n")
}

fn statuses(told: &[Told]) -> Vec<&str> {
    told.iter()
        .filter_map(|told| match told {
            Told::Exited { status, .. } => Some(status.as_str()),
            _ => None,
        })
        .collect()
}

#[test]
fn a_clean_exit_is_seen_and_nothing_is_restarted() {
    let site = Site::new("", &shell("exit 0", ""));
    let (told, summary) = run(&site, |_, _| ());
    assert!(
        matches!(told[0], Told::Started { incarnation: 1, .. }),
        "{told:?}"
    );
    assert_eq!(
        told[1],
        Told::Exited {
            status: "exit status: 0".into(),
            restart_after: None
        }
    );
    assert_eq!(told[2], Told::Ended(Outcome::Completed { success: true }));
    assert_eq!(summary.exit_code(), 0, "{summary}");
    assert_eq!(
        summary.reason,
        "every worker has ended and nobody can connect"
    );
}

#[test]
fn a_failing_worker_is_restarted_with_back_off_until_it_succeeds() {
    let script = "echo run >> runs; [ $(wc -l < runs) -ge 4 ]";
    let site = Site::new(
        "",
        &shell(
            script,
            "restart_backoff_ms = 8\nrestart_backoff_max_ms = 16",
        ),
    );
    let (told, summary) = run(&site, |_, _| ());
    assert_eq!(
        statuses(&told),
        [
            "exit status: 1",
            "exit status: 1",
            "exit status: 1",
            "exit status: 0"
        ]
    );
    let delays: Vec<_> = told
        .iter()
        .filter_map(|told| match told {
            Told::Exited { restart_after, .. } => *restart_after,
            _ => None,
        })
        .collect();
    for (delay, full) in delays.iter().zip([8, 16, 16].map(Duration::from_millis)) {
        assert!(*delay <= full && *delay >= full / 2, "{delays:?}");
    }
    let last = told
        .iter()
        .rfind(|told| matches!(told, Told::Started { .. }));
    assert!(
        matches!(last, Some(Told::Started { incarnation: 4, .. })),
        "{told:?}"
    );
    assert_eq!(summary.exit_code(), 0, "{summary}");
}

#[test]
fn a_policy_says_which_ends_lead_to_a_restart() {
    for (policy, code, restarts) in [
        ("always", 0, true),
        ("always", 3, true),
        ("on-failure", 0, false),
        ("on-failure", 3, true),
        ("never", 0, false),
        ("never", 3, false),
    ] {
        let keys = format!("restart = '{policy}'\nrestart_backoff_ms = 1");
        let site = Site::new("", &shell(&format!("exit {code}"), &keys));
        let (told, _) = run(&site, |told, control| {
            if matches!(told, Told::Started { incarnation: 2, .. }) {
                control.shut_down("that is enough");
            }
        });
        let second = told
            .iter()
            .any(|it| matches!(it, Told::Started { incarnation: 2, .. }));
        assert_eq!(second, restarts, "restart={policy} code={code}: {told:?}");
    }
}

#[test]
fn a_worker_starts_in_its_directory() {
    let site = Site::new("", &shell("pwd -P > ../place", "working_dir = 'inside'"));
    std::fs::create_dir(site.path("inside")).unwrap();
    let (told, _) = run(&site, |_, _| ());
    assert_eq!(statuses(&told), ["exit status: 0"]);
    let place = std::fs::read_to_string(site.path("place")).unwrap();
    let expected = site.path("inside").canonicalize().unwrap();
    assert_eq!(Path::new(place.trim()), expected);
}

#[test]
fn a_crash_loop_stops_the_worker_and_shows_in_the_exit_code() {
    let site = Site::new(
        "",
        &shell("kill -KILL $$", "restart_backoff_ms = 1\nrestart_limit = 3"),
    );
    let (told, summary) = run(&site, |_, _| ());
    assert_eq!(statuses(&told), ["signal: 9 (SIGKILL)"; 3]);
    let outcome = Outcome::CrashLoop {
        crashes: 3,
        window: Duration::from_secs(60),
    };
    assert_eq!(told[told.len() - 2], Told::Ended(outcome));
    assert_eq!(
        (summary.exit_code(), summary.failed),
        (1, vec!["worker".to_owned()])
    );
}

#[test]
fn what_a_worker_has_started_ends_with_it() {
    let site = Site::new(
        "",
        &shell(
            "sleep 1000 & echo $! > grandchild; exit 1",
            "restart = 'never'",
        ),
    );
    let (told, _) = run(&site, |_, _| ());
    assert_eq!(statuses(&told), ["exit status: 1"]);
    wait_until_ended(site.number("grandchild"));
}

#[test]
fn dropping_the_control_thread_ends_its_workers() {
    let site = Site::new(
        "shutdown_timeout_ms = 1",
        &shell("echo $$ > pid; exec sleep 1000", ""),
    );
    let config = Config::load(site.config()).unwrap();
    let recorder = HeldSockets::default();
    let thread = ControlThread::spawn(&config, recorder, ControlOptions::default()).unwrap();
    let worker = site.number("pid");
    assert!(!has_ended(worker));
    drop(thread);
    wait_until_ended(worker);
}

#[test]
fn a_control_thread_that_cannot_begin_says_why() {
    let site = Site::new("listen = 'bridge.sock'", "");
    std::fs::write(site.path("bridge.sock"), "data").unwrap();
    let config = Config::load(site.config()).unwrap();
    let options = ControlOptions::default();
    let error = ControlThread::spawn(&config, HeldSockets::default(), options).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("listen path is taken by something that is no socket"),
        "{error}"
    );
}

#[test]
fn the_control_thread_returns_the_summary() {
    let site = Site::new("", "");
    let config = Config::load(site.config()).unwrap();
    let thread =
        ControlThread::spawn(&config, HeldSockets::default(), ControlOptions::default()).unwrap();
    thread.handle().shut_down("the host says so");
    let summary = thread.join().unwrap();
    assert_eq!(
        (summary.reason.as_str(), summary.exit_code()),
        ("the host says so", 0)
    );
}

#[test]
fn a_condemned_worker_is_killed_with_its_group_and_restarted() {
    let script =
        "sleep 1000 & echo $! > grandchild.$(cat runs 2>/dev/null | wc -l); echo run >> runs; wait";
    let site = Site::new(
        "shutdown_timeout_ms = 1",
        &shell(script, "restart_backoff_ms = 1"),
    );
    let grandchild = site.path("grandchild.0");
    let (told, summary) = run(&site, move |told, control| {
        if let Told::Started { incarnation, .. } = *told {
            if incarnation == 1 {
                let (control, file) = (control.clone(), grandchild.clone());
                std::thread::spawn(move || {
                    wait_for("the grandchild", || written(&file));
                    control.condemn_worker(0, 7, "a report about another incarnation is ignored");
                    control.condemn_worker(0, 1, "ring violated");
                });
            } else {
                control.shut_down("the test is over");
            }
        }
    });
    assert_eq!(statuses(&told)[0], "signal: 9 (SIGKILL)");
    wait_until_ended(site.number("grandchild.0"));
    assert!(told.contains(&Told::AskedToEnd("the test is over".into())));
    assert_eq!((summary.workers, summary.workers_left), (1, 0), "{summary}");
}

fn written(path: &Path) -> Option<()> {
    std::fs::read_to_string(path)
        .is_ok_and(|text| text.ends_with('\n'))
        .then_some(())
}

#[test]
fn a_worker_inherits_its_connection_and_no_other_descriptor() {
    let script = r#"
import os, socket
fd = int(os.environ["MYCELIUM_FD"])
def is_open(n):
    try:
        os.fstat(n)
        return True
    except OSError:
        return False
extra = [n for n in map(int, os.listdir("/proc/self/fd")) if is_open(n) and n not in (0, 1, 2, fd)]
connection = socket.socket(fileno=fd)
connection.sendall(f"{os.environ['MYCELIUM_WORKER']} {extra} {os.getpgid(0) == os.getpid()} {os.environ['MODE']}".encode())
connection.shutdown(socket.SHUT_WR)
connection.recv(1)
"#;
    let site = Site::new(
        "",
        "[[worker]]\nname = 'momentum'\ncommand = ['python3', 'worker.py']\nenv = { MODE = 'fast' }\n",
    );
    std::fs::write(site.path("worker.py"), script).unwrap();
    let config = Config::load(site.config()).unwrap();
    let runtime = runtime();
    runtime.block_on(async {
        let mut spawned = spawn_worker(&config.workers[0]).unwrap();
        let said = tokio::task::spawn_blocking(move || {
            let mut said = String::new();
            spawned.socket.set_read_timeout(Some(WATCHDOG)).unwrap();
            spawned.socket.read_to_string(&mut said).unwrap();
            (said, spawned.socket)
        });
        let (said, socket) = said.await.unwrap();
        assert_eq!(said, "momentum [] True fast");
        // The hang-up is what the worker waits for: nobody else holds this end.
        drop(socket);
        let status = tokio::time::timeout(WATCHDOG, spawned.process.wait())
            .await
            .unwrap()
            .unwrap();
        assert!(status.success(), "{status}");
        assert!(
            !spawned.group.signal(Signal::SIGTERM),
            "a reaped process is never signalled"
        );
    });
}

#[test]
fn workers_that_end_when_asked_are_drained() {
    let script = "import os, socket; print('up', flush=True); socket.socket(fileno=int(os.environ['MYCELIUM_FD'])).recv(1)";
    let worker = |name: &str| {
        format!("[[worker]]\nname = '{name}'\ncommand = ['python3', '-c', \"{script}\"]\n")
    };
    let site = Site::new(
        "shutdown_timeout_ms = 60000",
        &(worker("one") + &worker("two")),
    );
    let mut started = 0;
    let (told, summary) = run(&site, move |told, control| {
        started += usize::from(matches!(told, Told::Started { .. }));
        if started == 2 {
            control.shut_down("enough");
            started = 0;
        }
    });
    assert_eq!(statuses(&told), ["exit status: 0"; 2]);
    assert_eq!(
        (summary.workers, summary.drained, summary.exit_code()),
        (2, 2, 0),
        "{summary}"
    );
}

#[test]
fn a_worker_that_ignores_everything_is_killed_in_the_end() {
    let script = "trap '' TERM; echo up > up; while :; do sleep 0.05; done";
    let site = Site::new(
        "shutdown_timeout_ms = 10",
        &shell(&script.replace("''", "\"\""), "restart = 'always'"),
    );
    let up = site.path("up");
    let (told, summary) = run(&site, move |told, control| {
        if matches!(told, Told::Started { .. }) {
            let (control, up) = (control.clone(), up.clone());
            std::thread::spawn(move || {
                wait_for("the worker", || written(&up));
                control.shut_down("enough");
            });
        }
    });
    assert_eq!(statuses(&told), ["signal: 9 (SIGKILL)"]);
    assert_eq!((summary.killed, summary.exit_code()), (1, 1), "{summary}");
    assert_eq!(told.last(), Some(&Told::Ended(Outcome::Stopped)));
}

#[test]
fn a_program_that_has_vanished_is_an_error_and_a_crash() {
    let keys = "restart_limit = 2\nrestart_backoff_ms = 1\n";
    let site = Site::new(
        "",
        &format!("[[worker]]\nname = 'gone'\ncommand = ['sh']\n{keys}"),
    );
    let mut config = Config::load(site.config()).unwrap();
    config.workers[0].program = site.path("vanished");
    let runtime = runtime();
    let error = runtime.block_on(async { spawn_worker(&config.workers[0]).unwrap_err() });
    let expected = format!(
        "cannot start worker: worker=gone, program={}",
        site.path("vanished").display()
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(
        error.to_string().contains("No such file or directory"),
        "{error}"
    );

    let (told, summary) = run_config(config, |_, _| ());
    assert!(
        matches!(told[0], Told::Ended(Outcome::CrashLoop { crashes: 2, .. })),
        "{told:?}"
    );
    assert_eq!(summary.failed, ["gone"]);
}

#[test]
fn clients_are_let_in_by_their_user() {
    let uid = nix::unistd::getuid().as_raw();
    for (allowed, expected) in [
        (uid, Told::Connected(uid)),
        (uid + 1, Told::Refused(String::new())),
    ] {
        let site = Site::new(
            &format!("listen = 'bridge.sock'\nallowed_uids = [{allowed}]"),
            "",
        );
        let socket = site.path("bridge.sock");
        let client = std::thread::spawn({
            let socket = socket.clone();
            move || wait_for("the listening socket", || UnixStream::connect(&socket).ok())
        });
        let (told, summary) = run(&site, |told, control| {
            if matches!(told, Told::Connected(_) | Told::Refused(_)) {
                control.shut_down("enough");
            }
        });
        drop(client.join().unwrap());
        match (&told[0], &expected) {
            (Told::Refused(reason), Told::Refused(_)) => {
                assert!(reason.contains(&format!("uid={uid}")), "{reason}")
            }
            (actual, expected) => assert_eq!(actual, expected),
        }
        assert_eq!(summary.exit_code(), 0, "{summary}");
        assert!(!socket.exists(), "the socket is removed at the end");
    }
}
