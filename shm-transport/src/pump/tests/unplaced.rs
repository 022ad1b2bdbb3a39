//! What a peer that is gone has sent and what found no room.

use super::*;

/// Reads until a frame waits for room and nothing more is read ahead.
fn read_ahead(bench: &mut Bench) {
    while !matches!(
        receive_all(bench).expect("nothing bad is at the front"),
        Received::Blocked {
            wants_more: false,
            ..
        }
    ) {}
}

#[test]
fn what_a_peer_left_without_room_goes_on_in_the_pump_of_its_successor() {
    let mut bench = Bench::new(9, 1 << 20);
    let bodies: Vec<_> = (0..9).map(|number| payload(number, 1000)).collect();
    let incoming = &mut bench.pump.stream.incoming;
    for body in &bodies {
        incoming.extend(frame_bytes(TOPIC, body));
    }
    incoming.extend(frame_bytes(
        Goodbye::TOPIC_ID,
        Goodbye::default().as_bytes(),
    ));
    let cut_off = frame_bytes(TOPIC, &bodies[0]);
    incoming.extend(&cut_off[..100]);
    receive_all(&mut bench).expect("sound");
    assert_eq!(bench.pump.take_unplaced(), None, "the stream goes on");
    bench.pump.stream.closed = true;
    read_ahead(&mut bench);
    let (frames, missing) = bench.pump.take_unplaced().expect("it has ended");
    assert_eq!(missing, cut_off.len() - 100);
    let (header, _) = bench.pump.next_control().expect("the goodbye");
    assert_eq!(header.topic_id, Goodbye::TOPIC_ID);
    assert_eq!(bench.pump.take_unplaced(), None, "once");

    // The successor can ask for something while they still wait.
    let memory = bench.memory.clone();
    drop(bench);
    let mut successor = Bench::with(10, 1 << 20, memory);
    let own = payload(9, 8);
    successor.pump.put_unplaced(frames);
    successor
        .pump
        .stream
        .incoming
        .extend(frame_bytes(TOPIC, &own));
    successor.pump.stream.incoming.extend(ack_bytes(0));
    receive_all(&mut successor).expect("sound");
    let (header, _) = successor.pump.next_control().expect("the acknowledgement");
    assert_eq!(header.topic_id, Ack::TOPIC_ID);
    let mut got = Vec::new();
    while got.len() < 10 {
        while let Some(frame) = successor.consumer.peek().expect("sound") {
            got.push(frame.to_vec());
            successor.consumer.advance();
        }
        successor.consumer.publish_head();
        receive_all(&mut successor).expect("sound");
    }
    assert_eq!(got[..9], bodies);
    assert_eq!(got[9], own);
}

#[test]
fn a_peer_that_has_ended_is_read_to_its_end() {
    let mut bench = Bench::new(12, 1 << 20);
    let sent = AHEAD_MAX / 1000 + 200;
    for number in 0..sent {
        let frame = frame_bytes(TOPIC, &payload(number, 1000));
        bench.pump.stream.incoming.extend(frame);
    }
    bench.pump.stream.closed = true;
    read_ahead(&mut bench);
    assert_eq!(bench.pump.take_unplaced(), None, "there is more to read");
    bench.pump.expect_end();
    read_ahead(&mut bench);
    let (frames, missing) = bench.pump.take_unplaced().expect("it has ended");
    assert_eq!(missing, 0);
    let mut placed = 0;
    while bench.consumer.peek().expect("sound").is_some() {
        bench.consumer.advance();
        placed += 1;
    }
    assert_eq!(parse(&frames).len() + placed, sent);
}

#[test]
fn what_is_wrong_is_not_handed_on() {
    let mut bench = Bench::new(11, 1 << 20);
    for number in 0..6 {
        let frame = frame_bytes(TOPIC, &payload(number, 1000));
        bench.pump.stream.incoming.extend(frame);
    }
    bench.pump.stream.incoming.extend(frame_bytes(0, b"nobody"));
    bench.pump.stream.closed = true;
    read_ahead(&mut bench);
    assert_eq!(bench.pump.take_unplaced(), None);
    let error = loop {
        while bench.consumer.peek().expect("sound").is_some() {
            bench.consumer.advance();
        }
        bench.consumer.publish_head();
        match bench.pump.receive(true) {
            Ok(Received::HangUp { .. }) => panic!("it was not told of"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, PumpError::Reserved { .. }), "{error}");
}
