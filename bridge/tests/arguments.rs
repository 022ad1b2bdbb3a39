//! The command line as people get it wrong: words that are not known, and files that are no configuration.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use common::Site;

/// Where nothing but the arguments says what to do.
fn program(arguments: &[&str], directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mycelium-bridge"));
    command.args(arguments).current_dir(directory);
    for name in ["MYCELIUM_CONFIG", "MYCELIUM_LOG", "MYCELIUM_LOG_FORMAT"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Exit code, standard output and standard error.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn check(path: &str, directory: &Path) -> String {
    let (code, stdout, stderr) = run(&mut program(&["check", "--config", path], directory));
    assert_eq!((code, &*stdout), (Some(2), ""), "{stderr}");
    stderr
}

#[test]
fn what_is_no_configuration_is_said_with_what_to_do() {
    let site = Site::new("", "");
    let directory = site.path("");
    let write = |name: &str, bytes: &[u8]| fs::write(site.path(name), bytes).expect("write");
    write("empty.toml", b"");
    write("latin.toml", b"[bridge]\nlog = \"\xC3\xBC\xFF\"\n");
    write("zeros.toml", b"a\0b");
    symlink("loop.toml", site.path("loop.toml")).expect("a link");
    for (path, expected) in [
        (
            "missing.toml",
            "missing.toml:1:1: cannot read the configuration: No such file or directory (os error 2)\n\
             hint: name an existing file with --config, or write one with: mycelium-bridge init\n",
        ),
        (
            ".",
            ".:1:1: cannot read the configuration: Is a directory (os error 21)\n\
             hint: name the file in it, for example DIRECTORY/bridge.toml\n",
        ),
        (
            "empty.toml/bridge.toml",
            "empty.toml/bridge.toml:1:1: cannot read the configuration: Not a directory (os error 20)\n\
             hint: name a readable TOML file with --config\n",
        ),
        (
            "loop.toml",
            "loop.toml:1:1: cannot read the configuration: Too many levels of symbolic links (os error 40)\n\
             hint: name a readable TOML file with --config\n",
        ),
        (
            "empty.toml",
            "empty.toml:1:1: missing table [bridge]\nhint: add [bridge] with at least contracts = \"FILE\"\n",
        ),
        (
            "latin.toml",
            "latin.toml:2:9: not valid UTF-8: byte=0xFF\nhint: save the file as UTF-8\n",
        ),
        (
            "/dev/zero",
            "/dev/zero:1:1: the configuration is too long: max=4194304 bytes\nhint: name a TOML file with --config\n",
        ),
    ] {
        assert_eq!(check(path, &directory), format!("error: {expected}"));
    }
    let zeros = check("zeros.toml", &directory);
    assert!(zeros.starts_with("error: zeros.toml:1:"), "{zeros}");
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is left out says so")]
fn a_file_that_this_user_may_not_read_is_said_to_be_one() {
    let site = Site::new("", "");
    let file = site.config();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o000)).expect("a mode");
    if fs::read(&file).is_ok() {
        eprintln!("not tested: this user reads everything");
        return;
    }
    let expected = "error: bridge.toml:1:1: cannot read the configuration: Permission denied (os error 13)\n\
                    hint: let this user read the file and enter its directories\n";
    assert_eq!(check("bridge.toml", &site.path("")), expected);
}

#[test]
fn a_mark_at_the_beginning_ends_of_lines_of_another_system_and_a_pipe_are_no_mistakes() {
    let site = Site::new("listen = 'bridge.sock'", "");
    let text = fs::read_to_string(site.config()).expect("text");
    fs::write(site.path("mark.toml"), format!("\u{feff}{text}")).expect("write");
    fs::write(site.path("crlf.toml"), text.replace('\n', "\r\n")).expect("write");
    for name in ["mark.toml", "crlf.toml"] {
        let (code, stdout, stderr) =
            run(&mut program(&["check", "--config", name], &site.path("")));
        assert_eq!((code, &*stderr), (Some(0), ""), "{name}");
        assert!(stdout.starts_with("ok: 0 workers, "), "{stdout}");
    }
    let mut piped = program(&["check", "--config", "/dev/stdin"], &site.path(""));
    let file = fs::File::open(site.config()).expect("a file");
    let mut cat = Command::new("cat")
        .stdin(file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("cat");
    let (code, _, stderr) = run(piped.stdin(cat.stdout.take().expect("a pipe")));
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert!(cat.wait().expect("its end").success());
}

#[test]
fn without_an_argument_the_configuration_is_that_of_the_directory_or_of_the_environment() {
    let site = Site::new("", "");
    let (code, stdout, stderr) = run(&mut program(&["check"], &site.path("")));
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert!(stdout.starts_with("ok: "), "{stdout}");

    let elsewhere = tempfile::tempdir().expect("a directory");
    let (code, _, stderr) = run(&mut program(&["run"], elsewhere.path()));
    assert_eq!(code, Some(2));
    assert!(
        stderr.starts_with("error: bridge.toml:1:1: cannot read the configuration: "),
        "{stderr}"
    );
    let mut named = program(&["run"], elsewhere.path());
    named
        .env("MYCELIUM_CONFIG", site.config())
        .env("MYCELIUM_LOG", "warn,=,")
        .env("MYCELIUM_LOG_FORMAT", "json");
    let (code, _, stderr) = run(&mut named);
    assert_eq!(code, Some(2));
    let expected = "error: log filter is not valid: value='warn,=,'";
    assert!(stderr.starts_with(expected), "{stderr}");
    // An argument goes before the environment, and the bridge ends at once: it has no workers.
    let (code, _, stderr) = run(named.args(["--log", "info"]));
    assert_eq!(code, Some(0), "{stderr}");
    let last = stderr.lines().last().expect("a line");
    let last: serde_json::Value = serde_json::from_str(last).expect("JSON");
    let message = last["message"].as_str().expect("text");
    assert!(message.starts_with("bridge stopped"), "{message}");
}

#[test]
fn every_command_has_a_help_and_an_unknown_one_is_answered_with_it() {
    let here = Path::new(".");
    let (code, help, _) = run(&mut program(&["--help"], here));
    assert_eq!(code, Some(0));
    let (_, commands) = help.split_once("Commands:\n").expect("a list");
    let (commands, _) = commands.split_once("\n\n").expect("its end");
    let mut count = 0;
    for line in commands.lines().filter(|line| !line.contains("  help ")) {
        let (name, what) = line.trim().split_once(' ').expect("a name and a sentence");
        assert!(what.trim().len() > 20, "{line}");
        let (code, help, stderr) = run(&mut program(&[name, "--help"], here));
        assert_eq!((code, &*stderr), (Some(0), ""), "{name}");
        assert!(
            help.contains(&format!("Usage: mycelium-bridge {name}")),
            "{help}"
        );
        count += 1;
    }
    assert!(count >= 9, "{commands}");
    for (arguments, expected) in [
        (&[][..], "Usage: mycelium-bridge <COMMAND>"),
        (&["rnu"][..], "unrecognized subcommand 'rnu'"),
        (
            &["check", "--confg", "a"][..],
            "unexpected argument '--confg'",
        ),
        (&["check", "a.toml"][..], "unexpected argument 'a.toml'"),
        (
            &["check", "--config"][..],
            "a value is required for '--config <FILE>'",
        ),
        (&["tap"][..], "<MESSAGE>"),
    ] {
        let (code, stdout, stderr) = run(&mut program(arguments, here));
        assert_eq!((code, &*stdout), (Some(2), ""), "{arguments:?}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}
