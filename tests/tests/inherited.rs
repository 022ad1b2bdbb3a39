//! A connection that somebody else has made: `fd:N` in both languages, from a socket of this host and from a port.

use std::net::TcpStream;
use std::os::fd::IntoRawFd as _;
use std::os::unix::net::UnixStream;

use mycelium_messages::bandit::{CONTRACTS, Quote};
use mycelium_tests::{
    Place, TOKEN, WATCHDOG, expected_transport, publish, quote, run_python, wait_until,
};
use shm_transport::channel::{Channel, ConnectOptions, Transport};

fn options(name: &str) -> ConnectOptions {
    ConnectOptions {
        token: TOKEN.to_owned(),
        timeout: WATCHDOG,
        ..ConnectOptions::for_contracts(&CONTRACTS).named(name)
    }
}

#[test]
fn a_rust_client_takes_over_a_connection() {
    let place = Place::new().listening().port("");
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    let addresses = bridge.addresses().iter().map(ToString::to_string);
    let mut port = addresses.filter_map(|it| it.strip_prefix("tcp:").map(str::to_owned));
    let port = port.next_back().expect("a port");
    let local = UnixStream::connect(place.socket()).expect("connect");
    let remote = TcpStream::connect(port).expect("connect");
    for (number, name, transport) in [
        (local.into_raw_fd(), "local", expected_transport()),
        (remote.into_raw_fd(), "remote", Transport::Socket),
    ] {
        let mut client = Channel::connect(&format!("fd:{number}"), &options(name))
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(client.transport(), transport, "{name}");
        client.subscribe::<Quote>().expect("subscribe");
        publish(&mut actor, &quote(7));
        let heard: Quote = client
            .recv(Some(WATCHDOG))
            .expect("a frame")
            .read()
            .expect("a quote");
        assert_eq!(heard, quote(7));
        client.close().expect("close");
        wait_until("the end of the link", || bridge.link(name).is_none());
    }
}

#[test]
fn a_descriptor_that_is_no_connection_is_said_to_be_none() {
    let file = tempfile::tempfile().expect("a file");
    for wrong in [file.into_raw_fd(), 1_000_000] {
        let error = Channel::connect(&format!("fd:{wrong}"), &options("none"))
            .expect_err("no connection")
            .to_string();
        assert!(error.contains(&format!("fd:{wrong}")), "{error}");
    }
}

/// The parent connects, the child has the connection, as with a program that prepares one for another user.
const PARENT: &str = r#"
import socket, subprocess, sys

path, transport = sys.argv[1:]
child = '''
import sys
import mycelium
from mycelium.messages import Quote
with mycelium.connect(sys.argv[1], name="child") as channel:
    assert channel.transport == sys.argv[2], channel.fallback_reason
    channel.subscribe(Quote)
    print(channel.recv(timeout=50).sequence, "heard", flush=True)
'''
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
number = connection.fileno()
subprocess.run([sys.executable, "-c", child, f"fd:{number}", transport], pass_fds=[number], check=True)

import mycelium

for wrong in ("fd:1000000", "fd:x"):
    try:
        mycelium.connect(wrong)
    except mycelium.AddressError as error:
        assert wrong in str(error) or wrong.removeprefix("fd:") in str(error), error
    else:
        raise AssertionError(wrong)
print("done")
"#;

#[test]
fn a_python_client_takes_over_a_connection_of_its_parent() {
    let place = Place::new().listening();
    let bridge = place.start();
    let mut actor = bridge.attach("actor").expect("attach");
    let socket = place.socket();
    let transport = match expected_transport() {
        Transport::Shm => "shm",
        Transport::Socket => "socket",
    };
    let parent = std::thread::spawn(move || {
        run_python(PARENT, &[socket.to_str().expect("text"), transport])
    });
    wait_until("the child's answer", || {
        publish(&mut actor, &quote(7));
        parent.is_finished()
    });
    let finished = parent.join().expect("the parent");
    finished.assert_done();
    assert!(finished.output.contains("7 heard"), "{}", finished.output);
}
