//! Looking at a running bridge: the control socket, `status`, and the metrics.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;

use common::metrics::{http, samples};
use common::running::{Running, connect, exchange, program, run, text};
use common::{Site, WATCHDOG, wait_for};
use mycelium_bridge::status::Status;
use mycelium_messages::bandit::Quote;
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::tcgetattr;
use nix::unistd::Pid;

const WORKER: &str =
    "[[worker]]\nname = 'sleeper'\ncommand = ['sh', '-c', 'sleep 1000']\nrestart = 'never'\n";
const METRICS: &str = "[metrics]\nlisten = '127.0.0.1:0'\n";

#[test]
fn status_counts_what_moved_by_link_and_topic() {
    let site = Site::new("listen = 'bridge.sock'", WORKER);
    let bridge = Running::start(&site, "bridge.sock.control");
    let _channels = exchange(&site, 100);
    let status = bridge.status();
    let quote_len = u64::try_from(size_of::<Quote>()).unwrap();
    let link = |name: &str| status.links.iter().find(|link| link.name == name).unwrap();
    let (feed, reader) = (link("feed"), link("reader"));
    assert_eq!(
        (feed.published.frames, feed.published.bytes),
        (100, 100 * quote_len)
    );
    assert_eq!(
        (reader.delivered.frames, reader.delivered.bytes),
        (100, 100 * quote_len)
    );
    assert_eq!((feed.delivered.frames, reader.published.frames), (0, 0));
    assert_eq!((feed.topics.len(), reader.topics.len()), (1, 1));
    let (published, delivered) = (&feed.topics[0], &reader.topics[0]);
    assert_eq!((&*published.message, published.topic_id), ("Quote", 1001));
    assert_eq!(
        (published.published, delivered.delivered),
        (feed.published, reader.delivered)
    );
    assert_eq!(status.totals.published, feed.published);
    assert_eq!(status.totals.delivered, reader.delivered);
    assert_eq!(reader.ring_out.capacity, 1 << 20);
    assert_eq!(feed.pid, Some(std::process::id()));
    assert!(feed.transport.is_some() && status.plane.is_some());
    assert_eq!(status.pid, bridge.child.id());
    let worker = &status.workers[0];
    assert_eq!(
        (&*worker.name, &*worker.phase, worker.incarnation),
        ("sleeper", "starting", 1)
    );
    assert!(worker.pid.is_some() && worker.up_since_ms.is_none());
    let address = format!("unix:{}", site.path("bridge.sock").display());
    assert_eq!(status.endpoints[0].address, address);
}

#[test]
fn what_waits_is_seen_in_the_ring_and_counted_when_dropped() {
    let site = Site::new(
        "listen = 'bridge.sock'\nring_capacity = '4KiB'",
        "[delivery]\nQuote = 'drop_oldest'\n",
    );
    let bridge = Running::start(&site, "bridge.sock.control");
    let (mut publisher, mut lazy) = (connect(&site, "feed"), connect(&site, "lazy"));
    lazy.subscribe::<Quote>().expect("subscribe");
    for _ in 0..500 {
        publisher
            .publish(&Quote::default(), Some(WATCHDOG))
            .expect("publish");
    }
    let lazy = wait_for("500 quotes to be delivered, waiting or missed", || {
        let status = bridge.status();
        let lazy = status.links.into_iter().find(|link| link.name == "lazy")?;
        (lazy.delivered.frames + lazy.waiting + lazy.missed == 500).then_some(lazy)
    });
    assert!(lazy.missed > 0 && lazy.waiting > 0, "{lazy:?}");
    assert_eq!(lazy.topics[0].missed.drop_oldest, lazy.missed);
    assert_eq!(lazy.topics[0].delivered, lazy.delivered);
    assert!(
        lazy.ring_out.used > 2048 && lazy.ring_out.used <= lazy.ring_out.capacity,
        "{lazy:?}"
    );
}

#[test]
fn the_program_prints_tables_or_json() {
    let site = Site::new("listen = 'bridge.sock'", WORKER);
    let _bridge = Running::start(&site, "bridge.sock.control");
    let _channels = exchange(&site, 3);
    let (code, tables, errors) = run(program(&["status", "--config"]).arg(site.config()));
    assert_eq!((code, &*errors), (Some(0), ""));
    for part in [
        "workers",
        "  sleeper",
        "links",
        "  feed",
        "topics",
        "Quote",
        "endpoints",
    ] {
        assert!(tables.contains(part), "{part} in {tables}");
    }
    let control = site.path("bridge.sock.control");
    let (code, json, _) = run(program(&["status", "--json", "--control"]).arg(control));
    assert_eq!(code, Some(0));
    let status: Status = serde_json::from_str(&json).expect("a status");
    assert_eq!(status.totals.published.frames, 3);
}

