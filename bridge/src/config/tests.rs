//! Configuration errors: the text that a user reads, with its line.

use shm_transport::segment::{Backing, MemoryOptions};

use super::*;

mod delivery;
mod uplink;
mod workers;

const CONTRACTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../contracts/bandit.yaml");

/// A directory with a contracts file, an executable and a file that is not executable.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::copy(CONTRACTS, directory.path().join("bandit.yaml"))
        .expect("the contracts of the project");
    std::fs::write(directory.path().join("plain.py"), "print()\n").expect("a file");
    directory
}

fn load(directory: &tempfile::TempDir, text: &str) -> Result<Config, ConfigError> {
    let path = directory.path().join("bridge.toml");
    std::fs::write(&path, text).expect("a file");
    Config::load(path)
}

/// Problems as `line: message | hint`.
fn problems(text: &str) -> Vec<String> {
    let directory = directory();
    let error = load(&directory, text).expect_err("the configuration is wrong");
    let place = directory.path().display().to_string();
    let line = |p: &Problem| {
        let Place::File { line, .. } = p.place else {
            panic!("no variable is looked at: {p:?}");
        };
        format!("{line}: {} | {}", p.message, p.hint).replace(&place, "DIR")
    };
    error.problems.iter().map(line).collect()
}

/// A correct `[bridge]` (lines 1 and 2) and whatever follows from line 3 on.
fn with_bridge(rest: &str) -> String {
    format!("[bridge]\ncontracts = 'bandit.yaml'\n{rest}")
}

#[test]
fn a_full_configuration_is_read_with_its_defaults() {
    let directory = directory();
    let config = load(
        &directory,
        r#"
[bridge]
listen = "unix:bridge.sock"
contracts = "./bandit.yaml"
ring_capacity = "64KiB"
spin_us = 20
allowed_uids = [1000, 1001]
shutdown_timeout_ms = 500
log = "info,worker=debug"

[[worker]]
name = "momentum"
command = ["sh", "-c", "exit 0"]
env = { MODE = "fast" }
subscribe = ["Quote", "ReplayMark"]
transport = "socket"
ring_capacity = 0x10_0000
restart = "always"
restart_backoff_ms = 50
[worker.settings]
window = 20
rate = 0.5
since = 2020-01-01
nested = { list = [1, "two", true] }

[[worker]]
name = "mean-reversion"
command = ["/bin/sh"]
"#,
    )
    .unwrap();
    let place = directory.path();
    let [listen] = &config.listen[..] else {
        panic!("one endpoint is configured: {:?}", config.listen);
    };
    assert_eq!(listen.address, Address::Unix(place.join("bridge.sock")));
    assert_eq!((&listen.token, listen.max_pending_handshakes), (&None, 64));
    assert_eq!(config.bridge.contracts, place.join("bandit.yaml"));
    assert_eq!(config.bridge.allowed_uids, [1000, 1001]);
    assert_eq!(config.bridge.shutdown_timeout, Duration::from_millis(500));
    assert!(config.contracts.by_name("Quote").is_some());

    let [momentum, reversion] = config.workers.as_slice() else {
        panic!("two workers")
    };
    assert!(
        momentum.program.is_absolute() && momentum.program.ends_with("sh"),
        "{:?}",
        momentum.program
    );
    assert_eq!(momentum.args, ["-c", "exit 0"]);
    assert_eq!(momentum.working_dir, place);
    assert_eq!(momentum.transport, TransportMode::Socket);
    assert_eq!(momentum.ring_capacity, 1 << 20);
    assert_eq!(momentum.restart.policy, RestartPolicy::Always);
    assert_eq!(momentum.restart.backoff, Duration::from_millis(50));
    assert_eq!(momentum.restart.limit, 10);
    let settings = serde_json::json!({
        "window": 20, "rate": 0.5, "since": "2020-01-01", "nested": { "list": [1, "two", true] }
    });
    assert_eq!(Value::Object(momentum.settings.clone()), settings);

    assert_eq!(reversion.transport, TransportMode::Auto);
    assert_eq!(reversion.ring_capacity, 65_536, "from [bridge]");
    assert_eq!(reversion.spin_us, Some(20), "from [bridge]");
    assert_eq!(reversion.restart, RestartConfig::default());
}

