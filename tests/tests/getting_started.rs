//! The first page of the Python SDK's documentation is run word for word: as one shell script, with a fresh virtual
//! environment into which the package is installed.

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::process::Command;

use mycelium_tests::pages::{Block, blocks};
use mycelium_tests::{bridge_binary, repository};
use shm_transport::disable::VARIABLE;

const PAGE: &str = "docs/python/getting-started.md";
/// Seconds after which a step that hangs is given up.
const WATCHDOG_S: u32 = 300;

/// The page as a script: files are written, commands run, and their output is compared with what the page shows.
fn script(page: &str) -> String {
    let mut script = String::from("set -euo pipefail\n");
    let mut step = 0;
    for block in blocks(page) {
        let Block {
            language,
            text,
            mark,
            name,
        } = block;
        step += 1;
        match (language, mark) {
            ("python" | "toml", "") => {
                assert!(name.contains('.'), "a file needs its name: {text}");
                write!(script, "cat > {name} <<'END OF FILE'\n{text}END OF FILE\n")
            }
            // A release build takes minutes and is not what the page is about: the caller has one on the path.
            ("sh", "the bridge is built") => Ok(()),
            ("sh", "") => write!(script, "{{\n{text}}} > output 2>&1 || {{ cat output; exit 1; }}\ncat output\n"),
            ("sh", mark) => {
                let until = mark
                    .strip_prefix("in the background, until: ")
                    .unwrap_or_else(|| panic!("unknown mark: {mark}"));
                write!(
                    script,
                    "{{\n{text}}} > background.log 2>&1 &\nbackground=$!\n\
                     trap 'pkill --parent $background; wait $background; cat background.log' EXIT\n\
                     until grep -q '{until}' background.log; do kill -0 $background; sleep 0.05; done\n"
                )
            }
            ("text", _) => write!(
                script,
                "cat > shown.{step} <<'END OF FILE'\n{text}END OF FILE\ndiff shown.{step} output\n"
            ),
            other => panic!("the page has a block that nobody runs: {other:?}"),
        }
        .expect("writing to a string");
    }
    script.push_str("echo the page is done\n");
    script
}

#[test]
fn the_getting_started_page_works_word_for_word() {
    let page = std::fs::read_to_string(repository().join(PAGE)).expect("the page");
    let script = script(&page);
    let place = tempfile::tempdir().expect("a directory");
    for part in ["contracts", "python-sdk"] {
        symlink(repository().join(part), place.path().join(part)).expect("a link");
    }
    std::fs::write(place.path().join("page.sh"), script).expect("the script");
    let bin = bridge_binary();
    let bin = bin.parent().expect("a directory");
    let path = std::env::var("PATH").expect("a path");
    let output = Command::new("timeout")
        .args([
            "--kill-after=10",
            &WATCHDOG_S.to_string(),
            "bash",
            "page.sh",
        ])
        .current_dir(place.path())
        .env("PATH", format!("{}:{path}", bin.display()))
        .env_remove(VARIABLE)
        .env_remove("VIRTUAL_ENV")
        .output()
        .expect("run bash");
    let shown = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{shown}\n{errors}",
        output.status
    );
    assert!(shown.contains("the page is done"), "{shown}");
    assert!(shown.contains("peer attached"), "the bridge's log: {shown}");
    // No bridge is left behind.
    assert!(
        shown.contains("bridge stopped"),
        "the bridge's log: {shown}"
    );
}
