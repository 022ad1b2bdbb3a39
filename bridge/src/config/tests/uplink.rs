//! What is said about uplinks.

use super::*;

fn uplink(lines: &str) -> String {
    with_bridge(&format!("[uplink]\n{lines}\n"))
}

#[test]
fn an_uplink_is_read_with_its_defaults() {
    let directory = directory();
    let text = uplink("address = 'unix:bus.sock'\nimport = ['Quote']\nexport = ['Signal']");
    let config = load(&directory, &text).unwrap_or_else(|error| panic!("{error}"));
    let [uplink] = &config.uplinks[..] else {
        panic!("one: {:?}", config.uplinks);
    };
    let expected = UplinkConfig {
        name: "uplink".into(),
        address: Address::Unix(directory.path().join("bus.sock")),
        contracts: directory.path().join("bandit.yaml"),
        digest: config.contracts.source_digest(),
        import: vec!["Quote".into()],
        export: vec!["Signal".into()],
        delivery: Delivery::DropOldest,
        max_payload: 4 << 20,
        ring_capacity: 1 << 20,
        stage_capacity: 1 << 20,
        backoff: Duration::from_millis(100),
        backoff_max: Duration::from_secs(10),
    };
    assert_eq!(*uplink, expected);
}

#[test]
fn all_messages_are_those_that_both_sides_have() {
    let directory = directory();
    let ours = std::fs::read_to_string(CONTRACTS).expect("read");
    let theirs = ours.replace(
        "  Signal:\n    tlv_type: 1002",
        "  Other:\n    tlv_type: 1999",
    );
    assert_ne!(ours, theirs);
    std::fs::write(directory.path().join("bus.yaml"), theirs).expect("write");
    let text = uplink("address = 'tcp:bus:7000'\ncontracts = 'bus.yaml'\nimport = '*'");
    let config = load(&directory, &text).unwrap_or_else(|error| panic!("{error}"));
    let uplink = &config.uplinks[0];
    let all = config.contracts.messages().map(|it| it.name.clone());
    let expected: Vec<_> = all.filter(|name| name != "Signal").collect();
    assert_eq!((&uplink.import, uplink.export.len()), (&expected, 0));
    assert_ne!(uplink.digest, config.contracts.source_digest());
}

#[test]
fn what_cannot_flow_is_a_problem_with_its_line() {
    assert_eq!(
        problems(&uplink("max_payload = 16777217\ndelivery = 'drop'")),
        [
            "3: uplink number 1: missing key 'address' | add address = \"unix:/PATH\" or \"tcp:HOST:PORT\", where the \
             bus listens",
            "3: uplink number 1: neither import nor export: nothing would flow | add import = [\"MESSAGE\"], export = \
             [\"MESSAGE\"], or \"*\" for all messages",
            "4: uplink number 1: max_payload is out of range: value=16777217, legal=1..=16777216 | ",
            "5: uplink number 1: delivery is not known: value='drop', legal=block | drop_newest | drop_oldest | conflate | ",
        ]
    );
    assert_eq!(
        problems(&uplink(
            "address = 'tls:bus:7000'\nimport = ['Quota', 'Quote', 'Quote']\nexport = 'Quote'\nring_capacity = '1MiB'\n\
             stage_capacity = '64KiB'\nreconnect_backoff_max_ms = 1"
        )),
        [
            "4: uplink number 1: a bus is reached by unix: or tcp: only: value='tls:bus:7000' | its stream has no \
             encryption of its own; put a tunnel in front of it and name the tunnel's end",
            "5: uplink number 1: import: unknown message: value='Quota' | did you mean 'Quote'?",
            "5: uplink number 1: import names 'Quote' twice | remove one of them",
            "6: uplink number 1: export is neither an array of strings nor \"*\" | write export = [\"MESSAGE\"], or \
             export = \"*\" for all messages",
            "8: uplink number 1: stage_capacity is below ring_capacity: value=65536, min=1048576 | raise stage_capacity \
             or lower ring_capacity",
            "9: uplink number 1: reconnect_backoff_max_ms is below reconnect_backoff_ms: value=1, min=100 | raise \
             reconnect_backoff_max_ms or lower reconnect_backoff_ms",
        ]
    );
}

#[test]
fn a_layout_that_differs_at_the_bus_is_found_before_anything_flows() {
    let directory = directory();
    let ours = std::fs::read_to_string(CONTRACTS).expect("read");
    let theirs = ours.replacen("max_length: 16", "max_length: 24", 1);
    std::fs::write(directory.path().join("bus.yaml"), theirs).expect("write");
    let text = uplink("address = 'tcp:bus:7000'\ncontracts = 'bus.yaml'\nimport = ['Quote']");
    let error = load(&directory, &text).expect_err("the layouts differ");
    let [problem] = &error.problems[..] else {
        panic!("{error}");
    };
    assert_eq!(
        problem.message,
        "uplink number 1: import: 'Quote' is another message at the bus: bridge: tlv_type=1001, 64 bytes; bus: \
         tlv_type=1001, 72 bytes"
    );
}

#[test]
fn names_of_uplinks_and_workers_are_unique() {
    let table = "[[uplink]]\naddress = 'tcp:bus:7000'\nimport = '*'\n";
    let worker = "[[worker]]\nname = 'uplink'\ncommand = ['sh']\n";
    let taken = "name is taken: name=uplink | add name = \"NAME\"; names of workers and uplinks are unique in a bridge";
    let twice = problems(&with_bridge(&table.repeat(2)));
    assert_eq!(twice, [format!("6: uplink number 2: {taken}")]);
    let of_a_worker = problems(&with_bridge(&format!("{table}{worker}")));
    assert_eq!(of_a_worker, [format!("3: uplink number 1: {taken}")]);
}