#[test]
fn the_default_allow_list_is_the_own_user() {
    let config = load(&directory(), &with_bridge("")).unwrap();
    assert_eq!(config.bridge.allowed_uids, [nix::unistd::getuid().as_raw()]);
    assert!(config.workers.is_empty());
}

#[test]
fn a_misspelt_key_is_named_with_its_line_and_what_was_meant() {
    let text =
        with_bridge("[[worker]]\nname = 'a'\ncomand = ['sh']\ncommand = ['sh']\naffinity = 1\n");
    let found = problems(&text);
    assert_eq!(
        found[0],
        "5: worker 'a': unknown key 'comand' | did you mean 'command'?"
    );
    assert!(
        found[1].starts_with("7: worker 'a': unknown key 'affinity' | known keys: name, command, "),
        "{found:?}"
    );
    assert_eq!(found.len(), 2);
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let found = problems(
        "[bridge]\ncontracts = 'missing.yaml'\ntransport = 'shmem'\nring_capacity = 5000\nspin_us = -1\n\
         [[worker]]\nname = 'a b'\ncommand = []\nrestart = 'onfailure'\n[[workers]]\n",
    );
    assert_eq!(
        found,
        [
            "2: [bridge]: cannot read the contracts file: path=DIR/missing.yaml: No such file or directory (os error 2) \
             | paths are relative to the directory of the configuration file",
            "3: [bridge]: transport is not known: value='shmem', legal=auto | shm | socket | did you mean 'shm'?",
            "4: [bridge]: ring_capacity is not legal: value=5000, legal=a power of two from 4096 to 1073741824 bytes \
             | the next power of two is 8192",
            "5: [bridge]: spin_us is out of range: value=-1, legal=0..=1000000 | ",
            "7: worker name is not legal: value='a b', length=3 bytes, legal=1..=64 of A-Z a-z 0-9 _ . - \
             | choose a short name without spaces; the description belongs in a comment",
            "8: worker 'a b': command is empty | name the program and its arguments",
            "9: worker 'a b': restart is not known: value='onfailure', legal=always | on-failure | never \
             | did you mean 'on-failure'?",
            "10: top level: unknown key 'workers' | did you mean 'worker'?",
        ]
    );
}

#[test]
fn names_of_workers_are_unique() {
    let found = problems(&with_bridge(
        "[[worker]]\nname='a'\ncommand=['sh']\n[[worker]]\nname='a'\ncommand=['sh']\n",
    ));
    assert_eq!(
        found,
        [
            "7: worker 'a': name is taken: worker number 2 repeats number 1 | names of workers are unique in a bridge"
        ]
    );
}

#[test]
fn missing_keys_point_at_their_table() {
    assert_eq!(
        problems("[bridge]\nlog = 'info'\n[[worker]]\n"),
        [
            "1: [bridge]: missing key 'contracts' | add contracts = \"contracts/FILE.yaml\"",
            "3: worker number 1: missing key 'name' | add name = \"momentum\"",
            "3: worker number 1: missing key 'command' | add command = [\"python3\", \"momentum.py\"]",
        ]
    );
    assert_eq!(
        problems(""),
        ["1: missing table [bridge] | add [bridge] with at least contracts = \"FILE\""]
    );
}

#[test]
fn unknown_messages_are_compared_with_the_contracts() {
    let found = problems(&with_bridge(
        "[[worker]]\nname='a'\ncommand=['sh']\nsubscribe=['Qoute', 'Weather', 'Signal', 'Signal']\n",
    ));
    assert_eq!(
        found[0],
        "6: worker 'a': subscribe: unknown message: value='Qoute' | did you mean 'Quote'?"
    );
    assert!(
        found[1].contains("value='Weather' | messages of the contracts: Quote, Signal, "),
        "{found:?}"
    );
    assert_eq!(
        found[2],
        "6: worker 'a': subscribe names 'Signal' twice | remove one of them"
    );
}

