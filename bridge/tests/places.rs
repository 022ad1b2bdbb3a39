//! Where the bridge cannot listen, and another user: what the program says, and that it leaves nothing behind.

mod common;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use common::{Site, wait_for};

/// The user that owns nothing.
const NOBODY: u32 = 65534;

fn program(arguments: &[&str], site: &Site) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mycelium-bridge"));
    command.args(arguments).arg("--config").arg(site.config());
    command.stdin(Stdio::null());
    command
}

/// Exit code and standard error.
fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("it runs");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    (output.status.code(), text)
}

fn names(site: &Site) -> Vec<String> {
    let entries = fs::read_dir(site.path("")).expect("a directory");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names
        .map(|name| name.into_string().expect("text"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_place_where_nobody_can_listen_is_named_with_what_to_do_and_nothing_is_left() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let endpoint = |host: &str| {
        format!(
            "[[listen]]\naddress = 'tcp:{host}'\ntoken_file = 'token'\nallow_plaintext = true\n"
        )
    };
    for (bridge, rest, expected, hint) in [
        (
            "listen = 'missing/bridge.sock'",
            String::new(),
            "listen directory is not usable: path=DIR/missing: No such file or directory (os error 2)".to_owned(),
            "create the directory first, writable for this user only",
        ),
        (
            "listen = 'token/bridge.sock'",
            String::new(),
            "listen directory is not usable: path=DIR/token: not a directory".to_owned(),
            "create the directory first, writable for this user only",
        ),
        (
            "listen = 'token'",
            String::new(),
            "listen path is taken by something that is no socket: path=DIR/token, kind=file".to_owned(),
            "choose another path for listen, or move that away yourself",
        ),
        (
            "listen = '.'",
            String::new(),
            "listen path is taken by something that is no socket: path=DIR, kind=directory".to_owned(),
            "choose another path for listen, or move that away yourself",
        ),
        (
            "listen = 'first.sock'",
            endpoint(&format!("127.0.0.1:{port}")),
            format!("cannot listen: address=tcp:127.0.0.1:{port}: Address already in use (os error 98)"),
            "choose another port, or stop who listens (ss -ltnp)",
        ),
        (
            "",
            endpoint("192.0.2.1:7001"),
            "cannot listen: address=tcp:192.0.2.1:7001: Cannot assign requested address (os error 99)".to_owned(),
            "choose a name or an address of this host",
        ),
        (
            "listen = 'first.sock'",
            format!("[metrics]\nlisten = '127.0.0.1:{port}'\n"),
            format!("cannot listen: address=127.0.0.1:{port}: Address already in use (os error 98)"),
            "choose another port, or stop who listens (ss -ltnp)",
        ),
        (
            "listen = 'first.sock'\ncontrol = 'token'",
            String::new(),
            "listen path is taken by something that is no socket: path=DIR/token, kind=file".to_owned(),
            "choose another path for listen, or move that away yourself",
        ),
    ] {
        let site = Site::new(bridge, &rest);
        fs::write(site.path("token"), "a-token-of-legal-length").expect("write");
        let (code, stderr) = run(&mut program(&["run"], &site));
        assert_eq!(code, Some(1), "{stderr}");
        let directory = site.path("");
        let directory = directory.to_str().expect("text").trim_end_matches('/');
        let shown = stderr.replace(directory, "DIR");
        let expected = format!("error: {expected}\nhint: {hint}\n");
        assert!(shown.ends_with(&expected), "expected: {expected}\nactual: {shown}");
        assert_eq!(names(&site), ["bridge.toml", "token"]);
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
fn another_user_can_neither_take_the_place_nor_look_at_the_bridge() {
    let site = Site::new("listen = 'bridge.sock'", "");
    let mut other = program(&["run"], &site);
    other.uid(NOBODY).gid(NOBODY);
    fs::set_permissions(site.path(""), PermissionsExt::from_mode(0o755)).expect("a mode");
    // Only root can become another user, and that user has to reach the program and the contracts.
    let mut probe = program(&["check"], &site);
    let reached = probe.uid(NOBODY).gid(NOBODY).output();
    if !reached.is_ok_and(|output| output.status.success()) {
        eprintln!("not tested: this user cannot become another one that reaches the program");
        return;
    }
    let socket = site.path("bridge.sock");
    let (code, stderr) = run(&mut other);
    assert_eq!(code, Some(1), "{stderr}");
    let expected = format!(
        "error: cannot bind the socket: path={}: Permission denied (os error 13)\n\
         hint: check owner and permissions of the path and of its directory\n",
        socket.display()
    );
    assert!(stderr.ends_with(&expected), "{stderr}");

    let mut first = program(&["run"], &site)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let control = site.path("bridge.sock.control");
    wait_for("the control socket", || UnixStream::connect(&control).ok());
    let (code, stderr) = run(program(&["status"], &site).uid(NOBODY).gid(NOBODY));
    assert_eq!(code, Some(1), "{stderr}");
    let expected = "error: bridge gave no answer: control=";
    assert!(
        stderr.starts_with(expected) && stderr.contains("Permission denied"),
        "{stderr}"
    );
    first.kill().expect("it runs");
    first.wait().expect("its end");
}
