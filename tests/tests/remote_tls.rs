//! Clients over TLS: what travels, certificates that are not trusted, certificates of clients, and clients that vanish.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::config::Config;
use mycelium_messages::bandit::{CONTRACTS, Quote, Signal};
use mycelium_tests::tls::Certificates;
use mycelium_tests::{
    BridgeProcess, Place, TOKEN, WATCHDOG, contracts_binary, expect, publish, python, quote,
    repository, run_python, subscribe, wait_until,
};
use shm_transport::channel::{Channel, ConnectOptions, Transport};
use shm_transport::error::HandshakeError;
use shm_transport::socket::TlsOptions;

fn options(name: &str, ca: &Path) -> ConnectOptions {
    ConnectOptions {
        token: TOKEN.to_owned(),
        timeout: WATCHDOG,
        tls: TlsOptions {
            ca_file: Some(ca.to_owned()),
            certificate: None,
        },
        ..ConnectOptions::for_contracts(&CONTRACTS).named(name)
    }
}

fn address(bridge: &Bridge) -> String {
    let [address] = bridge.addresses() else {
        panic!("one endpoint is configured: {:?}", bridge.addresses());
    };
    address.to_string()
}

/// A connection without TLS.
fn plain(bridge: &Bridge) -> TcpStream {
    let address = address(bridge);
    let stream = TcpStream::connect(address.trim_start_matches("tls:")).expect("connect");
    stream
        .set_read_timeout(Some(WATCHDOG))
        .expect("a time limit");
    stream
}

fn failure(address: &str, options: &ConnectOptions) -> String {
    Channel::connect(address, options)
        .expect_err("a failure was due")
        .to_string()
}