#[test]
fn commands_are_looked_up_where_the_worker_would_start() {
    let worker = |command: &str, rest: &str| {
        with_bridge(&format!(
            "[[worker]]\nname='a'\ncommand=['{command}']\n{rest}"
        ))
    };
    let found = problems(&worker("no-such-program", "env = { PATH = '/nowhere' }"));
    assert_eq!(
        found,
        [
            "5: worker 'a': command not found: value='no-such-program', PATH=/nowhere | install it, extend PATH, or name it with a path"
        ]
    );
    let found = problems(&worker("bin/run", ""));
    assert_eq!(
        found,
        [
            "5: worker 'a': command not found: path=DIR/bin/run | a command with a slash is relative to working_dir"
        ]
    );
    let found = problems(&worker("./plain.py", ""));
    assert_eq!(
        found,
        [
            "5: worker 'a': command is not executable: path=DIR/plain.py | run: chmod +x DIR/plain.py"
        ]
    );
    let found = problems(&worker("sh", "working_dir = 'missing'"));
    assert_eq!(
        found,
        [
            "6: worker 'a': working_dir is no directory: path=DIR/missing | it is relative to the directory of the configuration file"
        ]
    );
}

#[test]
fn wrong_types_and_values_are_named_with_both_sides() {
    let found = problems(&with_bridge(
        "log = 'info,=,'\nlisten = 7\n[[worker]]\nname='a'\ncommand='sh'\nenv = { MYCELIUM_FD = '3' }\nring_capacity = '1MB'\n\
         restart_backoff_ms = 500\nrestart_backoff_max_ms = 100\nrestart_limit = 0\n",
    ));
    let expected = [
        "3: [bridge]: log is not a filter: value='info,=,'",
        "4: [bridge]: listen has the wrong type: expected=a string, actual=integer",
        "7: worker 'a': command has the wrong type: expected=an array of strings, actual=string",
        "8: worker 'a': env sets MYCELIUM_FD, which the bridge sets itself | remove it",
        "9: worker 'a': ring_capacity is not legal: value=1MB, legal=a power of two from 4096 to 1073741824 bytes \
         | write bytes or a size like",
        "11: worker 'a': restart_backoff_max_ms is below restart_backoff_ms: value=100, min=500",
        "12: worker 'a': restart_limit is out of range: value=0, legal=1..=1000",
    ];
    for (actual, expected) in found.iter().zip(expected) {
        assert!(
            actual.starts_with(expected),
            "expected={expected}\nactual={actual}"
        );
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn a_listen_path_must_fit_into_an_address() {
    let found = problems(&with_bridge(&format!("listen = '/{}'\n", "x".repeat(120))));
    assert!(
        found[0].contains("length=121, legal=1..=107 bytes"),
        "{found:?}"
    );
}

#[test]
fn broken_contracts_are_shown_inside_the_problem() {
    let directory = directory();
    std::fs::write(directory.path().join("bandit.yaml"), "messages: [\n").unwrap();
    let error = load(&directory, &with_bridge("")).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("bridge.toml:2:1: [bridge]: the contracts file has errors: path="),
        "{text}"
    );
    assert!(
        text.contains("hint: run: mycelium-contracts check "),
        "{text}"
    );
}

#[test]
fn the_contracts_must_be_those_of_an_application() {
    let directory = directory();
    let control = Path::new(CONTRACTS).with_file_name("control.yaml");
    std::fs::copy(control, directory.path().join("bandit.yaml")).unwrap();
    let text = load(&directory, &with_bridge("")).unwrap_err().to_string();
    assert!(
        text.contains("bridge.toml:2:1: [bridge]: the contracts file holds control messages"),
        "{text}"
    );
}

#[test]
fn settings_are_bounded_and_must_have_a_json_form() {
    let long = "x".repeat(SETTINGS_MAX);
    let worker = "[[worker]]\nname='a'\ncommand=['sh']\n[worker.settings]\n";
    let found = problems(&with_bridge(&format!("{worker}text = '{long}'\n")));
    assert!(
        found[0].starts_with(
            "6: worker 'a': settings are too long as JSON: length=65547, max=65536 bytes"
        ),
        "{found:?}"
    );
    let found = problems(&with_bridge(&format!("{worker}limit = inf\n")));
    assert_eq!(
        found,
        [
            "7: worker 'a': settings.limit has no JSON form: legal=64-bit integers and finite floats | write the number as a string"
        ]
    );
}

#[test]
fn broken_toml_and_a_missing_file_are_named() {
    let found = problems("[bridge]\ncontracts = 'a\n");
    assert!(found[0].starts_with("2: not valid TOML: "), "{found:?}");
    let found = problems("[bridge]\nlog = 'a'\nlog = 'b'\n");
    assert!(
        found[0].starts_with("3: not valid TOML: duplicate key"),
        "{found:?}"
    );
    let error = Config::load("/nowhere/bridge.toml").unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/nowhere/bridge.toml:1:1: cannot read the configuration: "),
        "{error}"
    );
}

