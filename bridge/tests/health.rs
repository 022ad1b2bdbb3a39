//! How long frames lie in rings, how both planes are, and which keys scripts can rely on.

mod common;

use std::collections::BTreeSet;

use common::metrics::{http, samples};
use common::running::{Running, exchange, program, run};
use common::{Site, WATCHDOG, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const WORKER: &str =
    "[[worker]]\nname = 'sleeper'\ncommand = ['sh', '-c', 'sleep 1000']\nrestart = 'never'\n";
const METRICS: &str = "[metrics]\nlisten = '127.0.0.1:0'\n";

#[test]
fn residence_and_the_health_of_both_planes_are_shown() {
    let site = Site::new("listen = 'bridge.sock'", METRICS);
    let bridge = Running::start(&site, "bridge.sock.control");
    let _channels = exchange(&site, 50);
    let status = wait_for("a sample", || {
        let status = bridge.status();
        let reader = status.links.iter().find(|link| link.name == "reader")?;
        (reader.residence.samples > 0).then_some(status)
    });
    let reader = status.links.iter().find(|link| link.name == "reader");
    let residence = &reader.expect("the link").residence;
    let in_buckets: u64 = residence.buckets.iter().map(|it| it.samples).sum();
    assert_eq!(residence.samples, in_buckets);
    assert!(residence.p50_us <= residence.p99_us && residence.p50_us.is_some());
    let plane = status.plane.expect("the data plane answers");
    assert_eq!((plane.frames, status.plane_silent_ms), (50, None));
    assert!((1..=50).contains(&plane.rounds), "{plane:?}");
    let uptime_us = (status.now_ms - status.started_ms + 60_000) * 1000;
    assert!(plane.busy_us < uptime_us && status.control.busy_us < uptime_us);
    let control = status.control;
    assert!(control.tasks > 0 && control.events > 0, "{control:?}");
    // The control loop, the data plane, and one for each blocking call.
    assert!(control.threads >= 2, "{control:?}");

    let address = status.metrics.expect("metrics are served");
    let (_, _, body) = http(&address, "GET /metrics HTTP/1.1\r\n\r\n");
    let samples = samples(&body);
    let value = |sample: &str| samples.get(sample).copied();
    let count = value("mycelium_link_residence_seconds_count{link=\"reader\"}");
    let all = "mycelium_link_residence_seconds_bucket{link=\"reader\",le=\"+Inf\"}";
    assert!(count >= Some(1.0) && value(all) == count, "{body}");
    let mut buckets: Vec<_> = samples
        .iter()
        .filter_map(|(name, count)| {
            let bound = name.split_once("{link=\"reader\",le=\"")?.1;
            let bound = bound.strip_suffix("\"}")?;
            Some((bound.parse::<f64>().expect("a bound"), *count))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert_eq!(
        (buckets.len(), buckets[0].0, buckets[21].0),
        (23, 1e-6, 10.0)
    );
    assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "cumulative");
    assert_eq!(value("mycelium_data_plane_frames_total"), Some(50.0));
    for present in [
        "mycelium_data_plane_busy_seconds_total",
        "mycelium_data_plane_answer_seconds",
        "mycelium_control_tasks",
        "mycelium_control_late_seconds",
        "mycelium_threads",
    ] {
        assert!(value(present).is_some(), "{present} in {body}");
    }
    assert_eq!(value("mycelium_data_plane_silent_seconds"), None);
}

/// Nobody can write to its rings, so the data plane sleeps until something happens.
#[test]
fn a_worker_that_has_not_attached_keeps_nobody_awake() {
    let site = Site::new("listen = 'bridge.sock'", WORKER);
    let bridge = Running::start(&site, "bridge.sock.control");
    let parks = || bridge.status().plane.expect("the data plane answers").parks;
    let before = wait_for("a sleep", || Some(parks()).filter(|&parks| parks > 0));
    std::thread::sleep(std::time::Duration::from_millis(500));
    // Bounded sleeps last a millisecond.
    let slept = parks() - before;
    if shm_transport::wakeup::membarrier_is_available() {
        assert!(slept < 50, "{slept} sleeps");
    }
}

/// The paths of all keys; those of lists with `[]`.
fn key_paths(value: &serde_json::Value, at: &str, paths: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(keys) => {
            for (key, value) in keys {
                let path = format!("{at}.{key}");
                paths.push(path.clone());
                key_paths(value, &path, paths);
            }
        }
        serde_json::Value::Array(items) => {
            for item in items {
                key_paths(item, &format!("{at}[]"), paths);
            }
        }
        _ => {}
    }
}

#[test]
fn the_keys_of_the_json_form_are_added_and_never_renamed() {
    let rest = format!(
        "{METRICS}{WORKER}[[uplink]]\nname = 'bus'\naddress = 'tcp:127.0.0.1:1'\nexport = ['Quote']\n"
    );
    let site = Site::new("listen = 'bridge.sock'", &rest);
    let bridge = Running::start(&site, "bridge.sock.control");
    let _channels = exchange(&site, 10);
    wait_for("a sample", || {
        let links = bridge.status().links;
        links.iter().find(|it| it.residence.samples > 0).map(drop)
    });
    let (code, json, _) = run(program(&["status", "--json", "--config"]).arg(site.config()));
    assert_eq!(code, Some(0));
    let status: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let mut paths = Vec::new();
    key_paths(&status, "", &mut paths);
    paths.sort();
    paths.dedup();
    let golden = format!(
        "{}/tests/golden/status_keys.txt",
        env!("CARGO_MANIFEST_DIR")
    );
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, paths.join("\n") + "\n").unwrap();
    }
    let expected = std::fs::read_to_string(&golden).expect("the list of keys");
    let expected: Vec<_> = expected.lines().collect();
    let gone: Vec<_> = expected
        .iter()
        .filter(|it| !paths.iter().any(|path| path == *it))
        .collect();
    assert!(gone.is_empty(), "scripts read these keys: {gone:?}");
    assert_eq!(
        paths, expected,
        "a new key: look at its name, and set UPDATE_GOLDEN=1"
    );
}