#[test]
fn a_rust_client_publishes_and_receives_and_its_last_frames_arrive_although_it_reads_nothing() {
    let place = Place::new();
    let certificates = Certificates::make(&place, "a");
    let place = place.encrypted(&certificates, "");
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Quote>(&bridge, &actor);
    let options = options("far", &certificates.ca);
    let mut client = Channel::connect(&address(&bridge), &options).expect("trusted");
    assert_eq!(client.transport(), Transport::Socket);
    let fallback = client.fallback().expect("a reason").to_string();
    assert!(
        fallback.contains("tls") && fallback.contains("REMOTE"),
        "{fallback}"
    );
    client.subscribe::<Signal>().expect("subscribe");
    client.advertise::<Quote>().expect("advertise");
    for round in 1..=500 {
        client
            .publish(&quote(round), Some(WATCHDOG))
            .expect("publish");
        assert_eq!(expect::<Quote>(&mut actor), quote(round));
        let signal = Signal {
            quote_sequence: round,
            ..Signal::default()
        };
        publish(&mut actor, &signal);
        let got: Signal = client
            .recv(Some(WATCHDOG))
            .expect("a frame")
            .read()
            .expect("a signal");
        assert_eq!(got.quote_sequence, round);
    }
    // More than all buffers on the way hold, while signals come that nobody reads.
    let sender = std::thread::spawn(move || {
        for round in 501..=20_000 {
            client
                .publish(&quote(round), Some(WATCHDOG))
                .expect("publish");
        }
        client.close().expect("close");
    });
    for round in 501..=20_000 {
        assert_eq!(expect::<Quote>(&mut actor), quote(round));
        if round < 1500 {
            publish(&mut actor, &Signal::default());
        }
    }
    sender.join().expect("the client");
    wait_until("the end of the link", || bridge.link("far").is_none());
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

#[test]
fn a_certificate_of_another_authority_or_for_another_host_is_not_trusted() {
    let place = Place::new();
    let ours = Certificates::make(&place, "a");
    let others = Certificates::make(&place, "b");
    let elsewhere = Certificates::make_for(&place, "c", &["elsewhere.example.org"]);
    let place = place.encrypted(&ours, "").encrypted(&elsewhere, "");
    let bridge = place.start();
    let address = bridge.addresses()[0].to_string();
    let untrusted = failure(&address, &options("far", &others.ca));
    assert!(
        untrusted.contains("UnknownIssuer") && untrusted.contains(&address),
        "{untrusted}"
    );
    let other_host = bridge.addresses()[1].to_string();
    let other_host = failure(&other_host, &options("far", &elsewhere.ca));
    assert!(other_host.contains("elsewhere.example.org"), "{other_host}");
    let nobody = ConnectOptions {
        tls: TlsOptions::default(),
        ..options("far", &ours.ca)
    };
    assert!(failure(&address, &nobody).contains("set ca_file"));
    let missing = options("far", Path::new("/nowhere/ca.pem"));
    assert!(failure(&address, &missing).contains("path=/nowhere/ca.pem"));
    let wrong_token = ConnectOptions {
        token: "a-token-that-nobody-has".to_owned(),
        ..options("far", &ours.ca)
    };
    let refused = Channel::connect(&address, &wrong_token);
    assert!(
        matches!(
            refused,
            Err(HandshakeError::Refused {
                name: "NOT_ALLOWED",
                ..
            })
        ),
        "{refused:?}"
    );
    Channel::connect(&address, &options("far", &ours.ca)).expect("the right one");
}

#[test]
fn a_bridge_that_asks_for_certificates_serves_only_clients_that_have_one() {
    let place = Place::new();
    let ours = Certificates::make(&place, "a");
    let others = Certificates::make(&place, "b");
    let place = place.encrypted(&ours, &format!("client_ca = {:?}", ours.ca));
    let bridge = place.start();
    let address = address(&bridge);
    let with = |certificate| ConnectOptions {
        tls: TlsOptions {
            ca_file: Some(ours.ca.clone()),
            certificate,
        },
        ..options("far", &ours.ca)
    };
    assert!(Channel::connect(&address, &with(None)).is_err());
    assert!(Channel::connect(&address, &with(Some(others.client.clone()))).is_err());
    Channel::connect(&address, &with(Some(ours.client.clone()))).expect("it has one");
}

#[test]
fn a_client_without_tls_or_without_a_word_is_cut_off() {
    let place = Place::new();
    let certificates = Certificates::make(&place, "a");
    let place = place.encrypted(
        &certificates,
        "handshake_timeout_ms = 300\nmax_pending_handshakes = 1",
    );
    let bridge = place.start();
    let mut silent = plain(&bridge);
    assert_eq!(silent.read(&mut [0; 16]).expect("an end"), 0);
    let mut garbage = plain(&bridge);
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("send");
    // An alert may come, and then the end.
    let _ = garbage.read_to_end(&mut Vec::new());
    let mut channel = None;
    wait_until("a free slot", || {
        channel = Channel::connect(&address(&bridge), &options("far", &certificates.ca)).ok();
        channel.is_some()
    });
}

#[test]
fn a_client_beyond_the_limit_of_open_handshakes_is_told_so_over_tls() {
    let place = Place::new();
    let certificates = Certificates::make(&place, "a");
    let place = place.encrypted(&certificates, "max_pending_handshakes = 1");
    let bridge = place.start();
    let _silent = plain(&bridge);
    let refused = Channel::connect(&address(&bridge), &options("far", &certificates.ca));
    let Err(HandshakeError::Refused { name, message, .. }) = refused else {
        panic!("no slot is free: {refused:?}");
    };
    assert_eq!(name, "BUSY");
    assert!(message.contains("max_pending_handshakes=1"), "{message}");
    let script = "import mycelium, sys\ntry:\n    mycelium.connect(sys.argv[1], token=sys.argv[2], tls_ca=sys.argv[3])\n\
                  except mycelium.HandshakeRefused as error:\n    assert error.name == 'BUSY', error\n    print('done')\n";
    let ca = certificates.ca.to_str().expect("text");
    run_python(script, &[&address(&bridge), TOKEN, ca]).assert_done();
    assert_eq!(bridge.refused_busy(), 2);
}

const CLIENT: &str = r#"
import asyncio, sys
import mycelium
from mycelium.messages import Quote, Signal
address, token, ca, other_ca = sys.argv[1:]

def lost(**options):
    try:
        mycelium.connect(address, token=token, **options)
    except mycelium.PeerLost as error:
        return str(error)
    raise AssertionError("a failure was due")

assert "tls_ca" in lost(tls_ca=other_ca), lost(tls_ca=other_ca)
assert "certificate" in lost()
with mycelium.connect(address, name="far", token=token, tls_ca=ca) as channel:
    assert (channel.transport, channel.fallback_code) == ("socket", "REMOTE"), channel.fallback_reason
    channel.subscribe(Signal)
    quotes = channel.publisher(Quote)
    for number in range(1, 301):
        quotes.send(Quote(symbol="EUR/USD", sequence=number, bid=1.0, ask=2.0))
        assert channel.recv(timeout=50).quote_sequence == number
    # Ten times what a record of TLS holds, both ways at once.
    for number in range(301, 3001):
        quotes.send(Quote(symbol="EUR/USD", sequence=number, bid=1.0, ask=2.0), timeout=50)
    for number in range(301, 3001):
        assert channel.recv(timeout=50).quote_sequence == number

async def asynchronously():
    async with mycelium.aio.connect(address, name="far", token=token, tls_ca=ca) as channel:
        await channel.subscribe(Signal)
        quotes = await channel.publisher(Quote)
        for number in range(3001, 3301):
            await quotes.send(Quote(symbol="EUR/USD", sequence=number, bid=1.0, ask=2.0))
            assert (await channel.recv(timeout=50)).quote_sequence == number
        for number in range(3301, 6001):
            await quotes.send(Quote(symbol="EUR/USD", sequence=number, bid=1.0, ask=2.0))
        for number in range(3301, 6001):
            assert (await channel.recv(timeout=50)).quote_sequence == number
        # What was published last arrives, although the answers are not read.
        for number in range(6001, 8001):
            await quotes.send(Quote(symbol="EUR/USD", sequence=number, bid=1.0, ask=2.0))

asyncio.run(asynchronously())
with mycelium.connect(address, token=token, tls_ca=ca) as channel:
    channel.subscribe(Signal)
    quotes = channel.publisher(Quote)
    for number in range(8001, 10001):
        quotes.send(Quote(symbol="EUR/USD", sequence=number, bid=1.0, ask=2.0), timeout=50)
print("done")
"#;

#[test]
fn a_python_client_publishes_and_receives() {
    let place = Place::new();
    let certificates = Certificates::make(&place, "a");
    let others = Certificates::make(&place, "b");
    let place = place.encrypted(&certificates, "");
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Quote>(&bridge, &actor);
    let address = address(&bridge);
    let client = std::thread::spawn(move || {
        let files = [&certificates.ca, &others.ca].map(|path| path.to_str().expect("text"));
        run_python(CLIENT, &[&address, TOKEN, files[0], files[1]])
    });
    for round in 1..=10_000 {
        let got: Quote = expect(&mut actor);
        assert_eq!(got.sequence, round);
        let signal = Signal {
            quote_sequence: round,
            ..Signal::default()
        };
        publish(&mut actor, &signal);
    }
    client.join().expect("the client").assert_done();
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

const STREAMING: &str = r#"
import sys
import mycelium
from mycelium.messages import Quote
with mycelium.connect(sys.argv[1], name="far", token=sys.argv[2], tls_ca=sys.argv[3]) as channel:
    quotes = channel.publisher(Quote)
    number = 0
    while True:
        number += 1
        quotes.send(Quote(symbol="EUR/USD", sequence=number))
"#;

#[test]
fn a_client_that_is_killed_leaves_whole_frames_and_its_name_is_free() {
    let place = Place::new();
    let certificates = Certificates::make(&place, "a");
    let place = place.encrypted(&certificates, "");
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Quote>(&bridge, &actor);
    let mut client = Command::new(python())
        .args(["-c", STREAMING, &address(&bridge), TOKEN])
        .arg(&certificates.ca)
        .stdin(Stdio::null())
        .spawn()
        .expect("start Python");
    let mut last = 0;
    while last < 1000 {
        let got: Quote = expect(&mut actor);
        assert_eq!(got.sequence, last + 1);
        last = got.sequence;
    }
    client.kill().expect("kill");
    client.wait().expect("its end");
    wait_until("the end of the link", || {
        while let Ok(Some(frame)) = actor.try_recv() {
            let got: Quote = frame.read().expect("a quote");
            assert_eq!(got.sequence, last + 1, "none is lost or torn");
            last = got.sequence;
        }
        bridge.link("far").is_none()
    });
    Channel::connect(&address(&bridge), &options("far", &certificates.ca))
        .expect("the name is free");
}

#[test]
fn a_bridge_that_is_killed_is_a_lost_peer() {
    let place = Place::new();
    let certificates = Certificates::make(&place, "a");
    let place = place.encrypted(&certificates, "");
    let bridge = BridgeProcess::start(&place, None);
    let line = bridge.wait_for_log(&["listening", "tls:localhost:"]);
    let (_, rest) = line.split_once("tls:localhost:").expect("an address");
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let options = options("far", &certificates.ca);
    let address = format!("tls:localhost:{port}");
    let mut client = Channel::connect(&address, &options).expect("trusted");
    drop(bridge);
    let error = client.recv(Some(WATCHDOG)).expect_err("nobody is there");
    assert!(error.to_string().contains("hung up"), "{error}");
}

/// The blocks of `docs/operations.md` that open like this, one after the other.
fn documented(language: &str) -> String {
    let text = std::fs::read_to_string(repository().join("docs/operations.md")).expect("docs");
    let opening = format!("```{language}\n");
    let blocks = text.split(&opening).skip(1);
    let blocks = blocks.map(|block| block.split_once("```").expect("it is closed").0);
    let found: String = blocks.collect();
    assert!(!found.is_empty(), "no block of {language}");
    found
}

/// Replaces what cannot be the same in a test, which has to be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in: {text}");
    text.replace(from, to)
}

/// Runs documented commands in the place, with the programs of the project on the path.
fn follow(place: &Place, commands: &str) {
    let bin = contracts_binary();
    let bin = bin.parent().expect("a directory").display();
    let path = std::env::var("PATH").expect("a path");
    let made = Command::new("sh")
        .args(["-e", "-c", commands])
        .current_dir(place.path())
        .env("PATH", format!("{bin}:{path}"))
        .output()
        .expect("start a shell");
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
}

/// A bridge with the configuration in the place, on a port that is free.
fn start(place: &Place) -> Bridge {
    let file = place.path().join("bridge.toml");
    let config = Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
    Bridge::start(&config).unwrap_or_else(|error| panic!("{error}"))
}

/// The TLS endpoint, as the documented client is told of it.
fn encrypted(bridge: &Bridge) -> String {
    let address = bridge.addresses().iter().map(ToString::to_string);
    let mut found = address.filter(|address| address.starts_with("tls:"));
    found.next().expect("an endpoint with TLS")
}

#[test]
fn the_documented_steps_lead_from_an_empty_directory_to_a_link_over_tls() {
    let place = Place::new();
    follow(&place, &documented("sh tls"));
    let file = place.path().join("bridge.toml");
    let made = std::fs::read_to_string(&file).expect("init has made it");
    let endpoint = documented("toml tls");
    for line in endpoint.lines() {
        assert!(made.contains(&format!("#{line}\n")), "no comment: {line}");
    }
    let endpoint = replaced(&endpoint, "0.0.0.0:7443", "127.0.0.1:0");
    std::fs::write(&file, format!("{made}\n{endpoint}")).expect("write");
    let bridge = start(&place);
    let directory = place.path().to_str().expect("text");
    let run = |bridge: &Bridge, client: &str| {
        let client = replaced(client, "tls:bridge.example.org:7443", &encrypted(bridge));
        let script = format!(
            "import os, sys\nos.chdir(sys.argv[1])\n{client}    assert channel.fallback_code == 'REMOTE'\nprint('done')\n"
        );
        run_python(&script, &[directory])
    };
    run(&bridge, &documented("python tls")).assert_done();
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);

    // The same endpoint, asking for certificates.
    follow(&place, &documented("sh tls-client"));
    let asking = format!("{made}\n{endpoint}client_ca = \"ca.pem\"\n");
    std::fs::write(&file, asking).expect("write");
    let bridge = start(&place);
    run(&bridge, &documented("python tls-client")).assert_done();
    let without = run(&bridge, &documented("python tls"));
    assert!(!without.status.success(), "{}", without.output);
    let expected = "mycelium.exceptions.PeerLost: bridge refused the connection: ";
    assert!(without.output.contains(expected), "{}", without.output);
    assert!(without.output.contains("ssl_context"), "{}", without.output);
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}