#[test]
fn no_text_makes_it_panic() {
    let text = with_bridge(
        "listen = 'ü.sock'\n[[worker]]\nname = 'a'\ncommand = ['sh', 1]\nenv = { A = 'b' }\nring_capacity = 0x1000\n[worker.settings]\nx = [1.5, nan, {}]\n",
    )
    .replace("bandit.yaml", "missing.yaml");
    let parse = |text: &str| {
        let none = Overrides::default();
        Config::parse(Path::new("bridge.toml"), Path::new("/nowhere"), text, &none)
    };
    for (cut, _) in text.char_indices() {
        for piece in ["", "'", "[", "=", "\n", "{", "\0", "é"] {
            let (begin, end) = text.split_at(cut);
            let mutated = format!("{begin}{piece}");
            assert!(parse(&mutated).is_err(), "{mutated}");
            let mutated = format!("{begin}{piece}{end}");
            assert!(parse(&mutated).is_err(), "{mutated}");
        }
    }
}

#[test]
fn what_pages_get_is_read_per_worker_with_the_defaults_of_the_bridge() {
    let directory = directory();
    let config = load(
        &directory,
        &with_bridge(
            "memory = { lock = true, prefault = false, directory = '.' }\n\
             [[worker]]\nname='a'\ncommand=['sh']\nmemory = { lock = false, huge_pages = true }\n",
        ),
    )
    .unwrap();
    let place = Backing::File {
        directory: directory.path().to_owned(),
    };
    let options = |lock, huge_pages| MemoryOptions {
        prefault: false,
        lock,
        huge_pages,
        require: false,
    };
    assert_eq!(config.bridge.memory.options, options(true, false));
    assert_eq!(config.workers[0].memory.options, options(false, true));
    assert_eq!(config.bridge.memory.backing, place);
    assert_eq!(config.workers[0].memory.backing, place);
}

