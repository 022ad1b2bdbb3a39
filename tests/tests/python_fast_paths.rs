//! The quick ways of the Python SDK against Rust at the other end: whatever mixture of them a worker uses, every quote
//! is answered once, in order, and arrays that the worker keeps show no other bytes.

use mycelium_messages::bandit::{Quote, Signal};
use mycelium_tests::{Place, expect, expected_transport, publish, quote};
use shm_transport::channel::Transport;

/// Reads in one of the ways that chance picks, and answers in one of the ways that chance picks.
const WORKER: &str = r#"
import random
import mycelium
import numpy
from mycelium.messages import Quote, Side, Signal

def read(batch, how):
    """Sequence and middle of every quote."""
    if how == "messages":
        return [(quote.sequence, (quote.bid + quote.ask) / 2) for quote in batch]
    if how == "rows":
        return [(sequence, (bid + ask) / 2) for sequence, bid, ask in batch.rows(Quote, "sequence", "bid", "ask")]
    if how == "lists":
        columns = [batch.column(Quote, name) for name in ("sequence", "bid", "ask")]
        return [(sequence, (bid + ask) / 2) for sequence, bid, ask in zip(*columns)]
    quotes = batch.columns(Quote, copy=True if how == "copy" else None)
    return list(zip(quotes["sequence"].tolist(), ((quotes["bid"] + quotes["ask"]) / 2).tolist()))

def answer(publisher, answers, how):
    made = (Signal(worker="w", quote_sequence=sequence, price=price, side=Side.BUY) for sequence, price in answers)
    if how == "send":
        for signal in made:
            publisher.send(signal)
    elif how == "reserve":
        for signal in made:
            with publisher.reserve() as place:
                place.set(worker="w", quote_sequence=signal.quote_sequence, price=signal.price, side=Side.BUY)
    elif how == "abort":
        for signal in made:
            try:
                with publisher.reserve() as place:
                    place.quote_sequence = 0
                    raise KeyError
            except KeyError:
                publisher.send(signal)
    elif how == "generator":
        assert publisher.send_many(made) == len(answers)
    elif how == "list":
        assert publisher.send_many(list(made)) == len(answers)
    elif how == "array":
        array = numpy.zeros(len(answers), Signal.dtype())
        array["worker"], array["worker.len"], array["side"] = b"w", 1, Side.BUY
        array["quote_sequence"] = [sequence for sequence, _ in answers]
        array["price"] = [price for _, price in answers]
        assert publisher.send_many(array) == len(answers)

with mycelium.connect() as channel:
    chance = random.Random(channel.settings["seed"])
    publisher = channel.publisher(Signal)
    kept = []
    while True:
        limit = chance.choice((1, 2, 7, 60, 4096))
        try:
            try:
                batch = channel.recv_batch(limit, timeout=0)
            except TimeoutError:
                for array, copy in kept:
                    assert (array == copy).all(), "an array shows other bytes"
                kept.clear()
                batch = channel.recv_batch(limit)
        except mycelium.ChannelClosed:
            break
        answers = read(batch, chance.choice(("messages", "rows", "lists", "columns", "copy")))
        if chance.random() < 0.3:
            kept.append((batch.columns(Quote)[chance.randrange(len(batch)) :], batch.columns(Quote, copy=True)))
            kept[-1] = (kept[-1][0], kept[-1][1][-len(kept[-1][0]) :])
        while len(kept) > 2:
            array, copy = kept.pop(0)
            assert (array == copy).all(), "an array shows other bytes"
        answer(publisher, answers, chance.choice(("send", "reserve", "abort", "generator", "list", "array")))
        batch.release()
"#;

/// Publishes as many quotes as are on their way at once, and checks every answer.
fn every_quote_is_answered(seed: u64, lines: &str, transport: Transport) {
    const QUOTES: u64 = 12_000;
    const ON_THEIR_WAY: u64 = 300;
    let place = Place::new().worker(
        "w",
        WORKER,
        &format!("subscribe = [\"Quote\"]\nsettings = {{ seed = {seed} }}\n{lines}"),
    );
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    actor.subscribe::<Signal>().expect("subscribe");
    let mut answered = 0;
    for sequence in 1..=QUOTES + ON_THEIR_WAY {
        if sequence <= QUOTES {
            publish(&mut actor, &quote(sequence));
        }
        if sequence > ON_THEIR_WAY {
            answered += 1;
            let (asked, signal): (Quote, Signal) = (quote(answered), expect(&mut actor));
            assert_eq!(signal.quote_sequence, answered, "seed={seed}");
            assert_eq!(
                signal.price.to_bits(),
                ((asked.bid + asked.ask) / 2.0).to_bits()
            );
            assert_eq!(signal.worker.as_str().expect("text"), "w");
        }
    }
    let status = bridge.link("w").expect("the worker has a link");
    assert_eq!((status.transport, status.epoch), (Some(transport), 1));
    drop(actor);
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(summary.exit_code(), 0, "seed={seed} {summary}");
}

#[test]
fn any_mixture_answers_every_quote_over_the_smallest_ring() {
    for seed in 1..=3 {
        every_quote_is_answered(seed, "ring_capacity = \"4KiB\"", expected_transport());
    }
}

#[test]
fn any_mixture_answers_every_quote_over_a_ring_of_some_size() {
    every_quote_is_answered(4, "ring_capacity = \"64KiB\"", expected_transport());
}

#[test]
fn any_mixture_answers_every_quote_over_the_socket() {
    for seed in 5..=6 {
        every_quote_is_answered(seed, "transport = \"socket\"", Transport::Socket);
    }
}
