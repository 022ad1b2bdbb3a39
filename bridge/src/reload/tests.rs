use super::*;

const CONTRACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../contracts/bandit.yaml");

fn config(bridge: &str, rest: &str) -> Config {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("bridge.toml");
    let text =
        format!("[bridge]\ncontracts = '{CONTRACTS}'\nstate_dir = '/tmp'\n{bridge}\n{rest}\n");
    std::fs::write(&path, text).expect("a file");
    Config::load(&path).unwrap_or_else(|error| panic!("{error}"))
}

fn worker(name: &str, keys: &str) -> String {
    format!("[[worker]]\nname = '{name}'\ncommand = ['/bin/sh']\nworking_dir = '/'\n{keys}\n")
}

fn plan(old: &Config, new: &Config) -> Plan {
    Plan::new(old, new).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_same_configuration_changes_nothing() {
    let text = worker("a", "env = { X = '1' }") + &worker("b", "after = ['a']");
    let plan = plan(&config("", &text), &config("", &text));
    assert!(plan.is_empty(), "{plan}");
    assert_eq!(plan.to_string(), "nothing differs");
}

#[test]
fn workers_are_added_removed_restarted_and_adjusted_each_by_itself() {
    let old = config(
        "",
        &(worker("same", "")
            + &worker("gone", "")
            + &worker("env", "env = { X = '1' }")
            + &worker("limit", "restart_limit = 3")
            + &worker("ring", "")),
    );
    let new = config(
        "",
        &(worker(
            "limit",
            "restart_limit = 4\nstall_timeout_ms = 9\nafter = ['new']",
        ) + &worker("env", "env = { X = '2' }")
            + &worker("ring", "ring_capacity = '64KiB'")
            + &worker("same", "")
            + &worker("new", "")),
    );
    let plan = plan(&old, &new);
    assert_eq!(
        plan.to_string(),
        "added=new removed=gone restarted=env,ring adjusted=limit"
    );
}

#[test]
fn every_key_of_the_bridge_takes_effect_or_is_named() {
    let old = config("allowed_uids = [1]\nspin_us = 1", "");
    let new = config(
        "allowed_uids = [2]\nspin_us = 2\nshutdown_timeout_ms = 7\nlog = 'warn'\ntransport = 'socket'\n\
         ring_capacity = '4KiB'\nstage_capacity = '8KiB'\nmemory = { prefault = false }\ncontrol = '/tmp/other'",
        "[contracts]\non_mismatch = 'refuse'\n[metrics]\nlisten = '127.0.0.1:0'",
    );
    let plan = plan(&old, &new);
    let applied = [
        "allowed_uids",
        "shutdown_timeout_ms",
        "log",
        "transport",
        "ring_capacity",
        "stage_capacity",
        "control",
        "spin_us",
        "memory",
        "[contracts] on_mismatch",
        "[metrics]",
    ];
    assert_eq!(plan.applied, applied);
    assert_eq!(plan.needs_restart, Vec::<&str>::new());

    let outcome = Plan::outcome(&old, new.clone());
    let again = Plan::new(&outcome, &new).unwrap_or_else(|error| panic!("{error}"));
    assert!(again.is_empty(), "{again}");
}

#[test]
fn policies_that_differ_from_what_they_were_are_told_by_message() {
    let old = config("", "[delivery]\nQuote = 'drop_oldest'\nSignal = 'block'");
    // The contract says block for signals, too.
    let new = config("", "[delivery]\nQuote = 'drop_newest'");
    let plan = plan(&old, &new);
    assert_eq!(
        plan.delivery,
        [("Quote".to_owned(), Delivery::DropNewest)],
        "{plan}"
    );
    assert_eq!(plan.to_string(), "delivery=Quote");
}

#[test]
fn a_worker_keeps_its_process_if_only_the_way_of_its_frames_differs() {
    let old = config("", &worker("w", "subscribe = ['Quote', 'Signal']"));
    let way = "subscribe = ['Signal', { topic = 'Quote', delivery = 'drop_oldest', group = 'g' }]";
    let changed = plan(&old, &config("", &worker("w", way)));
    assert_eq!(changed.to_string(), "adjusted=w");
    let fewer = plan(&old, &config("", &worker("w", "subscribe = ['Quote']")));
    assert_eq!(fewer.to_string(), "restarted=w");
}

#[test]
fn uplinks_are_added_removed_and_changed_each_by_itself() {
    let uplink = |name: &str, keys: &str| {
        format!("[[uplink]]\nname = '{name}'\naddress = 'unix:/tmp/bus'\n{keys}\n")
    };
    let old = config(
        "",
        &(uplink("same", "import = ['Quote']")
            + &uplink("gone", "import = ['Quote']")
            + &uplink("other", "import = ['Quote']")),
    );
    let new = config(
        "",
        &(uplink("new", "export = ['Quote']")
            + &uplink("other", "import = ['Signal']")
            + &uplink("same", "import = ['Quote']")),
    );
    assert_eq!(
        plan(&old, &new).to_string(),
        "uplinks_added=new uplinks_removed=gone uplinks_changed=other"
    );
}

#[test]
fn endpoints_that_ask_for_something_else_stay_where_they_are() {
    let listen =
        |path: &str, keys: &str| format!("[[listen]]\naddress = 'unix:/tmp/{path}'\n{keys}\n");
    let old = config("", &(listen("a", "") + &listen("b", "") + &listen("c", "")));
    let new = config(
        "",
        &(listen("a", "") + &listen("b", "max_pending_handshakes = 3") + &listen("d", "")),
    );
    let plan = plan(&old, &new);
    assert_eq!(
        plan.to_string(),
        "opened=unix:/tmp/d closed=unix:/tmp/c endpoints_changed=unix:/tmp/b"
    );
}

#[test]
fn contracts_need_a_restart_and_a_worker_that_needs_them_is_an_error() {
    let old = config("", "");
    let directory = tempfile::tempdir().expect("directory");
    let contracts = directory.path().join("other.yaml");
    let ours = std::fs::read_to_string(CONTRACTS).expect("contracts");
    std::fs::write(&contracts, ours.replace("Quote", "Price")).expect("a file");
    let path = directory.path().join("bridge.toml");
    let load = |workers: &str| {
        let text = format!("[bridge]\ncontracts = 'other.yaml'\nstate_dir = '/tmp'\n{workers}");
        std::fs::write(&path, text).expect("a file");
        Config::load(&path).unwrap_or_else(|error| panic!("{error}"))
    };
    assert_eq!(plan(&old, &load("")).needs_restart, ["contracts"]);
    let error =
        Plan::new(&old, &load(&worker("w", "subscribe = ['Price']"))).expect_err("an error");
    assert_eq!(
        error.to_string(),
        "worker 'w' needs a message that the running bridge does not know: message=Price; restart the bridge with the \
         new contracts"
    );
}