#[test]
fn wrong_memory_options_are_named() {
    let found = problems(&with_bridge(
        "allowed_uids = [4711]\nmax_pending_handshakes = 0\nmemory = { directory = '.' }\n\
         [[worker]]\nname='a'\ncommand=['sh']\nmemory = { look = true, lock = 1, directory = 'missing' }\n\
         [[worker]]\nname='b'\ncommand=['sh']\nmemory = true\n",
    ));
    let text = found.join("\n");
    for part in [
        "[bridge]: max_pending_handshakes is out of range: value=0, legal=1..=400",
        "[bridge]: memory.directory and allowed_uids do not go together: uid=4711 bridge=",
        "worker 'a': memory: unknown key 'look' | did you mean 'lock'?",
        "worker 'a': memory: lock has the wrong type: expected=true or false, actual=integer",
        "worker 'a': memory.directory is no directory: path=DIR/missing",
        "worker 'b': memory must be a table",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(found.len(), 6, "{text}");
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn endpoints_are_read_with_their_tokens_and_the_defaults_of_the_bridge() {
    let directory = directory();
    std::fs::write(directory.path().join("token"), format!("{TOKEN}\n")).expect("a file");
    let config = load(
        &directory,
        &with_bridge(
            "listen = 'a.sock'\nmax_pending_handshakes = 3\n\
             [[listen]]\naddress = 'tcp:127.0.0.1:7001'\ntoken_file = 'token'\nhandshake_timeout_ms = 500\n\
             [[listen]]\naddress = 'unix:b.sock'\nmax_pending_handshakes = 7\nallow_block = false\n\
             [[listen]]\naddress = 'tcp:[::]:0'\ntoken_file = 'token'\nallow_plaintext = true\n",
        ),
    )
    .unwrap();
    let found: Vec<_> = config
        .listen
        .iter()
        .map(|it| {
            let token = it
                .token
                .as_ref()
                .is_some_and(|token| token.matches(TOKEN.as_bytes()));
            let seconds = it.handshake_timeout.as_secs_f64();
            (
                it.address.to_string(),
                token,
                seconds,
                it.max_pending_handshakes,
            )
        })
        .collect();
    let socket = |name| format!("unix:{}", directory.path().join(name).display());
    assert_eq!(
        found,
        [
            (socket("a.sock"), false, 30.0, 3),
            ("tcp:127.0.0.1:7001".to_owned(), true, 0.5, 3),
            (socket("b.sock"), false, 30.0, 7),
            ("tcp:[::]:0".to_owned(), true, 10.0, 3),
        ]
    );
    let may_block: Vec<_> = config.listen.iter().map(|it| it.allow_block).collect();
    assert_eq!(may_block, [true, true, false, true]);
    assert!(
        !format!("{config:?}").contains(TOKEN),
        "a token is never shown"
    );
}

#[test]
fn wrong_endpoints_are_named_with_what_to_change() {
    let found = problems(&with_bridge(
        "listen = 'tcp:127.0.0.1:1'\n\
         [[listen]]\naddress = 'tcp:0.0.0.0:1'\ntoken_file = 'bandit.yaml'\n\
         [[listen]]\naddress = 'tcp:localhost:2'\n\
         [[listen]]\naddress = 'tcp:localhost'\ntoken_env = 'A'\ntoken_file = 'plain.py'\n\
         [[listen]]\ntoken_env = 'MYCELIUM_TEST_NO_SUCH_VARIABLE'\n\
         [[listen]]\naddress = 'unix:b.sock'\nallow_plaintext = true\nmax_pending_handshakes = 400\n\
         [[listen]]\naddress = 'unix:b.sock'\n",
    ));
    let text = found.join("\n");
    for part in [
        "3: [bridge]: listen is a path: value='tcp:127.0.0.1:1' | a port needs a table of its own: [[listen]]",
        "5: listen 'tcp:0.0.0.0:1': other hosts would send token and data unencrypted: host=0.0.0.0 | write tls:",
        "6: listen 'tcp:0.0.0.0:1': token holds white space",
        "8: listen 'tcp:localhost:2': a port needs a token",
        "10: listen 'tcp:localhost': no port | write address = ",
        "11: listen 'tcp:localhost': token_file and token_env are both given",
        "13: listen number 4: missing key 'address'",
        "14: listen number 4: token variable is not set: name=MYCELIUM_TEST_NO_SUCH_VARIABLE",
        "16: listen 'unix:b.sock': allow_plaintext is for tcp: addresses only",
        "15: listen 'unix:b.sock': max_pending_handshakes of all endpoints up to this one are too many: sum=",
        "20: listen 'unix:b.sock': address is named twice: address=unix:DIR/b.sock",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn what_a_tls_endpoint_lacks_is_named() {
    let found = problems(&with_bridge(
        "[[listen]]\naddress = 'tls:0.0.0.0:1'\ntoken_env = 'PATH'\n\
         [[listen]]\naddress = 'tls:0.0.0.0:2'\ncertificate = 'missing.pem'\nkey = 'plain.py'\n\
         [[listen]]\naddress = 'tls:0.0.0.0:3'\ncertificate = 'plain.py'\nkey = 'plain.py'\n\
         [[listen]]\naddress = 'unix:b.sock'\nclient_ca = 'plain.py'\n",
    ));
    let text = found.join("\n");
    for part in [
        "3: listen 'tls:0.0.0.0:1': a tls: address needs a certificate and its key",
        "7: listen 'tls:0.0.0.0:2': a port needs a token",
        "8: listen 'tls:0.0.0.0:2': certificate cannot be read: path=DIR/missing.pem",
        "12: listen 'tls:0.0.0.0:3': certificate cannot be read: path=DIR/plain.py: no section BEGIN CERTIFICATE",
        "16: listen 'unix:b.sock': client_ca is for tls: addresses only",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(
        !text.contains(&std::env::var("PATH").expect("a path")),
        "{text}"
    );
}
