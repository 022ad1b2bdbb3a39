//! UNIX endpoints beside the one of `[bridge]`: their tokens, from a file and from the environment, and what a client gets.

use mycelium_messages::bandit::{CONTRACTS, Quote};
use mycelium_tests::{
    BridgeProcess, Place, TOKEN, WATCHDOG, expected_transport, quote, run_python, wait_until,
};
use shm_transport::channel::{Channel, ConnectOptions};
use shm_transport::error::HandshakeError;

/// Another one than that of the file.
const OTHER_TOKEN: &str = "a-token-from-the-environment";

fn options(name: &str, token: &str) -> ConnectOptions {
    ConnectOptions {
        token: token.to_owned(),
        timeout: WATCHDOG,
        ..ConnectOptions::for_contracts(&CONTRACTS).named(name)
    }
}

const CLIENT: &str = r#"
import sys
import mycelium
open_, file, variable, token, other = sys.argv[1:]
for address, right, wrong in ((file, token, other), (variable, other, token)):
    for bad in ("", wrong):
        try:
            mycelium.connect(address, token=bad)
        except mycelium.HandshakeRefused as error:
            assert error.name == "NOT_ALLOWED", error
        else:
            raise AssertionError(address)
    mycelium.connect(address, token=right).close()
mycelium.connect(open_).close()
print("done")
"#;

#[test]
fn each_endpoint_asks_for_its_own_token_and_all_lead_to_the_same_bridge() {
    let place = Place::new()
        .listening()
        .table("[[listen]]\naddress = 'unix:file.sock'\ntoken_file = 'token'")
        .table("[[listen]]\naddress = 'unix:variable.sock'\ntoken_env = 'BRIDGE_TOKEN'");
    std::fs::write(place.path().join("token"), format!("{TOKEN}\n")).expect("write the token");
    let mut bridge = BridgeProcess::start_with(&place, [("BRIDGE_TOKEN", OTHER_TOKEN)]);
    bridge.wait_for_log(&["bridge is ready", "endpoints=3"]);
    let address = |name: &str| format!("unix:{}", place.path().join(name).display());
    let (file, variable) = (address("file.sock"), address("variable.sock"));
    let open = format!("unix:{}", place.socket().display());
    for (address, token) in [(&file, ""), (&file, OTHER_TOKEN), (&variable, TOKEN)] {
        let refused = Channel::connect(address, &options("x", token)).expect_err("refused");
        assert!(
            matches!(
                refused,
                HandshakeError::Refused {
                    name: "NOT_ALLOWED",
                    ..
                }
            ),
            "{address}: {refused}"
        );
    }
    let mut publisher = Channel::connect(&open, &options("publisher", "")).expect("no token");
    for (address, token, name) in [(&file, TOKEN, "a"), (&variable, OTHER_TOKEN, "b")] {
        let mut client = Channel::connect(address, &options(name, token)).expect("its token");
        assert_eq!(client.transport(), expected_transport());
        client.subscribe::<Quote>().expect("subscribe");
        publisher
            .publish(&quote(7), Some(WATCHDOG))
            .expect("publish");
        let heard: Quote = client
            .recv(Some(WATCHDOG))
            .expect("a frame")
            .read()
            .expect("a quote");
        assert_eq!(heard, quote(7));
        client.close().expect("close");
    }
    run_python(CLIENT, &[&open, &file, &variable, TOKEN, OTHER_TOKEN]).assert_done();
    publisher.close().expect("close");
    bridge.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(bridge.wait().code(), Some(0));
    let log = bridge.log();
    assert!(!log.contains(TOKEN) && !log.contains(OTHER_TOKEN), "{log}");
    wait_until("the end of the sockets", || {
        ["file.sock", "variable.sock"]
            .iter()
            .all(|name| !place.path().join(name).exists())
    });
}
