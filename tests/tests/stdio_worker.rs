//! Workers whose connection is their standard input and output: the program of the documentation, and the SDK.

use mycelium_messages::Message;
use mycelium_messages::bandit::{Quote, Side, Signal};
use mycelium_messages::control::{Delivery, Subscribe};
use mycelium_tests::{Place, expect, publish, python, quote, repository, subscribe, wait_until};
use shm_transport::channel::Transport;
use shm_transport::frame::FrameHeader;
use zerocopy::IntoBytes as _;

/// The only block of `docs/any-language.md` that opens like this.
fn documented(language: &str) -> String {
    let text = std::fs::read_to_string(repository().join("docs/any-language.md")).expect("docs");
    let blocks: Vec<_> = text.split(&format!("```{language}\n")).skip(1).collect();
    let [block] = &blocks[..] else {
        panic!("{} blocks of {language}", blocks.len());
    };
    let (block, _) = block.split_once("```").expect("it is closed");
    block.to_owned()
}

#[test]
fn the_documented_program_answers_quotes_and_a_successor_gets_what_it_did_not_acknowledge() {
    let place = Place::new();
    let contracts = repository().join("contracts/bandit.yaml");
    std::fs::copy(contracts, place.path().join("bandit.yaml")).expect("copy the contracts");
    std::fs::write(place.path().join("plain.py"), documented("python worker")).expect("a file");
    let toml = documented("toml worker").replace(
        "[\"python3\", \"plain.py\"]",
        &format!(
            "[{:?}, \"-S\", \"plain.py\"]\nrestart_backoff_ms = 1",
            python()
        ),
    );
    let file = place.path().join("documented.toml");
    std::fs::write(&file, toml).expect("write the configuration");
    let config = mycelium_bridge::config::Config::load(&file).unwrap_or_else(|e| panic!("{e}"));
    let bridge = mycelium_bridge::bridge::Bridge::start(&config).unwrap_or_else(|e| panic!("{e}"));
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    for sequence in 1..=200 {
        publish(&mut actor, &quote(sequence));
        let signal: Signal = expect(&mut actor);
        assert_eq!(signal.quote_sequence, sequence);
        assert_eq!(
            (signal.worker.as_str(), signal.side),
            (Ok("plain"), Side::HOLD)
        );
    }
    let status = bridge.link("plain").expect("the link");
    assert_eq!(status.transport, Some(Transport::Socket));

    let pid = status.pid.expect("it runs");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("kill it");
    for sequence in 201..=300 {
        publish(&mut actor, &quote(sequence));
    }
    let mut last = 0;
    while last < 300 {
        let signal: Signal = expect(&mut actor);
        // At least once: what it had in hand may come again.
        assert!(
            signal.quote_sequence <= last.max(200) + 1,
            "{} after {last}",
            signal.quote_sequence
        );
        last = signal.quote_sequence;
    }
    assert_eq!(bridge.link("plain").expect("the link").epoch, 2);
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

const SDK: &str = r#"
import mycelium
from mycelium.messages import Side, Signal
with mycelium.connect("stdio:") as channel:
    assert (channel.transport, channel.fallback_code) == ("socket", "REQUESTED")
    print("a stray line")
    signals = channel.publisher(Signal)
    for quote in channel:
        signals.send(Signal(worker=channel.settings["as"], quote_sequence=quote.sequence, side=Side.HOLD))
"#;

#[test]
fn a_worker_with_the_sdk_takes_standard_input_and_may_print() {
    let lines = "transport = \"stdio\"\nsubscribe = [\"Quote\"]\nsettings = { as = \"sdk\" }";
    let place = Place::new().worker("talkative", SDK, lines);
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    for sequence in 1..=200 {
        publish(&mut actor, &quote(sequence));
        let signal: Signal = expect(&mut actor);
        assert_eq!(signal.quote_sequence, sequence);
        assert_eq!(signal.worker.as_str(), Ok("sdk"));
    }
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

#[test]
fn a_program_that_prints_text_in_the_place_of_frames_is_told_and_given_up() {
    // It ends without a failure of its own, the one after it was refused and the other before.
    for end in ["sys.stdin.read()", "sys.exit()"] {
        let script = format!(
            "import sys\nprint('hello, this is no frame at all, but text', flush=True)\n{end}\n"
        );
        let lines = "transport = \"stdio\"\nrestart = \"never\"";
        let place = Place::new().worker("rude", &script, lines);
        let bridge = place.start();
        wait_until("the end of the worker", || bridge.link("rude").is_none());
        // Its quotes would have gone nowhere; the bridge goes on.
        let mut actor = bridge.attach("actor").expect("attach");
        publish::<Quote>(&mut actor, &quote(1));
        assert_eq!(
            bridge.shut_down().expect("control plane").exit_code(),
            1,
            "{end}"
        );
    }
}

#[test]
fn the_documented_bytes_of_a_subscription_are_those_that_are_sent() {
    let request = Subscribe {
        topic_id: Quote::TOPIC_ID,
        layout_digest: Quote::LAYOUT_DIGEST,
        delivery: Delivery::DROP_OLDEST,
        ..Subscribe::default()
    };
    let header = FrameHeader::new(Subscribe::TOPIC_ID, request.as_bytes().len() as u32);
    let mut frame = header.to_word().to_le_bytes().to_vec();
    frame.extend_from_slice(request.as_bytes());
    frame.resize(header.record_len(), 0);
    let text = documented("text subscribe");
    let mut lines = text.lines().map(|line| {
        let bytes = line.split_whitespace().map_while(|word| {
            let is_byte = word.len() == 2 && word.chars().all(|it| it.is_ascii_hexdigit());
            is_byte.then(|| u8::from_str_radix(word, 16).expect("hexadecimal"))
        });
        bytes.collect::<Vec<_>>()
    });
    let mut next = || lines.next().expect("three lines");
    let (first, second, third) = (next(), next(), next());
    assert_eq!(first, frame[..8]);
    assert!(
        second.len() > 2 && frame[8..].starts_with(&second),
        "{second:02X?}"
    );
    assert_eq!(third, frame[42..]);
}
