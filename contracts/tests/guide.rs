//! The examples of `docs/contracts.md` do what the page says.

use std::fs;
use std::path::Path;
use std::process::Command;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/contracts.md");
    fs::read_to_string(path).expect("the page")
}

/// The blocks of one language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let start = format!("```{language}\n");
    let parts = page.split(&start).skip(1);
    let blocks = parts.map(|part| part.split("```").next().expect("an end").to_owned());
    blocks.collect()
}

fn run(folder: &Path, line: &str) -> (Option<i32>, String) {
    let command = line.split('#').next().expect("a command").trim();
    let arguments: Vec<_> = command.split_whitespace().skip(1).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_mycelium-contracts"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("the program starts");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn the_commands_of_the_start_work_in_their_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let blocks = blocks(&page(), "sh");
    let mut seen = 0;
    for line in blocks[0].lines() {
        let (code, said) = run(folder.path(), line);
        assert_eq!(code, Some(0), "{line}: {said}");
        seen += 1;
    }
    assert_eq!(seen, 5);
    assert!(folder.path().join("messages.py").exists());
}

#[test]
fn the_example_file_is_valid_and_generates_with_the_example_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = page();
    let yaml = &blocks(&page, "yaml")[0];
    fs::write(folder.path().join("contracts.yaml"), yaml).expect("writable");
    fs::write(
        folder.path().join("generate.toml"),
        &blocks(&page, "toml")[0],
    )
    .expect("writable");
    let (code, said) = run(folder.path(), "mycelium-contracts check contracts.yaml");
    assert_eq!(
        (code, said.as_str()),
        (Some(0), "ok: 1 message, 0 constants, 0 warnings\n")
    );
    let (code, said) = run(folder.path(), "mycelium-contracts generate");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.ends_with("4 generated files are up to date\n"),
        "{said}"
    );
    // What continuous integration runs.
    fs::create_dir(folder.path().join("before")).expect("writable");
    fs::write(folder.path().join("before/contracts.yaml"), yaml).expect("writable");
    for line in blocks(&page, "sh")[1].lines() {
        if line.starts_with("mycelium-contracts ") {
            let line = line.replace("/tmp/before.yaml", "before/contracts.yaml");
            let (code, said) = run(folder.path(), &line);
            assert_eq!(code, Some(0), "{line}: {said}");
        }
    }
}

/// Each row of the table of changes, made to the example file.
#[test]
fn the_table_of_changes_tells_what_diff_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = blocks(&page(), "yaml")[0].clone();
    let other = "  Trade: { tlv_type: 1002, domain: Trades, fields: { price: { type: f64 } } }\n";
    fs::write(folder.path().join("old.yaml"), &old).expect("writable");
    for (from, to, compatible) in [
        ("Best prices", "Other words", true),
        ("min: 0", "min: 1", true),
        ("conflate", "drop_oldest", true),
        ("MarketData", "Prices", true),
        ("messages:\n", &format!("messages:\n{other}"), true),
        ("Quote:", "Tick:", true),
        (
            "ask: { type: f64, validation: [ { min: 0 } ] }",
            "offer: { type: f64 }",
            false,
        ),
        ("u64", "i64", false),
        ("max_length: 16", "max_length: 17", false),
        ("SELL: 2", "SELL: 2, SHORT: 3", false),
        ("1001", "1002", false),
        (
            "  Quote:\n    tlv_type: 1001",
            &format!(
                "{}  Quote:\n    tlv_type: 1009",
                other.replace("1002", "1001")
            ),
            false,
        ),
    ] {
        let new = old.replacen(from, to, 1);
        assert_ne!(new, old, "{from}");
        fs::write(folder.path().join("new.yaml"), new).expect("writable");
        let (code, said) = run(folder.path(), "mycelium-contracts diff old.yaml new.yaml");
        assert_eq!(code, Some(i32::from(!compatible)), "{from} -> {to}: {said}");
    }
}
