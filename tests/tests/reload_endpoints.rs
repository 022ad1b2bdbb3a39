//! A new configuration for the places where a running bridge is met: certificates, tokens, limits, metrics, control socket.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use mycelium_bridge::bridge::Bridge;
use mycelium_bridge::event_loop::ReloadCounters;
use mycelium_messages::bandit::{CONTRACTS, Quote};
use mycelium_tests::reload::{edit, reload};
use mycelium_tests::tls::Certificates;
use mycelium_tests::{
    BridgeProcess, Place, TOKEN, WATCHDOG, expect, quote, subscribe, wait_for, wait_until,
};
use nix::sys::signal::Signal as Sig;
use shm_transport::channel::{Channel, ConnectOptions};
use shm_transport::error::HandshakeError;
use shm_transport::socket::TlsOptions;

fn options(name: &str, ca: &Path, token: &str) -> ConnectOptions {
    ConnectOptions {
        token: token.to_owned(),
        timeout: WATCHDOG,
        tls: TlsOptions {
            ca_file: Some(ca.to_owned()),
            certificate: None,
        },
        ..ConnectOptions::for_contracts(&CONTRACTS).named(name)
    }
}

fn address(bridge: &Bridge) -> String {
    bridge.addresses()[0].to_string()
}

#[test]
fn a_renewed_certificate_counts_at_once_and_who_is_connected_stays() {
    let place = Place::new();
    let (first, second) = (
        Certificates::make(&place, "a"),
        Certificates::make(&place, "b"),
    );
    let (first_ca, second_ca) = (place.path().join("a-ca.pem"), second.ca.clone());
    let place = place.encrypted(&first, "");
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    subscribe::<Quote>(&bridge, &actor);
    let address = address(&bridge);
    let with = |name: &str, ca: &Path| Channel::connect(&address, &options(name, ca, TOKEN));
    let mut before = with("before", &first_ca).expect("trusted");

    // Only one of the two files is there yet.
    std::fs::copy(&second.server.0, &first.server.0).expect("copy");
    reload(&bridge);
    assert_eq!(
        bridge.reloads(),
        ReloadCounters {
            applied: 0,
            refused: 1
        }
    );
    with("between", &first_ca).expect("the old certificate still counts");

    first.renew_from(&second);
    reload(&bridge);
    assert_eq!(
        bridge.reloads(),
        ReloadCounters {
            applied: 1,
            refused: 1
        }
    );
    let error = with("late", &first_ca).expect_err("another authority");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    with("after", &second_ca).expect("the new certificate counts");
    before.advertise::<Quote>().expect("advertise");
    before.publish(&quote(1), Some(WATCHDOG)).expect("publish");
    assert_eq!(expect::<Quote>(&mut actor), quote(1));

    // A token that changes in its file, and a client that must have a certificate from now on.
    std::fs::write(place.path().join("token"), "another-token-for-scenarios").expect("write");
    reload(&bridge);
    let refused = with("old-token", &second_ca);
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
    let new_token = options("new-token", &second_ca, "another-token-for-scenarios");
    Channel::connect(&address, &new_token).expect("the new token");
    before.publish(&quote(2), Some(WATCHDOG)).expect("publish");
    assert_eq!(expect::<Quote>(&mut actor), quote(2));
    before.close().expect("close");
    assert_eq!(bridge.shut_down().expect("control plane").exit_code(), 0);
}

#[test]
fn the_log_says_until_when_a_certificate_is_valid_and_which_file_is_wrong() {
    let place = Place::new();
    let ours = Certificates::make_until(&place, "a", (2020, 1, 1));
    let soon = Command::new("date")
        .args(["-u", "-d", "+5 days", "+%Y %m %d"])
        .output()
        .expect("date");
    let soon = String::from_utf8(soon.stdout).expect("text");
    let parts: Vec<i32> = soon
        .split_whitespace()
        .map(|it| it.parse().expect("a number"))
        .collect();
    let soon = (parts[0], parts[1] as u8, parts[2] as u8);
    let soon = Certificates::make_until(&place, "soon", soon);
    let fresh = Certificates::make_until(&place, "fresh", (2100, 6, 7));
    let place = place.encrypted(&ours, "");
    let mut bridge = BridgeProcess::start(&place, None);
    bridge.wait_for_log(&[
        "the certificate has expired",
        "2020-01-01T00:00:00Z",
        "tls:localhost:",
    ]);

    ours.renew_from(&soon);
    bridge.signal(Sig::SIGHUP);
    bridge.wait_for_log(&["the certificate expires soon", "days_left=4"]);
    ours.renew_from(&fresh);
    bridge.signal(Sig::SIGHUP);
    bridge.wait_for_log(&[
        "endpoint has another certificate",
        "2100-06-07T00:00:00Z",
        "a-server.pem",
    ]);

    std::fs::write(&ours.server.1, "no key").expect("write");
    bridge.signal(Sig::SIGHUP);
    bridge.wait_for_log(&[
        "the new configuration is wrong",
        "key cannot be read",
        "a-server-key.pem",
    ]);
    bridge.wait_for_log(&["nothing is changed"]);
    bridge.signal(Sig::SIGTERM);
    assert_eq!(bridge.wait().code(), Some(0), "{}", bridge.log());
}

