use super::*;
use mycelium_bridge::status::{Bucket, Control, Endpoint, Plane, Totals, Uplink, Worker};

use super::super::paint;

/// As in a pipe.
fn shown(status: &Status, earlier: Option<&Status>) -> String {
    paint::text(&render(status, earlier, None), false)
}

fn moved(frames: u64) -> Delivered {
    Delivered {
        frames,
        bytes: frames * 64,
    }
}

/// A bridge with a worker that has crashed once and a client that does not keep up.
fn some_status() -> Status {
    let link = Link {
        name: "momentum".into(),
        number: 1,
        pid: Some(4711),
        transport: Some("shm".into()),
        fallback: None,
        degraded: Vec::new(),
        epoch: 2,
        last_error: None,
        published: moved(1_234_567),
        delivered: moved(1_234_567),
        dropped: 0,
        unrouted: 0,
        missed: 0,
        waiting: 0,
        times_full: 12,
        wakeups: 40_321,
        socket_calls: 0,
        ring_in: Level {
            used: 0,
            capacity: 1 << 20,
        },
        ring_out: Level {
            used: 300_000,
            capacity: 1 << 20,
        },
        residence: Residence {
            samples: 4,
            sum_us: 1_234,
            p50_us: Some(20),
            p99_us: Some(1_000),
            waiting_us: Some(70),
            buckets: vec![Bucket {
                up_to_us: Some(20),
                samples: 4,
            }],
        },
        topics: vec![Topic {
            topic_id: 1001,
            message: "Quote".into(),
            published: moved(0),
            delivered: moved(1_234_567),
            missed: Missed::default(),
        }],
        contract_differences: Vec::new(),
    };
    let client = Link {
        name: "viewer".into(),
        number: 2,
        pid: None,
        transport: Some("socket".into()),
        fallback: Some("REMOTE: the peer is on another host".into()),
        last_error: Some("connection reset\u{7}".into()),
        published: moved(0),
        delivered: moved(1000),
        missed: 77,
        waiting: 5,
        ring_out: Level {
            used: 1 << 16,
            capacity: 1 << 16,
        },
        residence: Residence {
            samples: 1,
            waiting_us: Some(12_300_000),
            ..Residence::default()
        },
        topics: vec![Topic {
            topic_id: 1001,
            message: "Quote".into(),
            published: moved(0),
            delivered: moved(1000),
            missed: Missed {
                drop_oldest: 70,
                conflated: 7,
                ..Missed::default()
            },
        }],
        ..link.clone()
    };
    Status {
        version: "1.2.3".into(),
        pid: 4700,
        config: "/etc/mycelium/bridge.toml".into(),
        started_ms: 1_000_000,
        now_ms: 1_000_000 + 3_725_000,
        metrics: Some("127.0.0.1:9464".into()),
        workers: vec![
            Worker {
                name: "momentum".into(),
                phase: "up".into(),
                pid: Some(4711),
                incarnation: 2,
                restarts: 1,
                hangs: 0,
                up_since_ms: Some(1_000_000 + 3_665_000),
                last_end: Some("signal: 9 (SIGKILL)".into()),
                last_words: Some("KeyError: 'EURUSD'".into()),
            },
            Worker {
                name: "risk".into(),
                phase: "waiting".into(),
                pid: None,
                incarnation: 0,
                restarts: 0,
                hangs: 0,
                up_since_ms: None,
                last_end: None,
                last_words: None,
            },
        ],
        links: vec![link, client],
        uplinks: vec![Uplink {
            name: "exchange".into(),
            address: "tcp:10.0.0.7:7700".into(),
            state: "disconnected".into(),
            connections: 3,
            imported: 12_000,
            exported: 40,
            dropped: 0,
            last_error: Some("connection refused".into()),
        }],
        endpoints: vec![Endpoint {
            address: "unix:/run/mycelium/bridge.sock".into(),
            token: false,
            handshakes: 1,
            handshakes_max: 64,
        }],
        plane: Some(Plane {
            parks: 4_321,
            wakeups: 4_000,
            rounds: 100_000,
            frames: 1_234_567,
            busy_us: 186_250_000,
            answer_us: 85,
        }),
        plane_silent_ms: None,
        control: Control {
            tasks: 9,
            queued: 0,
            busy_us: 1_000_000,
            late_us: 4,
            events: 17,
            longest_event_us: 1_800,
            threads: 5,
        },
        totals: Totals {
            published: moved(1_234_567),
            delivered: moved(1_235_567),
            missed: 77,
            refused_busy: 3,
            ..Totals::default()
        },
    }
}

