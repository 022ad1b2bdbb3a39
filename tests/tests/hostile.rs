//! Peers that break the rules: their link is closed with the rule that they broke, and everybody else goes on.

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::local::LocalChannel;
use mycelium_messages::bandit::Signal;
use mycelium_tests::{
    BridgeProcess, Place, expect, expected_transport, publish, quote, run_python, subscribe,
    wait_for, wait_until,
};
use shm_transport::channel::Transport;

/// An honest worker that every scenario has beside the hostile peer.
const HONEST: &str = r#"
import mycelium
from mycelium.messages import Quote, Side, Signal
with mycelium.connect() as channel:
    signals = channel.publisher(Signal)
    for quote in channel:
        if quote.symbol != "FLOOD":
            signals.send(Signal(worker=channel.name, quote_sequence=quote.sequence, side=Side.HOLD))
"#;

/// What the hostile scripts share. `broken` is the bridge's word at the end of a link.
const TOOLS: &str = r#"
import os, select, signal as system, sys, time
import mycelium
from mycelium import _layout as layout
from mycelium._control import Ack, Attached, Hello, Welcome
from mycelium._frame import encode_frame, header_word
from mycelium.messages import Quote, Side, Signal

def ring_words(channel, ring):
    """The words of the segment, and where a ring's control block and data start in them."""
    words = channel._link.producer.words
    place = (layout.SEGMENT_RINGS_OFFSET + ring * layout.RING_DESCRIPTOR_LEN) // 8
    return words, words[place] // 8, words[place + 1] // 8

