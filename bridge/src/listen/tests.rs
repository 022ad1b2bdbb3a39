use super::*;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn a_bound_socket_is_private_and_takes_connections_until_it_is_dropped() {
    let directory = directory();
    let path = directory.path().join("bridge.sock");
    let listener = Listener::bind(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = UnixStream::connect(&path).unwrap();
    let (mut server, _) = listener.socket.accept().unwrap();
    client.write_all(b"x").unwrap();
    let mut byte = [0];
    server.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn a_socket_in_use_is_refused_with_the_pid_of_its_owner() {
    let directory = directory();
    let path = directory.path().join("bridge.sock");
    let _first = Listener::bind(&path).unwrap();
    let error = Listener::bind(&path).unwrap_err();
    let expected = format!(
        "socket path in use: path={}, pid={}",
        path.display(),
        std::process::id()
    );
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert!(path.exists(), "the live socket stays");
}

#[test]
fn a_left_over_socket_is_replaced() {
    let directory = directory();
    let path = directory.path().join("bridge.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(
        path.exists(),
        "std leaves the file behind, as a killed process does"
    );
    let _listener = Listener::bind(&path).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let directory = directory();
    let file = directory.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    let error = Listener::bind(&file).unwrap_err();
    assert!(
        matches!(error, ListenError::NotASocket { kind: "file", .. }),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");

    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let error = Listener::bind(&link).unwrap_err();
    assert!(
        matches!(
            error,
            ListenError::NotASocket {
                kind: "symbolic link",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn only_its_own_file_is_removed_at_the_end() {
    let directory = directory();
    let path = directory.path().join("bridge.sock");
    let listener = Listener::bind(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "somebody else's").unwrap();
    drop(listener);
    assert!(path.exists());
}

#[test]
fn a_missing_directory_and_a_long_path_are_named() {
    let directory = directory();
    let error = Listener::bind(&directory.path().join("missing/bridge.sock")).unwrap_err();
    assert!(matches!(error, ListenError::Directory { .. }), "{error}");
    let error = Listener::bind(&directory.path().join("x".repeat(120))).unwrap_err();
    assert!(error.to_string().contains("legal=1..=107 bytes"), "{error}");
}

#[test]
fn a_peer_is_checked_by_its_user() {
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let credentials = PeerCredentials::of(&ours).unwrap();
    assert_eq!(credentials.pid, std::process::id().cast_signed());
    assert_eq!(credentials.check(&[credentials.uid]), Ok(()));
    let error = credentials.check(&[credentials.uid + 1]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("uid={}", credentials.uid)),
        "{error}"
    );
    assert!(
        credentials.check(&[]).is_err(),
        "an empty list allows nobody"
    );
}