/// `UPDATE_GOLDEN=1` writes the file anew.
fn assert_golden(name: &str, actual: &str) {
    let path = format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(
        actual, expected,
        "{path} differs; look at it, and set UPDATE_GOLDEN=1 if it is right"
    );
}

#[test]
fn a_status_is_shown_in_tables() {
    assert_golden("status.txt", &shown(&some_status(), None));
}

#[test]
fn with_an_earlier_status_there_are_rates() {
    let earlier = some_status();
    let mut status = earlier.clone();
    status.now_ms += 2000;
    status.links[0].delivered.frames += 5001;
    status.links[0].topics[0].delivered.frames += 5001;
    // This one was closed and opened again meanwhile, so it counts from 0.
    status.links[1].delivered.frames = 10;
    assert_golden("top.txt", &shown(&status, Some(&earlier)));
}

#[test]
fn another_process_has_no_rates() {
    let earlier = some_status();
    let status = Status {
        pid: 1,
        now_ms: earlier.now_ms + 1000,
        ..earlier.clone()
    };
    assert!(!shown(&status, Some(&earlier)).contains("/s)"));
}

#[test]
fn a_data_plane_that_does_not_answer_is_said_so() {
    let status = Status {
        plane: None,
        plane_silent_ms: Some(2_500),
        ..some_status()
    };
    let text = shown(&status, None);
    assert!(text.contains("data plane   does not answer, for 2.5 s at least"));
}

#[test]
fn a_bar_shows_anything_that_is_there() {
    let bar = |used, width| {
        let level = Level {
            used,
            capacity: 1000,
        };
        let mut table = Table::new(&[left("bar")]);
        table.row(vec![bar(level, width)]);
        table.lines(None).0[1].text(true)
    };
    assert_eq!(bar(0, 10), "  \x1b[2m··········   0%\x1b[0m");
    assert_eq!(bar(1, 10), "  \x1b[32m█·········   1%\x1b[0m");
    assert_eq!(bar(500, 4), "  \x1b[33m██··  50%\x1b[0m");
    assert_eq!(bar(2000, 10), "  \x1b[1;31m██████████ 100%\x1b[0m");
}

#[test]
fn every_window_is_kept_to_unless_it_is_very_narrow() {
    let mut status = some_status();
    status.links[0].name = "a-strategy-with-quite-a-long-name-for-once".into();
    status.workers[0].name = status.links[0].name.clone();
    status.links[0].last_error = Some("a reason that takes several words ".repeat(6));
    for window in [80, 100, 120, 160, 200] {
        for line in render(&status, None, Some(window)) {
            assert_eq!(line, line.cut(window), "window={window}");
        }
    }
    let text = paint::text(&render(&status, None, Some(100)), false);
    assert!(
        text.contains("links  (in a wider window: pid, wakeups"),
        "{text}"
    );
    assert!(text.contains('…'), "{text}");
}

#[test]
fn what_is_wrong_stands_out() {
    let mut status = some_status();
    status.workers[1].phase = "gave up".into();
    let text = paint::text(&render(&status, None, None), true);
    for part in [
        "\x1b[32mup\x1b[0m",
        "\x1b[1;31mgave up\x1b[0m",
        "\x1b[33mmissed 77\x1b[0m",
        "\x1b[1;31mdisconnected\x1b[0m",
        "\x1b[1;31mnothing acknowledged for 12.3 s, and frames are there\x1b[0m",
        "\x1b[33m* fallback: ",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}
