//! A new configuration for the uplinks of a running bridge: those that differ are started, told, or ended; others stay connected.

use std::io::{Read as _, Write as _};

use mycelium_bridge::link::UplinkState;
use mycelium_bridge::local::LocalChannel;
use mycelium_tests::bus::{Bus, frame, place, read, status, trade};
use mycelium_tests::reload::{edit, reload};
use mycelium_tests::{WATCHDOG, wait_until};
use shm_transport::ring::Frame;

const NOTE: u16 = 1201;

fn publish(actor: &mut LocalChannel, price: u64) {
    let payload = trade(price, 0);
    let sent = Frame::new(1200, &payload);
    actor.publish_frame(&sent, Some(WATCHDOG)).expect("publish");
}

fn sent(price: u64) -> Vec<u8> {
    frame(1200, &trade(price, 0))
}

#[test]
fn an_uplink_is_added_and_removed_and_the_other_stays_connected() {
    let place = place();
    let (stays, comes) = (Bus::new(&place, "stays"), Bus::new(&place, "comes"));
    let new = comes.table("comes", "export = ['Trade']");
    let place = place.table(&stays.table("stays", "export = ['Trade']"));
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    let mut at_stays = stays.greet(&place);
    publish(&mut actor, 1);
    assert_eq!(read(&mut at_stays, 22), sent(1));

    edit(&place, |text| format!("{text}\n{new}\n"));
    reload(&bridge);
    publish(&mut actor, 2);
    let mut at_comes = comes.greet(&place);
    assert_eq!(read(&mut at_comes, 22), sent(2), "kept since the reload");
    assert_eq!(read(&mut at_stays, 22), sent(2));

    publish(&mut actor, 3);
    edit(&place, |text| text.replace(&new, ""));
    reload(&bridge);
    assert_eq!(
        read(&mut at_comes, 22),
        sent(3),
        "what came before the reload"
    );
    assert_eq!(at_comes.read(&mut [0]).expect("the end"), 0);
    publish(&mut actor, 4);
    assert_eq!(
        [read(&mut at_stays, 22), read(&mut at_stays, 22)],
        [sent(3), sent(4)]
    );
    drop(at_comes);
    wait_until("the end of the link", || bridge.link("comes").is_none());
    let names: Vec<_> = bridge.uplinks().into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["stays"]);
    assert_eq!(
        status(&bridge, "stays").connections,
        1,
        "it stayed connected"
    );

    // The name is free again.
    edit(&place, |text| format!("{text}\n{new}\n"));
    reload(&bridge);
    let mut at_comes = comes.greet(&place);
    publish(&mut actor, 5);
    assert_eq!(read(&mut at_comes, 22), sent(5));
    drop((actor, at_comes, at_stays));
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

#[test]
fn other_messages_take_effect_on_the_connection_that_is_there() {
    let place = place();
    let bus = Bus::new(&place, "bus");
    let place = place.table(&bus.table("uplink", "export = ['Trade']"));
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    bridge.snapshot().expect("counters");
    let mut stream = bus.greet(&place);
    publish(&mut actor, 1);
    assert_eq!(read(&mut stream, 22), sent(1));
    edit(&place, |text| {
        text.replace(
            "export = ['Trade']",
            "import = ['Trade']\nexport = ['Note']",
        )
    });
    reload(&bridge);
    wait_until("the new messages", || {
        stream.write_all(&sent(9)).expect("write");
        status(&bridge, "uplink").imported > 0
    });
    publish(&mut actor, 2);
    let note = Frame::new(NOTE, b"hello").with_encoding(shm_transport::frame::Encoding::Raw);
    actor.publish_frame(&note, Some(WATCHDOG)).expect("publish");
    assert_eq!(
        read(&mut stream, 11),
        frame(NOTE, b"hello"),
        "no trade in front of it"
    );
    assert_eq!(status(&bridge, "uplink").connections, 1);
}

#[test]
fn an_uplink_moves_to_another_bus_with_what_waits_for_it() {
    let place = place();
    let (old, new) = (Bus::new(&place, "old"), Bus::new(&place, "new"));
    let lines = "export = ['Trade', 'Note']";
    let place = place.table(&old.table("uplink", lines));
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    let mut at_old = old.greet(&place);
    publish(&mut actor, 1);
    assert_eq!(read(&mut at_old, 22), sent(1));
    // The bus goes away, so the next ones wait; the note is no longer wanted when they get to the other bus.
    drop(old);
    std::fs::remove_file(place.path().join("old")).expect("remove");
    at_old
        .shutdown(std::net::Shutdown::Both)
        .expect("a connection");
    wait_until("the end of the connection", || {
        status(&bridge, "uplink").state == UplinkState::Disconnected
    });
    publish(&mut actor, 2);
    let note = Frame::new(NOTE, b"hello").with_encoding(shm_transport::frame::Encoding::Raw);
    actor.publish_frame(&note, Some(WATCHDOG)).expect("publish");
    publish(&mut actor, 3);
    bridge.snapshot().expect("counters");
    let moved = new.table("uplink", "export = ['Trade']");
    edit(&place, |text| {
        let begin = text.find("[[uplink]]").expect("a table");
        format!("{}{moved}\n", &text[..begin])
    });
    reload(&bridge);
    let mut at_new = new.greet(&place);
    assert_eq!(
        [read(&mut at_new, 22), read(&mut at_new, 22)],
        [sent(2), sent(3)]
    );
    let now = status(&bridge, "uplink");
    assert!(now.address.ends_with("/new"), "{now:?}");
    assert_eq!(now.withdrawn, 1, "{now:?}");
}

#[test]
fn other_rings_are_another_link_behind_the_old_one() {
    let place = place();
    let bus = Bus::new(&place, "bus");
    let place = place.table(&bus.table("uplink", "export = ['Trade']\nring_capacity = '64KiB'"));
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    let mut before = bus.greet(&place);
    let link = bridge.link("uplink").expect("a link").link;
    publish(&mut actor, 1);
    edit(&place, |text| text.replace("64KiB", "128KiB"));
    reload(&bridge);
    assert_eq!(read(&mut before, 22), sent(1));
    assert_eq!(before.read(&mut [0]).expect("the end"), 0);
    drop(before);
    let mut after = bus.greet(&place);
    publish(&mut actor, 2);
    assert_eq!(read(&mut after, 22), sent(2));
    assert_ne!(bridge.link("uplink").expect("a link").link, link);
}

#[test]
fn an_uplink_whose_bus_takes_nothing_ends_with_its_time() {
    let place = place().bridge("shutdown_timeout_ms = 100");
    let bus = Bus::new(&place, "bus");
    let table = bus.table("uplink", "export = ['Trade']\nring_capacity = '4MiB'");
    let place = place.table(&table);
    let bridge = place.start();
    let _stream = bus.greet(&place);
    let mut actor = bridge.attach("actor").expect("attach");
    for price in 0..50_000 {
        publish(&mut actor, price);
    }
    edit(&place, |text| text.replace(&table, ""));
    reload(&bridge);
    wait_until("its end", || {
        bridge.link("uplink").is_none() && bridge.uplinks().is_empty()
    });
    drop(actor);
    let summary = bridge.shut_down().expect("control plane");
    assert_eq!(
        (summary.clients_cut, summary.exit_code()),
        (0, 0),
        "{summary}"
    );
}