#[test]
fn limits_of_an_endpoint_change_and_its_socket_stays() {
    let place = Place::new()
        .listening()
        .bridge("max_pending_handshakes = 1");
    let bridge = place.start();
    let inode = || {
        use std::os::unix::fs::MetadataExt as _;
        std::fs::metadata(place.socket()).expect("the socket").ino()
    };
    let before = inode();
    let options = ConnectOptions {
        timeout: WATCHDOG,
        ..ConnectOptions::default()
    };
    let _silent = UnixStream::connect(place.socket()).expect("connect");
    let refused = Channel::connect(&place.address(), &options);
    assert!(
        matches!(refused, Err(HandshakeError::Refused { name: "BUSY", .. })),
        "{refused:?}"
    );
    edit(&place, |text| {
        text.replace("handshakes = 1", "handshakes = 2")
    });
    reload(&bridge);
    Channel::connect(&place.address(), &options).expect("a place is free");
    assert_eq!(inode(), before, "the very same socket");
}

#[test]
fn what_holds_for_clients_holds_for_the_next_one() {
    let place = Place::new()
        .listening()
        .contracts(|ours| ours.replace("Signal", "Advice"));
    let bridge = place.start();
    let options = |name: &str| ConnectOptions::for_contracts(&CONTRACTS).named(name);
    let first = Channel::connect(&place.address(), &options("first")).expect("topics only");
    edit(&place, |text| {
        format!(
            "{}\n[contracts]\non_mismatch = \"refuse\"\n",
            text.replace("[bridge]", "[bridge]\ntransport = \"socket\"")
        )
    });
    reload(&bridge);
    let refused = Channel::connect(&place.address(), &options("second"));
    assert!(
        matches!(
            refused,
            Err(HandshakeError::Refused {
                name: "SCHEMA_MISMATCH",
                ..
            })
        ),
        "{refused:?}"
    );
    let unknown = ConnectOptions::default().named("third");
    let third = Channel::connect(&place.address(), &unknown).expect("it has no contracts");
    let fallback = third.fallback().expect("a reason").to_string();
    assert!(fallback.contains("REQUESTED"), "{fallback}");
    assert!(bridge.link("first").is_some());
    drop(first);
}

fn metrics(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("bound").port()
}

#[test]
fn metrics_and_control_socket_move_and_a_port_that_is_taken_is_tried_again() {
    let (first, second) = (
        free_port(),
        std::net::TcpListener::bind("127.0.0.1:0").expect("bind"),
    );
    let taken = second.local_addr().expect("bound").port();
    let table = |port: u16| format!("[metrics]\nlisten = \"127.0.0.1:{port}\"");
    let place = Place::new().listening().table(&table(first));
    let mut bridge = BridgeProcess::listening(&place, None);
    let text = wait_for("metrics", || metrics(first));
    assert!(text.contains("mycelium_build_info"), "{text}");

    edit(&place, |text| {
        text.replace(&table(first), &table(taken))
            .replace("[bridge]", "[bridge]\ncontrol = \"other.control\"")
    });
    bridge.signal(Sig::SIGHUP);
    bridge.wait_for_log(&["no metrics; reload again", &taken.to_string()]);
    wait_until("the end of the old port", || metrics(first).is_none());
    drop(second);
    bridge.signal(Sig::SIGHUP);
    let text = wait_for("metrics", || metrics(taken));
    assert!(
        text.contains("mycelium_reloads_total{result=\"applied\"} 2"),
        "{text}"
    );
    let status = || {
        let path = place.path().join("other.control");
        let mut stream = UnixStream::connect(path).ok()?;
        stream.write_all(b"{\"get\":\"status\"}\n").ok()?;
        stream.shutdown(std::net::Shutdown::Write).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    };
    let status = wait_for("an answer", status);
    assert!(status.contains(&format!("127.0.0.1:{taken}")), "{status}");
    assert!(!place.path().join("bridge.sock.control").exists());

    edit(&place, |text| text.replace(&table(taken), ""));
    bridge.signal(Sig::SIGHUP);
    wait_until("the end of the metrics", || metrics(taken).is_none());
    bridge.signal(Sig::SIGTERM);
    assert_eq!(bridge.wait().code(), Some(0), "{}", bridge.log());
}