#[test]
fn without_a_bridge_the_exit_code_says_so() {
    let site = Site::new("listen = 'bridge.sock'", "");
    let (code, out, errors) = run(program(&["status", "--config"]).arg(site.config()));
    assert_eq!((code, &*out), (Some(3), ""));
    let path = site.path("bridge.sock.control");
    let expected = format!("error: no bridge answers: control={}: ", path.display());
    assert!(errors.starts_with(&expected), "{errors}");
    assert!(
        errors.contains("\nhint: start it with mycelium-bridge run"),
        "{errors}"
    );
    let (code, _, errors) = run(program(&["status"]).env("MYCELIUM_CONFIG", "/nowhere/b.toml"));
    assert_eq!(code, Some(2));
    let expected = "error: /nowhere/b.toml:1:1: cannot read the configuration: ";
    assert!(errors.starts_with(expected), "{errors}");
}

#[test]
fn what_a_worker_said_before_it_failed_is_shown_with_how_it_ended() {
    let worker = |name: &str, script: &str| {
        format!(
            "[[worker]]\nname = '{name}'\ncommand = ['sh', '-c', '{script}']\nrestart = 'never'\n"
        )
    };
    let bad = worker(
        "bad",
        "echo why >&2; printf \"no data\\n \\n\" >&2; echo out; exit 3",
    );
    let well = worker("well", "echo bye >&2");
    let site = Site::new("listen = 'bridge.sock'", &(bad + &well));
    let bridge = Running::start(&site, "bridge.sock.control");
    let [bad, well] = wait_for("both ends", || {
        let workers = bridge.status().workers;
        let all_ended = workers.iter().all(|worker| worker.last_end.is_some());
        all_ended.then(|| <[_; 2]>::try_from(workers).expect("two workers"))
    });
    let shown = |end: &str, words: Option<&str>| (Some(end.to_owned()), words.map(str::to_owned));
    assert_eq!(
        (bad.last_end, bad.last_words),
        shown("exit status: 3", Some("no data"))
    );
    assert_eq!(
        (well.last_end, well.last_words),
        shown("exit status: 0", None)
    );
    let (_, tables, _) = run(program(&["status", "--config"]).arg(site.config()));
    assert!(tables.contains("\n      last words: no data\n"), "{tables}");
}

/// Who looks may be somebody in a shell without the secrets of the service.
#[test]
fn a_bridge_is_found_without_what_its_configuration_names() {
    let listen = "[[listen]]\naddress = 'unix:second.sock'\ntoken_file = 'secret'\n";
    let site = Site::new("listen = 'bridge.sock'", listen);
    std::fs::write(site.path("secret"), "a-token-of-legal-length").expect("write");
    let _bridge = Running::start(&site, "bridge.sock.control");
    std::fs::remove_file(site.path("secret")).expect("remove");
    let ask = |word: &str| run(program(&[word, "--config"]).arg(site.config()));
    assert_eq!(ask("check").0, Some(2));
    let (code, shown, errors) = ask("status");
    assert_eq!((code, &*errors), (Some(0), ""));
    assert!(shown.contains("second.sock"), "{shown}");
    // What is not written as it has to be is still said.
    let text = std::fs::read_to_string(site.config()).expect("text");
    std::fs::write(site.config(), text.replace("listen = ", "lisen = ")).expect("write");
    let (code, _, errors) = ask("status");
    assert_eq!(code, Some(2));
    assert!(errors.contains("did you mean 'listen'?"), "{errors}");
}

#[test]
fn the_control_socket_is_for_the_own_user_and_goes_with_the_bridge() {
    let site = Site::new("", WORKER);
    let bridge = Running::start(&site, "mycelium-state/control");
    let mode = |path: &PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let (control, directory) = (bridge.control.clone(), site.path("mycelium-state"));
    assert_eq!((mode(&control), mode(&directory)), (0o600, 0o700));
    bridge.stop();
    assert!(!control.exists() && !directory.exists());
    // What lies there already is left alone.
    std::fs::create_dir(&directory).unwrap();
    let bridge = Running::start(&site, "mycelium-state/control");
    bridge.stop();
    assert!(!control.exists() && directory.exists());
}

