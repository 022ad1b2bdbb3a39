//! The command line: what it writes, what it says, and with which code it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const CONTRACTS: &str =
    "messages: { Tick: { tlv_type: 1000, domain: Ticks, fields: { price: { type: f64 } } } }\n";
const CONFIG: &str = "[[contracts]]\nfile = \"ticks.yaml\"\nrust = \"out/ticks.rs\"\npython = \"out/ticks.py\"\ndocs = \"out/ticks.md\"\nvectors = \"out/ticks.json\"\n";

fn run(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mycelium-contracts"));
    command
        .current_dir(folder)
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn project() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("ticks.yaml"), CONTRACTS).expect("writable");
    fs::write(folder.path().join("generate.toml"), CONFIG).expect("writable");
    folder
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const GENERATE: [&str; 3] = ["generate", "--config", "generate.toml"];
const CHECK: [&str; 4] = ["generate", "--check", "--config", "generate.toml"];

#[test]
fn generate_writes_what_is_missing_and_then_has_nothing_to_do() {
    let folder = project();
    let first = run(folder.path(), &GENERATE);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    assert!(
        text(&first.stdout).contains("wrote out/ticks.rs"),
        "{}",
        text(&first.stdout)
    );
    for name in ["ticks.rs", "ticks.py", "ticks.md"] {
        let content = fs::read_to_string(folder.path().join("out").join(name)).expect("written");
        let head: String = content.lines().take(5).collect();
        assert!(head.contains("do not edit by hand"), "{name}: {head}");
    }
    let second = run(folder.path(), &GENERATE);
    assert_eq!(text(&second.stdout), "4 generated files are up to date\n");
}

#[test]
fn check_fails_after_a_changed_field_and_names_files_and_command() {
    let folder = project();
    assert_eq!(run(folder.path(), &GENERATE).status.code(), Some(0));
    assert_eq!(run(folder.path(), &CHECK).status.code(), Some(0));
    let before = fs::read(folder.path().join("out/ticks.rs")).expect("written");
    let changed = CONTRACTS.replace("f64", "u64");
    fs::write(folder.path().join("ticks.yaml"), changed).expect("writable");
    let output = run(folder.path(), &CHECK);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    for name in [
        "out/ticks.rs",
        "out/ticks.py",
        "out/ticks.md",
        "out/ticks.json",
    ] {
        assert!(
            said.contains(&format!("error: not up to date: {name}\n")),
            "{said}"
        );
    }
    let command = "cargo run -p mycelium-contracts -- generate --config generate.toml";
    assert!(said.contains(command), "{said}");
    assert_eq!(
        fs::read(folder.path().join("out/ticks.rs")).expect("left alone"),
        before
    );
}

#[test]
fn errors_in_a_contracts_file_write_nothing() {
    let folder = project();
    let wrong = CONTRACTS.replace("1000", "7").replace("f64", "f65");
    fs::write(folder.path().join("ticks.yaml"), wrong).expect("writable");
    let output = run(folder.path(), &GENERATE);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("ticks.yaml:1:31: message 'Tick': tlv_type=7"),
        "{said}"
    );
    assert!(
        said.contains("field 'price': unknown type: type=f65"),
        "{said}"
    );
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_wrong_configuration_ends_with_code_two() {
    let folder = project();
    let missing = run(folder.path(), &["generate", "--config", "absent.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(
        text(&missing.stderr).contains("path=absent.toml"),
        "{}",
        text(&missing.stderr)
    );
    fs::write(
        folder.path().join("generate.toml"),
        CONFIG.replace("docs", "dosc"),
    )
    .expect("writable");
    let typo = run(folder.path(), &GENERATE);
    assert_eq!(typo.status.code(), Some(2));
    assert!(
        text(&typo.stderr).contains("unknown field `dosc`"),
        "{}",
        text(&typo.stderr)
    );
    assert_eq!(run(folder.path(), &["explode"]).status.code(), Some(2));
}

#[test]
fn check_of_a_file_tells_what_is_in_it() {
    let folder = project();
    let good = run(folder.path(), &["check", "ticks.yaml"]);
    assert_eq!(good.status.code(), Some(0));
    assert_eq!(
        text(&good.stdout),
        "ok: 1 message, 0 constants, 0 warnings\n"
    );
    fs::write(folder.path().join("bad.yaml"), "messages: [\n").expect("writable");
    let bad = run(folder.path(), &["check", "bad.yaml"]);
    assert_eq!(bad.status.code(), Some(1));
    assert!(
        text(&bad.stdout).starts_with("bad.yaml:"),
        "{}",
        text(&bad.stdout)
    );
    assert!(
        text(&bad.stdout).ends_with("1 error, 0 warnings\n"),
        "{}",
        text(&bad.stdout)
    );
}

#[test]
fn the_generated_files_of_this_repository_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let output = run(root, &["generate", "--check"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}