def commit(channel, word):
    """Puts a header word where the bridge reads next, and wakes it."""
    words, control, data = ring_words(channel, layout.RING_TO_BRIDGE)
    index = words[control + layout.RING_TAIL_OFFSET // 8] % (channel._link.producer._capacity)
    words[data + index // 8] = word
    channel._link.producer.notify()

def broken(channel):
    """Waits for the end of the link without a look into the rings."""
    end = time.monotonic() + 50
    while channel._failure is None and not channel._link.eof and time.monotonic() < end:
        select.select([channel._link.sock], [], [], 0.1)
        channel._handle_control(ahead=True)
    assert channel._failure is not None, f"eof={channel._link.eof}"
    return channel._failure

def send_raw(channel, data):
    writer = channel._link.writer
    writer.write(data)
    while not writer.flush():
        select.select([], [channel._link.sock], [], 0.1)
"#;

fn script(body: &str) -> String {
    format!("{TOOLS}{body}\nprint('done')\n")
}

fn start(place: Place) -> (Place, Bridge, LocalChannel) {
    let place = place
        .listening()
        .worker("honest", HONEST, "subscribe = [\"Quote\"]");
    let bridge = place.start();
    let actor = bridge.attach("actor").expect("attach");
    subscribe::<Signal>(&bridge, &actor);
    (place, bridge, actor)
}

/// The honest worker still answers.
fn others_are_served(actor: &mut LocalChannel) {
    for sequence in 1..=200 {
        publish(actor, &quote(sequence));
        // What a hostile peer published by the rules came before.
        let answer = wait_for("an answer of the honest worker", || {
            let signal: Signal = expect(actor);
            (signal.worker.as_str() == Ok("honest")).then_some(signal.quote_sequence)
        });
        assert_eq!(answer, sequence);
    }
}

fn a_client_breaks(body: &str) {
    let (place, bridge, mut actor) = start(Place::new().bridge("ring_capacity = \"4KiB\""));
    others_are_served(&mut actor);
    run_python(&script(body), &[&place.address()]).assert_done();
    wait_until("the end of the link", || bridge.link("hostile").is_none());
    others_are_served(&mut actor);
    assert_eq!(bridge.link("honest").expect("the worker's link").epoch, 1);
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

/// As `a_client_breaks`, for what needs shared memory. Where there is none the attack has no place to happen, which is
/// what is asserted then.
fn a_client_breaks_its_rings(body: &str) {
    if expected_transport() == Transport::Shm {
        return a_client_breaks(body);
    }
    a_client_breaks(
        r#"
channel = mycelium.connect(sys.argv[1], name="hostile")
assert channel.transport == "socket" and not hasattr(channel._link, "_segment"), channel
channel.close()
"#,
    );
}

#[test]
fn an_impossible_header_word_closes_the_link_with_the_field_and_its_range() {
    a_client_breaks_its_rings(
        r#"
for word, field in [
    (header_word(0xFFFF_FFFF, 1002, 0), "field=payload_len value=4294967295 legal=0..=1016"),
    (header_word(1017, 1002, 0), "field=payload_len value=1017 legal=0..=1016"),
    (header_word(64, 0, 0), "field=topic_id value=0 legal=1..=65535"),
    (header_word(64, 0, layout.FLAG_PAD), "field=padding room value="),
    (header_word(64, 7, layout.FLAG_PAD), "field=padding topic_id value=7 legal=0..=0"),
    (1, "field=topic_id value=0"),
    (2**64 - 1, "field=padding topic_id value=65535"),
]:
    channel = mycelium.connect(sys.argv[1], name="hostile")
    commit(channel, word)
    failure = broken(channel)
    assert isinstance(failure, mycelium.LinkFailed) and failure.code == 1, failure
    assert field in str(failure) and f"header_word={word:#018x}" in str(failure), failure
    try:
        channel.recv(timeout=10)
    except mycelium.LinkFailed as error:
        assert field in str(error)
    else:
        raise AssertionError("the channel goes on")
    channel.close()
"#,
    );
}

#[test]
fn an_impossible_header_word_behind_good_records_loses_none_of_them() {
    a_client_breaks_its_rings(
        r#"
reader = mycelium.connect(sys.argv[1], name="reader")
reader.subscribe(Signal)
channel = mycelium.connect(sys.argv[1], name="hostile")
signals = channel.publisher(Signal)
for number in range(1, 41):
    signals.send(Signal(worker="hostile", quote_sequence=number, side=Side.BUY))
commit(channel, header_word(0xFFFF_FFF8, 1002, 0))
for number in range(1, 41):
    assert reader.recv(timeout=30).quote_sequence == number
assert "payload_len" in str(broken(channel))
channel.close()
reader.close()
"#,
    );
}

#[test]
fn an_impossible_head_closes_the_link_and_does_not_stall_its_publishers() {
    a_client_breaks_its_rings(
        r#"
flood = mycelium.connect(sys.argv[1], name="flood")
quotes = flood.publisher(Quote)
for head in (2**64 - 8, 1 << 40, 12):
    channel = mycelium.connect(sys.argv[1], name="hostile")
    channel.subscribe(Quote)
    words, control, _ = ring_words(channel, layout.RING_TO_PEER)
    words[control + layout.RING_HEAD_OFFSET // 8] = head
    # More than both rings take, so that the bridge has to look at the head, and goes on without it.
    for number in range(1, 301):
        quotes.send(Quote(symbol="FLOOD", sequence=number), timeout=30)
    failure = broken(channel)
    assert failure.code == 2 and f"field=head value={head} legal=0..=" in str(failure), failure
    channel._closed = True
    channel._link.close()
flood.close()
"#,
    );
}

#[test]
fn a_head_that_goes_back_closes_the_link() {
    a_client_breaks_its_rings(
        r#"
flood = mycelium.connect(sys.argv[1], name="flood")
quotes = flood.publisher(Quote)
channel = mycelium.connect(sys.argv[1], name="hostile")
channel.subscribe(Quote)
for number in range(1, 201):
    quotes.send(Quote(symbol="FLOOD", sequence=number), timeout=30)
    assert channel.recv(timeout=30).sequence == number
words, control, _ = ring_words(channel, layout.RING_TO_PEER)
words[control + layout.RING_HEAD_OFFSET // 8] = 0
for number in range(1, 301):
    quotes.send(Quote(symbol="FLOOD", sequence=number), timeout=30)
failure = broken(channel)
assert failure.code == 2 and "field=head value=0" in str(failure), failure
channel._closed = True
channel._link.close()
flood.close()
"#,
    );
}

#[test]
fn garbage_all_over_the_segment_does_not_disturb_others() {
    a_client_breaks_its_rings(
        r#"
import random
numbers = random.Random(7)
for seed in range(20):
    channel = mycelium.connect(sys.argv[1], name="hostile")
    channel.subscribe(Quote)
    words = channel._link.producer.words
    for at in range(len(words)):
        words[at] = numbers.getrandbits(64)
    channel._link.producer.notify()
    assert "ring is corrupt" in str(broken(channel))
    channel._closed = True
    channel._link.close()
"#,
    );
}

#[test]
fn an_application_frame_on_the_control_socket_of_a_shared_memory_link_closes_it() {
    a_client_breaks_its_rings(
        r#"
channel = mycelium.connect(sys.argv[1], name="hostile")
send_raw(channel, encode_frame(1002, bytes(Signal.SIZE)))
failure = broken(channel)
assert failure.code == 4 and "topic_id=1002" in str(failure) and "write it to the ring" in str(failure), failure
channel.close()
"#,
    );
}

#[test]
fn an_acknowledgement_over_shared_memory_closes_the_link() {
    a_client_breaks_its_rings(
        r#"
channel = mycelium.connect(sys.argv[1], name="hostile")
send_raw(channel, encode_frame(Ack.TOPIC_ID, Ack(bytes=8).to_bytes()))
failure = broken(channel)
assert failure.code == 4 and "unexpected control frame: topic_id=10" in str(failure), failure
channel.close()
"#,
    );
}

#[test]
fn garbage_on_the_control_socket_closes_the_link() {
    a_client_breaks(
        r#"
for transport in ("auto", "socket"):
    for data, text in [
        (bytes([255]) * 64, "payload_len=4294967295 max_payload="),
        (encode_frame(Welcome.TOPIC_ID, bytes(8)), "unexpected control frame: topic_id=2"),
        (encode_frame(Hello.TOPIC_ID, bytes(8)), "unexpected control frame: topic_id=1"),
        (encode_frame(6, bytes(5)), "payload_len expected=36 actual=5"),
        (encode_frame(999, b""), "unexpected control frame: topic_id=999"),
    ]:
        channel = mycelium.connect(sys.argv[1], name="hostile", transport=transport)
        send_raw(channel, data)
        failure = broken(channel)
        assert text in str(failure), failure
        channel._closed = True
        channel._link.close()
"#,
    );
}

#[test]
fn an_impossible_frame_length_on_the_socket_closes_the_link_with_both_numbers() {
    a_client_breaks(
        r#"
for length, limit in [(length, "max_payload=1016") for length in (0xFFFF_FFFF, 1017, 131073)]:
    channel = mycelium.connect(sys.argv[1], name="hostile", transport="socket")
    send_raw(channel, header_word(length, 1002, 0).to_bytes(8, "little") + bytes(1024))
    failure = broken(channel)
    assert failure.code == 3 and f"payload_len={length} {limit}" in str(failure), failure
    channel._closed = True
    channel._link.close()
"#,
    );
}

#[test]
fn reserved_topics_and_flags_on_the_socket_close_the_link() {
    a_client_breaks(
        r#"
for topic, flags in [(0, 0), (0, layout.FLAG_PAD), (1002, layout.FLAG_PAD)]:
    channel = mycelium.connect(sys.argv[1], name="hostile", transport="socket")
    send_raw(channel, header_word(64, topic, flags).to_bytes(8, "little") + bytes(64))
    failure = broken(channel)
    assert failure.code == 4 and f"topic_id={topic} flags={flags:#06x}" in str(failure), failure
    channel._closed = True
    channel._link.close()
"#,
    );
}

#[test]
fn an_acknowledgement_out_of_range_closes_the_link_with_the_range() {
    a_client_breaks(
        r#"
for count in (8, 2**64 - 8, 2**64 - 1):
    channel = mycelium.connect(sys.argv[1], name="hostile", transport="socket")
    send_raw(channel, encode_frame(Ack.TOPIC_ID, Ack(bytes=count).to_bytes()))
    failure = broken(channel)
    assert failure.code == 4 and f"bytes={count} legal=0..=0" in str(failure), failure
    channel._closed = True
    channel._link.close()
"#,
    );
}

#[test]
fn a_stranger_on_the_listening_socket_is_told_and_does_no_harm() {
    a_client_breaks(
        r#"
import socket
path = sys.argv[1].removeprefix("unix:")
for data in (b"GET / HTTP/1.1\r\n\r\n" * 20, bytes(64), encode_frame(Attached.TOPIC_ID, bytes(8)), bytes([255]) * 64):
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.settimeout(50)
        stranger.connect(path)
        stranger.sendall(data)
        answer = bytearray()
        while part := stranger.recv(4096):
            answer += part
        assert answer[4] == 3 and answer[8] == 6, f"Refused with BAD_HELLO was due: {bytes(answer[:16])!r}"
with socket.socket(socket.AF_UNIX) as silent:
    silent.connect(path)
"#,
    );
}

/// Runs a worker whose first process does `attack`, while a second worker stays honest.
fn a_worker_breaks(attack: &str, lines: &str) {
    let body = format!(
        r#"
channel = mycelium.connect()
signals = channel.publisher(Signal)
for quote in channel:
    if channel.epoch == 1:
        if channel.transport == "shm":
            words, control, data = ring_words(channel, layout.RING_TO_PEER)
            to_bridge, bridge_control, bridge_data = ring_words(channel, layout.RING_TO_BRIDGE)
{attack}
        os.kill(os.getpid(), system.SIGKILL)
    text = f"{{channel.epoch}}:{{channel.transport}}"
    signals.send(Signal(worker=text, quote_sequence=quote.sequence, side=Side.HOLD))
"#
    );
    let lines = format!(
        "subscribe = [\"Quote\"]\nrestart_backoff_ms = 1\nring_capacity = \"4KiB\"\n{lines}"
    );
    let place = Place::new().worker("hostile", &script(&body), &lines);
    let (_place, bridge, mut actor) = start(place);
    // What the hostile process had in its rings may be lost with them, so ask until its successor answers. It may do
    // so before the honest worker has answered once.
    let (mut sequence, mut honest, mut successor) = (0, 0, None);
    let successor = wait_for("an answer of either worker", || {
        sequence += 1;
        publish(&mut actor, &quote(sequence));
        let signal: Signal = expect(&mut actor);
        match signal.worker.as_str().expect("text") {
            "honest" => honest += 1,
            worker => successor = Some(worker.to_owned()),
        }
        successor.clone().filter(|_| honest > 0)
    });
    let (epoch, transport) = successor.split_once(':').expect("epoch and transport");
    assert!(
        epoch == "2" || epoch == "3",
        "the successor came after {epoch} starts"
    );
    let asked = if lines.contains("transport = \"socket\"") {
        Transport::Socket
    } else {
        expected_transport()
    };
    assert_eq!(
        transport,
        asked.name(),
        "the successor has fresh rings of the same kind"
    );
    assert_eq!(
        bridge
            .link("honest")
            .expect("the honest worker's link")
            .epoch,
        1
    );
    drop(actor);
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

/// Waits to be killed for what was done.
const WAIT: &str = "        time.sleep(50)";

#[test]
fn a_worker_that_commits_garbage_is_replaced_on_fresh_rings() {
    let attack = format!(
        "        if channel.transport == 'shm':\n            commit(channel, header_word(5000, 1002, 0))\n{WAIT}"
    );
    if expected_transport() == Transport::Shm {
        a_worker_breaks(&attack, "");
    } else {
        a_worker_breaks("", "");
    }
}

#[test]
fn a_worker_that_breaks_the_protocol_on_the_socket_is_replaced() {
    let attack = format!(
        "        send_raw(channel, encode_frame(Ack.TOPIC_ID, Ack(bytes=7).to_bytes()))\n{WAIT}"
    );
    a_worker_breaks(&attack, "transport = \"socket\"");
}

/// The worker is gone before the bridge has looked at what it left.
#[test]
fn a_worker_that_leaves_an_impossible_head_behind_is_replaced_on_fresh_rings() {
    for head in ["12", "1 << 63", "1 << 40", "2**64 - 1"] {
        a_worker_breaks(
            &format!(
                "        if channel.transport == 'shm':\n            words[control + layout.RING_HEAD_OFFSET // 8] = {head}"
            ),
            "",
        );
    }
}

#[test]
fn a_worker_that_leaves_an_impossible_tail_behind_is_replaced_on_fresh_rings() {
    for tail in ["12", "1 << 40", "2**64 - 8"] {
        a_worker_breaks(
            &format!(
                "        if channel.transport == 'shm':\n            words[bridge_control + layout.RING_TAIL_OFFSET // 8] = {tail}"
            ),
            "",
        );
    }
}

/// Each word is one that a correct worker may leave, but not this one: its successor would begin in the middle of a record, or
/// where the bridge never looks.
#[test]
fn a_worker_that_leaves_a_plausible_head_or_tail_behind_is_replaced_on_fresh_rings() {
    for forged in [
        "words[control + layout.RING_HEAD_OFFSET // 8] = 8",
        "words[bridge_control + layout.RING_HEAD_OFFSET // 8] = 1024",
        "words[bridge_control + layout.RING_TAIL_OFFSET // 8] = 1024",
    ] {
        a_worker_breaks(
            &format!("        if channel.transport == 'shm':\n            {forged}"),
            "",
        );
    }
}

#[test]
fn a_client_that_leaves_records_without_end_behind_is_gone_all_the_same() {
    if expected_transport() == Transport::Socket {
        // Nobody but the bridge writes to the rings.
        return a_client_breaks_its_rings("");
    }
    let (place, bridge, mut actor) = start(Place::new().bridge("ring_capacity = \"4KiB\""));
    let links = || bridge.snapshot().expect("data plane").links.len();
    let before = links();
    let body = r#"
channel = mycelium.connect(sys.argv[1], name="hostile")
words, control, data = ring_words(channel, layout.RING_TO_BRIDGE)
for at in range(data, data + 512, 2):
    words[at] = header_word(8, 1002, 0)
channel._link.producer.notify()
channel._link.sock.close()
"#;
    run_python(&script(body), &[&place.address()]).assert_done();
    wait_until("the end of the link in the data plane", || {
        bridge.link("hostile").is_none() && links() == before
    });
    others_are_served(&mut actor);
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

#[test]
fn a_worker_that_leaves_garbage_everywhere_is_replaced_on_fresh_rings() {
    let attack = "        if channel.transport == 'shm':\n            for at in range(control, len(words)):\n                words[at] = 0x0101_0101_0101_0101 * (at % 250 + 1)";
    a_worker_breaks(attack, "");
}

#[test]
fn the_log_names_the_field_and_what_is_lost() {
    if expected_transport() == Transport::Socket {
        // The program of this scenario would run over the socket, where the words are those of the pump.
        let body = "channel = mycelium.connect()\nsend_raw(channel, encode_frame(Ack.TOPIC_ID, Ack(bytes=16).to_bytes()))\ntime.sleep(50)";
        let place = Place::new().worker("hostile", &script(body), "restart_backoff_ms = 1");
        let bridge = BridgeProcess::start(&place, None);
        bridge.wait_for_log(&["link closed: the peer broke a rule", "bytes=16 legal=0..=0"]);
        bridge.wait_for_log(&["rings are discarded after a violation", "lost_bytes"]);
        return;
    }
    let body =
        "channel = mycelium.connect()\ncommit(channel, header_word(5000, 1002, 0))\ntime.sleep(50)";
    let place = Place::new().worker(
        "hostile",
        &script(body),
        "restart_backoff_ms = 1\nring_capacity = \"4KiB\"",
    );
    let bridge = BridgeProcess::start(&place, None);
    bridge.wait_for_log(&["field=payload_len value=5000 legal=0..=1016", "position=0"]);
    bridge.wait_for_log(&["killing the worker", "hostile"]);
    bridge.wait_for_log(&["rings are discarded after a violation", "lost_bytes"]);
}
