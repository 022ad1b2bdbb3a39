//! Peers that send nonsense where their contracts are due: they are refused with what is wrong, and everybody else goes on.

use mycelium_messages::bandit::Quote;
use mycelium_tests::{BridgeProcess, Place, run_python};
use shm_transport::channel::{Channel, ConnectOptions, TransportRequest};

/// Connects again and again, each time with something else in the place of the contracts.
const PEER: &str = r#"
import json, struct, sys
import mycelium
from mycelium import _layout as layout, messages
from mycelium._control import Ack, ContractsOffer, ContractsReport, Goodbye
from mycelium._frame import encode_frame
from mycelium._handshake import Handshake

address, transport = sys.argv[1:]
JSON = layout.ENCODING_JSON << layout.FLAG_ENCODING_SHIFT
ours = json.loads(messages.CONTRACTS.to_json())
sound = Handshake.contracts_offer

def frame(value, topic_id=ContractsOffer.TOPIC_ID, flags=JSON):
    payload = value if isinstance(value, bytes) else json.dumps(value).encode()
    return encode_frame(topic_id, payload, flags)

def changed(**keys):
    return {**ours, "messages": [{**ours["messages"][0], **keys}, *ours["messages"][1:]]}

def many(count):
    one = {**ours["messages"][0], "fields": []}
    return {**ours, "messages": [{**one, "name": f"M{n}", "id": 1000 + n % 40000} for n in range(count)]}

attacks = {
    "over-long by its header": (struct.pack("<IHH", 2**32 - 1, ContractsOffer.TOPIC_ID, JSON), "payload_len=4294967295"),
    "over-long": (frame(b"[" + b" " * ContractsOffer.MAX_SIZE), f"{ContractsOffer.MAX_SIZE + 1}"),
    "not JSON": (frame(b"\xff\x00 contracts"), "not readable"),
    "deep": (frame(b"[" * 100_000), "not readable"),
    "another form": (frame({"messages": 7}), "not readable"),
    "message id": (frame(changed(id=0)), "id"),
    "message size": (frame(changed(max_size=2**40)), "max_size"),
    "digest": (frame(changed(layout_digest="00")), "layout_digest"),
    "as many messages as fit": (frame(b'{"messages":[' + b"{}," * 349_000 + b"{}]}"), "not readable"),
    "the other direction": (frame([], topic_id=ContractsReport.TOPIC_ID), "ContractsOffer"),
    "another control frame": (encode_frame(Ack.TOPIC_ID, Ack(bytes=8).to_bytes()), "ContractsOffer"),
}

for name, (attack, named) in attacks.items():
    def contracts_offer(self, attack=attack):
        return attack if sound(self) else b""
    Handshake.contracts_offer = contracts_offer
    try:
        mycelium.connect(address, name="hostile", transport=transport)
    except mycelium.HandshakeRefused as refused:
        assert refused.code == 8, (name, refused)
        assert named in str(refused) and len(str(refused)) < 600, (name, refused)
    else:
        raise AssertionError(f"{name} was taken")

# Many messages are no crime: what differs is told as far as the report has room.
Handshake.contracts_offer = lambda self: frame(many(4000)) if sound(self) else b""
with mycelium.connect(address, name="hostile", transport=transport) as channel:
    refused = [it for it in channel.contract_differences if not it.compatible]
    assert len(channel.contract_differences) >= 4000 and {it.topic_id for it in refused} >= {1001, 1002}

# A frame of the handshake on a link that is up, in both directions' names.
for topic_id in (ContractsOffer.TOPIC_ID, ContractsReport.TOPIC_ID):
    Handshake.contracts_offer = sound
    with mycelium.connect(address, name="hostile", transport=transport) as channel:
        channel._link.writer.write(frame(ours, topic_id=topic_id))
        try:
            channel.subscribe(messages.Quote)
            channel.recv(timeout=50)
        except mycelium.LinkFailed as failed:
            assert f"topic_id={topic_id}" in str(failed), failed
        else:
            raise AssertionError("the link goes on")
print("done")
"#;

fn refused_by_name(transport: &'static str) {
    let place = Place::new().listening().contracts(|ours| {
        let price = "      price:\n        type: \"f64\"";
        ours.replace(price, &price.replace("f64", "u64"))
    });
    let bridge = BridgeProcess::listening(&place, None);
    let connect = |name: &str| {
        let options = ConnectOptions::for_contracts(&mycelium_messages::bandit::CONTRACTS)
            .named(name)
            .over(TransportRequest::Auto);
        Channel::connect(&place.address(), &options).unwrap_or_else(|error| panic!("{error}"))
    };
    let (mut reader, mut writer) = (connect("reader"), connect("writer"));
    reader.subscribe::<Quote>().expect("the same on both sides");
    let mut sequence = 0;
    let mut others_are_served = || {
        for _ in 0..100 {
            sequence += 1;
            let quote = mycelium_tests::quote(sequence);
            writer
                .publish(&quote, Some(mycelium_tests::WATCHDOG))
                .expect("room");
            let frame = reader
                .recv(Some(mycelium_tests::WATCHDOG))
                .expect("a quote");
            assert_eq!(frame.read::<Quote>().expect("a quote").sequence, sequence);
        }
    };
    others_are_served();
    run_python(PEER, &[&place.address(), transport]).assert_done();
    others_are_served();
    let log = bridge.log();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn nonsense_for_contracts_is_refused_by_name() {
    refused_by_name("auto");
}

#[test]
fn nonsense_for_contracts_is_refused_by_name_over_the_socket() {
    refused_by_name("socket");
}
