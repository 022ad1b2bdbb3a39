//! A Mycelium bus and the bridge as its client. The bus of these scenarios is written from the bytes of the stream format alone.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use mycelium_bridge::link::UplinkState;
use mycelium_tests::bus::{Bus, EXAMPLE, contracts, frame, place, read, sha256, status, trade};
use mycelium_tests::{WATCHDOG, wait_for, wait_until};
use shm_transport::ring::Frame;

#[test]
fn the_example_frame_comes_from_one_bus_and_goes_to_another_byte_for_byte() {
    let place = place();
    let (from, to) = (Bus::new(&place, "from"), Bus::new(&place, "to"));
    let place = place
        .table(&from.table("from", "import = ['Trade']"))
        .table(&to.table("to", "export = '*'"));
    let bridge = place.start();
    let (mut source, mut sink) = (from.greet(&place), to.greet(&place));
    source.write_all(&EXAMPLE).expect("write");
    assert_eq!(read(&mut sink, EXAMPLE.len()), EXAMPLE);

    // Byte by byte, and two at once.
    for byte in EXAMPLE {
        source.write_all(&[byte]).expect("write");
    }
    source.write_all(&EXAMPLE.repeat(2)).expect("write");
    assert_eq!(read(&mut sink, EXAMPLE.len() * 3), EXAMPLE.repeat(3));

    // An actor's frame goes to the bus that wants it, and to no other; neither bus hears its own.
    let mut actor = bridge.attach("actor").expect("attach");
    let sent = Frame::new(1200, &EXAMPLE[6..]);
    actor.publish_frame(&sent, Some(WATCHDOG)).expect("publish");
    assert_eq!(read(&mut sink, EXAMPLE.len()), EXAMPLE);
    let (from, to) = (status(&bridge, "from"), status(&bridge, "to"));
    assert_eq!((from.imported, from.exported), (4, 0));
    wait_until("the count", || status(&bridge, "to").exported == 5);
    assert_eq!((to.imported, to.state), (0, UplinkState::Connected));
    source.set_nonblocking(true).expect("a socket");
    let nothing = source.read(&mut [0]).expect_err("nothing comes");
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_bus_with_other_contracts_closes_and_the_reason_is_named_and_nothing_is_lost() {
    let place = place();
    let bus = Bus::new(&place, "bus");
    let place = place.table(&bus.table("uplink", "export = ['Trade']"));
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    let sent = Frame::new(1200, &EXAMPLE[6..]);
    actor.publish_frame(&sent, Some(WATCHDOG)).expect("publish");
    for _ in 0..3 {
        let stream = bus.greet(&place);
        drop(stream);
    }
    let error = wait_for("the reason", || status(&bridge, "uplink").last_error);
    let digits: String = sha256(&contracts(&place))
        .iter()
        .map(|it| format!("{it:02x}"))
        .collect();
    assert!(
        error.starts_with("closed right after the handshake: contracts differ?"),
        "{error}"
    );
    assert!(
        error.contains(&digits) && error.contains("frames_sent=0"),
        "{error}"
    );
    let link = bridge.link("uplink").expect("a link");
    assert_eq!(link.last_error.as_deref(), Some(&*error));

    let mut stream = bus.greet(&place);
    assert_eq!(read(&mut stream, EXAMPLE.len()), EXAMPLE);
    assert_eq!(status(&bridge, "uplink").connections, 4);
}

#[test]
fn a_lost_connection_is_made_again_and_what_was_published_meanwhile_comes() {
    let place = place();
    let bus = Bus::new(&place, "bus");
    let place = place.table(&bus.table("uplink", "export = ['Trade']"));
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    let mut publish = |price| {
        let payload = trade(price, 0);
        let sent = Frame::new(1200, &payload);
        actor.publish_frame(&sent, Some(WATCHDOG)).expect("publish");
    };
    for round in 0..4 {
        let mut stream = bus.greet(&place);
        publish(round * 2);
        // Also the one that was published while there was no connection.
        let first = if round == 0 { 0 } else { round * 2 - 1 };
        for price in first..=round * 2 {
            assert_eq!(read(&mut stream, 22), frame(1200, &trade(price, 0)));
        }
        // Not just dropped: a process that another test is starting at this moment may have a copy of the descriptor.
        stream.shutdown(Shutdown::Both).expect("a connection");
        publish(round * 2 + 1);
    }
}

#[test]
fn what_no_contract_has_is_dropped_and_counted_and_what_is_no_frame_ends_the_connection() {
    let place = place();
    let (from, to) = (Bus::new(&place, "from"), Bus::new(&place, "to"));
    let place = place
        .table(&from.table("from", "import = ['Trade', 'Note']"))
        .table(&to.table("to", "export = ['Trade']"));
    let bridge = place.start();
    let (mut source, mut sink) = (from.greet(&place), to.greet(&place));
    for bytes in [
        frame(1200, &[1; 15]),
        frame(1200, &[1; 17]),
        frame(1201, &[1; 2049]),
        frame(1201, &[1; 2048]),
        frame(1300, &vec![2; 1_000_000]),
        frame(9, &[]),
        frame(1200, &vec![3; 5_000_000]),
        EXAMPLE.to_vec(),
    ] {
        source.write_all(&bytes).expect("write");
    }
    assert_eq!(
        read(&mut sink, EXAMPLE.len()),
        EXAMPLE,
        "nothing is out of step"
    );
    let counted = status(&bridge, "from");
    assert_eq!(
        (counted.imported, counted.wrong_size, counted.ignored),
        (2, 4, 2)
    );

    let mut header = 1200_u16.to_le_bytes().to_vec();
    header.extend_from_slice(&((16 << 20) + 1_u32).to_le_bytes());
    source.write_all(&header).expect("write");
    assert_eq!(source.read(&mut [0]).expect("closed"), 0);
    let error = wait_for("the reason", || status(&bridge, "from").last_error);
    assert!(
        error.contains("payload_len=16777217 max=16777216"),
        "{error}"
    );

    let mut source = from.greet(&place);
    source.write_all(&EXAMPLE).expect("write");
    assert_eq!(read(&mut sink, EXAMPLE.len()), EXAMPLE);
}

#[test]
fn a_bus_that_never_reads_holds_nobody_up() {
    const COUNT: u64 = 60_000;
    let place = place();
    let (stuck, quick) = (Bus::new(&place, "stuck"), Bus::new(&place, "quick"));
    let rings = "ring_capacity = '64KiB'\nexport = ['Trade']";
    let place = place
        .table(&stuck.table("stuck", rings))
        .table(&quick.table("quick", &format!("{rings}\ndelivery = 'block'")));
    let bridge = place.start();
    let _stuck = stuck.greet(&place);
    let mut reader = quick.greet(&place);
    let mut actor = bridge.attach("actor").expect("attach");
    let publisher = std::thread::spawn(move || {
        for number in 0..COUNT {
            let payload = trade(number, 1);
            let sent = Frame::new(1200, &payload);
            actor.publish_frame(&sent, Some(WATCHDOG)).expect("publish");
        }
    });
    for number in 0..COUNT {
        assert_eq!(read(&mut reader, 22), frame(1200, &trade(number, 1)));
    }
    publisher.join().expect("published");
    wait_until("the count of what is missed", || {
        let link = bridge.link("stuck").expect("a link");
        link.missed.get(&1200).is_some_and(|missed| *missed > 0)
    });
    let quick = bridge.link("quick").expect("a link");
    assert!(quick.missed.is_empty(), "{quick:?}");
}

#[test]
fn a_bus_is_held_up_rather_than_robbed_by_a_subscriber_that_blocks() {
    const COUNT: u64 = 60_000;
    let place = place();
    let (from, to) = (Bus::new(&place, "from"), Bus::new(&place, "to"));
    let rings = "ring_capacity = '4KiB'\nstage_capacity = '4KiB'";
    let place = place
        .bridge("stage_capacity = '1MiB'")
        .table(&from.table("from", "ring_capacity = '16KiB'\nimport = ['Trade']"))
        .table(&to.table(
            "to",
            &format!("{rings}\nexport = ['Trade']\ndelivery = 'block'"),
        ));
    let bridge = place.start();
    let (mut source, mut sink) = (from.greet(&place), to.greet(&place));
    let writer = std::thread::spawn(move || {
        let all: Vec<u8> = (0..COUNT)
            .flat_map(|number| frame(1200, &trade(number, 2)))
            .collect();
        source.write_all(&all).expect("write");
        source
    });
    // Everything between the two buses is full before anything is read.
    let mut before = 0;
    wait_until("a standstill", || {
        std::thread::sleep(Duration::from_millis(20));
        let imported = status(&bridge, "from").imported;
        std::mem::replace(&mut before, imported) == imported && imported > 0
    });
    assert!(before < COUNT, "the socket is no bottomless pit");
    for number in 0..COUNT {
        assert_eq!(read(&mut sink, 22), frame(1200, &trade(number, 2)));
    }
    drop(writer.join().expect("written"));
    assert_eq!(status(&bridge, "from").imported, COUNT);
}

#[test]
fn what_was_published_before_the_end_reaches_the_bus() {
    const COUNT: u64 = 20_000;
    let place = place().bridge("shutdown_timeout_ms = 60000");
    let bus = Bus::new(&place, "bus");
    let place = place.table(&bus.table("uplink", "export = ['Trade']\nring_capacity = '4MiB'"));
    let bridge = place.start();
    let mut stream = bus.greet(&place);
    let mut actor = bridge.attach("actor").expect("attach");
    for number in 0..COUNT {
        let payload = trade(number, 3);
        let sent = Frame::new(1200, &payload);
        actor.publish_frame(&sent, Some(WATCHDOG)).expect("publish");
    }
    let stopping = std::thread::spawn(move || bridge.shut_down().expect("control plane"));
    for number in 0..COUNT {
        assert_eq!(read(&mut stream, 22), frame(1200, &trade(number, 3)));
    }
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
    drop(stream);
    let summary = stopping.join().expect("stopped");
    assert_eq!(
        (summary.clients_cut, summary.exit_code()),
        (0, 0),
        "{summary}"
    );
}

#[test]
fn a_bus_that_does_not_read_at_the_end_is_cut_off_and_that_is_said() {
    let place = place().bridge("shutdown_timeout_ms = 100");
    let bus = Bus::new(&place, "bus");
    let place = place.table(&bus.table("uplink", "export = ['Trade']\nring_capacity = '4MiB'"));
    let bridge = place.start();
    let _stream = bus.greet(&place);
    let mut actor = bridge.attach("actor").expect("attach");
    for number in 0..50_000 {
        let payload = trade(number, 4);
        let sent = Frame::new(1200, &payload);
        actor.publish_frame(&sent, Some(WATCHDOG)).expect("publish");
    }
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(
        (summary.clients_cut, summary.exit_code()),
        (1, 1),
        "{summary}"
    );
}

#[test]
fn a_bus_on_a_port() {
    let place = place();
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("bound").port();
    let place = place.table(&format!(
        "[uplink]\naddress = 'tcp:127.0.0.1:{port}'\nimport = ['Trade']\nexport = ['Trade']"
    ));
    let bridge = place.start();
    let (mut stream, _): (TcpStream, _) = listener.accept().expect("accept");
    stream.set_read_timeout(Some(WATCHDOG)).expect("a socket");
    assert_eq!(read(&mut stream, 34)[2..], sha256(&contracts(&place)));
    stream.write_all(&EXAMPLE).expect("write");
    let mut actor = bridge.attach("actor").expect("attach");
    let sent = Frame::new(1200, &EXAMPLE[6..]);
    actor.publish_frame(&sent, Some(WATCHDOG)).expect("publish");
    assert_eq!(read(&mut stream, EXAMPLE.len()), EXAMPLE);
    wait_until("the import", || status(&bridge, "uplink").imported == 1);
    assert_eq!(
        status(&bridge, "uplink").address,
        format!("tcp:127.0.0.1:{port}")
    );
}