#[test]
fn a_control_socket_that_cannot_be_had_stops_only_a_bridge_that_asks_for_it() {
    let site = Site::new("listen = 'bridge.sock'", "");
    std::fs::write(site.path("bridge.sock.control"), "no socket").unwrap();
    let mut child = program(&["run", "--config"])
        .arg(site.config())
        .spawn()
        .unwrap();
    wait_for("the listening socket", || {
        UnixStream::connect(site.path("bridge.sock")).ok()
    });
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let mut log = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut log)
        .unwrap();
    assert!(
        log.contains("no control socket") && log.contains("kind=file"),
        "{log}"
    );

    let site = Site::new("control = 'taken'", WORKER);
    std::fs::write(site.path("taken"), "no socket").unwrap();
    let (code, _, errors) = run(program(&["run", "--config"]).arg(site.config()));
    assert_eq!(code, Some(1));
    assert!(
        errors.contains("taken by something that is no socket"),
        "{errors}"
    );
}

#[test]
fn a_wrong_request_gets_an_answer_and_hurts_nobody() {
    let site = Site::new("control = 'look'", WORKER);
    let bridge = Running::start(&site, "look");
    let mut stream = BufReader::new(UnixStream::connect(&bridge.control).unwrap());
    stream.get_ref().set_read_timeout(Some(WATCHDOG)).unwrap();
    let mut ask = |request: &[u8]| {
        stream.get_mut().write_all(request).unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line
    };
    for request in ["\n", "{}\n", "{\"get\":\"everything\"}\n", "\u{0}\u{1}\n"] {
        let answer = ask(request.as_bytes());
        assert!(
            answer.starts_with("{\"error\":\"request is not understood: "),
            "{answer}"
        );
    }
    // The connection is still good.
    assert!(ask(b"{\"get\":\"status\"}\n").contains("\"sleeper\""));
    let answer = ask(&[b'x'; 1024]);
    assert!(
        answer.contains("request is too long") && answer.contains("max=1024"),
        "{answer}"
    );
    assert_eq!(ask(b""), "", "the connection is closed");
    assert_eq!(bridge.status().workers.len(), 1);
}

#[test]
fn metrics_are_in_the_format_of_prometheus_and_say_what_status_says() {
    let site = Site::new("listen = 'bridge.sock'", &(METRICS.to_owned() + WORKER));
    let bridge = Running::start(&site, "bridge.sock.control");
    let _channels = exchange(&site, 42);
    let address = bridge.status().metrics.expect("metrics are served");
    let (line, headers, body) = http(&address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(line, "HTTP/1.1 200 OK");
    assert!(
        headers.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"),
        "{headers}"
    );
    assert!(
        headers.contains(&format!("Content-Length: {}", body.len())),
        "{headers}"
    );
    let samples = samples(&body);
    let value = |sample: &str| samples.get(sample).copied();
    let frames = "mycelium_link_frames_total{link=\"feed\",topic=\"Quote\",direction=\"in\"}";
    assert_eq!(value(frames), Some(42.0), "{body}");
    let bytes =
        "mycelium_link_payload_bytes_total{link=\"reader\",topic=\"Quote\",direction=\"out\"}";
    assert_eq!(value(bytes), Some((42 * size_of::<Quote>()) as f64));
    assert_eq!(
        value("mycelium_worker_restarts_total{worker=\"sleeper\"}"),
        Some(0.0)
    );
    assert_eq!(
        value("mycelium_worker_phase{worker=\"sleeper\",phase=\"starting\"}"),
        Some(1.0)
    );
    let capacity = "mycelium_link_ring_capacity_bytes{link=\"feed\",direction=\"out\"}";
    assert_eq!(value(capacity), Some(1_048_576.0));
    assert_eq!(value("mycelium_data_plane_answers"), Some(1.0));
    assert!(
        samples
            .keys()
            .any(|it| it.starts_with("mycelium_link_fallback{link=\"feed\""))
    );
}

#[test]
fn anything_but_a_request_for_metrics_is_refused() {
    let site = Site::new("control = 'look'", &(METRICS.to_owned() + WORKER));
    let bridge = Running::start(&site, "look");
    let address = bridge.status().metrics.expect("metrics are served");
    // One that says nothing takes a place and holds nobody up.
    let _silent = TcpStream::connect(&address).unwrap();
    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
        (
            "POST /metrics HTTP/1.1\r\n\r\n",
            "HTTP/1.1 405 Method Not Allowed",
        ),
        ("nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request"),
    ] {
        let (line, headers, _) = http(&address, request);
        assert_eq!(line, expected);
        assert!(headers.contains("Connection: close"));
    }
    let endless = format!("GET /metrics HTTP/1.1\r\nX: {}", "y".repeat(8192));
    let (line, ..) = http(&address, &endless[..8192]);
    assert!(line.starts_with("HTTP/1.1 431 "), "{line}");
    let (line, _, body) = http(&address, "HEAD /metrics HTTP/1.1\r\n\r\n");
    assert_eq!((&*line, &*body), ("HTTP/1.1 200 OK", ""));
}