#[test]
fn a_bridge_that_stands_still_is_said_so_in_bounded_time() {
    let site = Site::new("control = 'look'", WORKER);
    let bridge = Running::start(&site, "look");
    let pid = Pid::from_raw(bridge.child.id().cast_signed());
    kill(pid, Signal::SIGSTOP).expect("the bridge is there");
    let (code, out, errors) = run(program(&["status", "--config"]).arg(site.config()));
    kill(pid, Signal::SIGCONT).expect("the bridge is there");
    assert_eq!((code, &*out), (Some(1), ""));
    let expected = ": none within 5 s; its control plane stands still\n";
    assert!(errors.contains(expected), "{errors}");
    assert_eq!(bridge.status().workers.len(), 1);
}

/// The names in the first column of the table of metrics.
fn documented_metrics() -> BTreeSet<String> {
    let page = format!("{}/../docs/operations.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(page).expect("the manual");
    let rows = page.lines().filter(|line| line.starts_with("| `mycelium_"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_one_is_there() {
    let uplink = "[[uplink]]\nname = 'bus'\naddress = 'tcp:127.0.0.1:1'\nexport = ['Quote']\n";
    let delivery = "[delivery]\nQuote = 'drop_newest'\n";
    let rest = format!("{METRICS}{WORKER}{delivery}{uplink}");
    let keys = "listen = 'bridge.sock'\nring_capacity = '4KiB'";
    let site = Site::new(keys, &rest);
    let bridge = Running::start(&site, "bridge.sock.control");
    let (mut publisher, _subscriber) = exchange(&site, 1);
    // Nobody reads these, so that there is something to miss.
    for _ in 0..200 {
        let quote = mycelium_messages::bandit::Quote::default();
        publisher.publish(&quote, Some(WATCHDOG)).expect("publish");
    }
    let address = bridge.status().metrics.expect("metrics are served");
    let body = wait_for("missed frames and a sample", || {
        let (_, _, body) = http(&address, "GET /metrics HTTP/1.1\r\n\r\n");
        let all = ["link_missed_total{", "link_residence_seconds_count{"];
        all.iter().all(|it| body.contains(it)).then_some(body)
    });
    let types = body.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let mut shown: BTreeSet<_> = types
        .filter_map(|line| Some(line.split_once(' ')?.0.to_owned()))
        .collect();
    // Only there while the data plane stands still, which is another test's concern.
    shown.insert("mycelium_data_plane_silent_seconds".to_owned());
    assert_eq!(shown, documented_metrics());
}