#[test]
fn what_is_wrong_with_the_keys_is_said_by_check() {
    for (table, message) in [
        (
            "[metrics]\nlisten = '0.0.0.0:9464'\n",
            "[metrics]: other hosts could read names and counts of everything: host=0.0.0.0",
        ),
        (
            "[metrics]\nlisten = '9464'\n",
            "[metrics]: listen is no host and port: value='9464'",
        ),
        ("[metrics]\n", "[metrics]: missing key 'listen'"),
        (
            "[metrics]\nport = 9464\nlisten = '127.0.0.1:1'\n",
            "[metrics]: unknown key 'port'",
        ),
    ] {
        let site = Site::new("", table);
        let (code, _, errors) = run(program(&["check", "--config"]).arg(site.config()));
        assert_eq!(code, Some(2), "{table}");
        assert!(errors.contains(message), "{errors}");
    }
    let open = "[metrics]\nlisten = '0.0.0.0:9464'\nallow_remote = true\n";
    let site = Site::new("", open);
    assert_eq!(
        run(program(&["check", "--config"]).arg(site.config())).0,
        Some(0)
    );
    let site = Site::new("listen = 'a.sock'\ncontrol = 'a.sock'", "");
    let (code, _, errors) = run(program(&["check", "--config"]).arg(site.config()));
    assert_eq!(code, Some(2));
    assert!(
        errors.contains("control and listen are the same path"),
        "{errors}"
    );
}

#[test]
fn top_prints_once_with_rates_where_there_is_no_terminal() {
    let site = Site::new("listen = 'bridge.sock'", WORKER);
    let _bridge = Running::start(&site, "bridge.sock.control");
    let _channels = exchange(&site, 7);
    let (code, out, errors) = run(program(&["top", "--config"]).arg(site.config()));
    assert_eq!((code, &*errors), (Some(0), ""));
    assert!(out.contains("7 (0/s)") && !out.contains('\x1b'), "{out}");
}

/// What comes up to and with the first read that holds `part`.
fn read_until(terminal: &mut File, part: &str) -> String {
    let mut shown = Vec::new();
    let mut chunk = [0; 4096];
    while !String::from_utf8_lossy(&shown).contains(part) {
        let count = terminal.read(&mut chunk).expect("what top shows");
        assert!(count > 0, "the terminal is closed");
        shown.extend_from_slice(&chunk[..count]);
    }
    text(&shown)
}

#[test]
fn top_on_a_terminal_ends_with_a_key_or_a_signal_and_restores_everything() {
    let site = Site::new("control = 'look'", WORKER);
    let _bridge = Running::start(&site, "look");
    for key in [Some(b"q"), Some(b"\x03"), None::<&[u8; 1]>] {
        let size = Winsize {
            ws_row: 40,
            ws_col: 120,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pty = openpty(Some(&size), None).expect("a terminal");
        let before = tcgetattr(&pty.slave).expect("its settings");
        let side = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
        let mut child = program(&["top", "--config"])
            .arg(site.config())
            .stdin(side())
            .stdout(side())
            .spawn()
            .expect("top starts");
        let mut master = File::from(pty.master);
        let shown = read_until(&mut master, "q ends");
        assert!(
            shown.contains("sleeper") && shown.starts_with("\x1b[?1049h"),
            "{shown:?}"
        );
        // A second picture comes by itself.
        read_until(&mut master, "q ends");
        match key {
            Some(key) => master.write_all(key).expect("a key"),
            None => kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap(),
        }
        read_until(&mut master, "\x1b[?1049l");
        assert_eq!(child.wait().expect("its status").code(), Some(0), "{key:?}");
        assert_eq!(
            tcgetattr(&pty.slave).unwrap().local_flags,
            before.local_flags
        );
    }
}
