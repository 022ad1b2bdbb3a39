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
    let command = "`mycelium-contracts generate --config generate.toml`";
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
fn the_starter_file_passes_every_command_and_is_not_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = run(folder.path(), &["init"]);
    assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
    // The commands that it suggests are run as they are printed.
    let said = text(&made.stdout);
    let mut suggested = 0;
    for line in said
        .lines()
        .filter_map(|line| line.strip_prefix("  mycelium-contracts "))
    {
        let arguments: Vec<_> = line.split(' ').collect();
        let output = run(folder.path(), &arguments);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{line}: {}",
            text(&output.stderr)
        );
        assert_eq!(text(&output.stderr), "", "{line}");
        suggested += 1;
    }
    assert_eq!(suggested, 3);
    for name in ["messages.rs", "messages.py", "messages.md"] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
    let starter = fs::read(folder.path().join("contracts.yaml")).expect("written");
    fs::write(folder.path().join("contracts.yaml"), "mine").expect("writable");
    let again = run(folder.path(), &["init"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text(&again.stderr)
            .contains("path=contracts.yaml\nhint: name another file, or replace it with --force")
    );
    assert_eq!(
        fs::read(folder.path().join("contracts.yaml")).expect("kept"),
        b"mine"
    );
    assert_eq!(
        run(folder.path(), &["init", "--force"]).status.code(),
        Some(0)
    );
    assert_eq!(
        fs::read(folder.path().join("contracts.yaml")).expect("replaced"),
        starter
    );
    let nowhere = run(folder.path(), &["init", "no/such/folder/x.yaml"]);
    assert_eq!(nowhere.status.code(), Some(1));
}

#[test]
fn generate_takes_flags_and_heads_name_the_command_for_each_file() {
    let folder = project();
    fs::create_dir(folder.path().join("sub")).expect("writable");
    let flags = [
        "generate",
        "ticks.yaml",
        "--rust",
        "sub/t.rs",
        "--python",
        "t.py",
        "--python-runtime",
        "._base",
    ];
    let output = run(folder.path(), &flags);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let rust = fs::read_to_string(folder.path().join("sub/t.rs")).expect("written");
    assert!(
        rust.contains("by `mycelium-contracts generate ticks.yaml --rust sub/t.rs`, do not"),
        "{rust}"
    );
    let python = fs::read_to_string(folder.path().join("t.py")).expect("written");
    assert!(
        python.contains("--python t.py --python-runtime ._base`"),
        "{python}"
    );
    // The same files are fresh from another folder: the head does not depend on it.
    let elsewhere = [
        "generate",
        "../ticks.yaml",
        "--rust",
        "t.rs",
        "--python",
        "../t.py",
        "--python-runtime",
        "._base",
        "--check",
    ];
    let output = run(&folder.path().join("sub"), &elsewhere);
    assert_eq!(
        text(&output.stdout),
        "2 generated files are up to date\n",
        "{}",
        text(&output.stderr)
    );
    fs::write(folder.path().join("t.py"), "").expect("writable");
    let output = run(&folder.path().join("sub"), &elsewhere);
    assert_eq!(output.status.code(), Some(1));
    let command = "hint: run `mycelium-contracts generate ../ticks.yaml --rust t.rs --python ../t.py --python-runtime ._base` and";
    assert!(
        text(&output.stderr).contains(command),
        "{}",
        text(&output.stderr)
    );
    assert!(fs::read_dir(folder.path()).expect("readable").all(|entry| {
        !entry
            .expect("readable")
            .file_name()
            .to_string_lossy()
            .ends_with(".tmp")
    }));
}

#[test]
fn generate_without_config_looks_in_two_places_and_wrong_flags_are_explained() {
    let folder = project();
    assert_eq!(run(folder.path(), &["generate"]).status.code(), Some(0));
    fs::remove_file(folder.path().join("generate.toml")).expect("there");
    let none = run(folder.path(), &["generate"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(
        text(&none.stderr).contains("looked for contracts/generate.toml, generate.toml\nhint: ")
    );
    let nothing = run(folder.path(), &["generate", "ticks.yaml"]);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(text(&nothing.stderr).contains("hint: add at least one of --rust"));
    let collision = run(
        folder.path(),
        &[
            "generate",
            "ticks.yaml",
            "--rust",
            "x",
            "--docs",
            "out/../x",
        ],
    );
    assert_eq!(collision.status.code(), Some(2));
    assert!(text(&collision.stderr).contains(
        "outputs collide: path=out/../x, wanted by rust of ticks.yaml and by docs of ticks.yaml"
    ));
    let itself = run(
        folder.path(),
        &["generate", "ticks.yaml", "--rust", "./ticks.yaml"],
    );
    assert_eq!(itself.status.code(), Some(2));
    assert!(text(&itself.stderr).contains("wanted by the contracts file itself and by rust"));
    assert_eq!(
        fs::read_to_string(folder.path().join("ticks.yaml")).expect("kept"),
        CONTRACTS
    );
}

#[test]
fn check_takes_several_files_and_prints_json_for_editors() {
    let folder = project();
    fs::write(
        folder.path().join("bad.yaml"),
        CONTRACTS.replace("f64", "f65"),
    )
    .expect("writable");
    let output = run(
        folder.path(),
        &["check", "ticks.yaml", "bad.yaml", "none.yaml"],
    );
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(
        said.starts_with("ticks.yaml: ok: 1 message, 0 constants, 0 warnings\nbad.yaml:1:"),
        "{said}"
    );
    assert!(said.contains("  hint: did you mean 'f64'?"), "{said}");
    assert!(
        said.contains("none.yaml: contracts file cannot be read: "),
        "{said}"
    );
    let output = run(folder.path(), &["check", "bad.yaml", "--format", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found[0]["file"], "bad.yaml");
    assert_eq!(found[0]["line"], 1);
    assert_eq!(found[0]["severity"], "error");
    assert_eq!(
        found[0]["text"],
        "message 'Tick', field 'price': unknown type: type=f65"
    );
    assert_eq!(found[0]["hint"], "did you mean 'f64'?");
    let output = run(folder.path(), &["check", "ticks.yaml", "--format", "json"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(0), "[]\n")
    );
}

const BOOK: &str = "messages:
  Level: { tlv_type: 1000, domain: Book, delivery: conflate, key: [side], description: \"One price.\", fields: { side: { type: u8, enum: { BID: 1, ASK: 2 } }, price: { type: f64, validation: [ { min: 0 } ], optional: true }, last: { type: u16 } } }
  Note: { tlv_type: 1001, domain: Notes, encoding: json, max_size: 100, log_payload: false }
";

#[test]
fn show_prints_a_layout_table_with_padding_and_totals() {
    let folder = project();
    fs::write(folder.path().join("book.yaml"), BOOK).expect("writable");
    let output = run(folder.path(), &["show", "book.yaml", "Level"]);
    let said = text(&output.stdout);
    let (table, digest) = said.split_once("layout digest ").expect("a digest");
    assert_eq!(
        table,
        "Level  topic 1000 'book', delivery conflate, key side
One price.

  offset  size  align  field  type       legal values
  ------  ----  -----  -----  ---------  ------------------------------
       0     1      1  side   Side (u8)  one of BID=1, ASK=2
       1     7         ·      padding    zeros
       8     8      8  price  f64        a number of at least 0; optional
      16     2      2  last   u16        an integer from 0 to 65535
      18     6         ·      padding    zeros

  24 bytes: 11 in 3 fields, 13 padding; alignment 8

"
        .replace(
            "------------------------------\n",
            "--------------------------------\n"
        )
    );
    assert_eq!(digest.trim_end().len(), 64);
    let by_id = run(folder.path(), &["show", "book.yaml", "1001"]);
    assert!(
        text(&by_id.stdout)
            .contains("values are not logged\n\n  payload in json, at most 100 bytes\n")
    );
    let all = text(&run(folder.path(), &["show", "book.yaml"]).stdout);
    let short = &digest[..12];
    let row =
        format!("  1000  Level    book            24       3       13  conflate  side  {short}\n");
    assert!(all.contains(&row), "{all}");
    let unknown = run(folder.path(), &["show", "book.yaml", "Levle"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(
        text(&unknown.stderr)
            .contains("no message 'Levle' in book.yaml\nhint: did you mean 'Level'?")
    );
}

#[test]
fn diff_tells_by_text_json_and_exit_code_whether_peers_can_still_talk() {
    let folder = project();
    let write =
        |name: &str, content: &str| fs::write(folder.path().join(name), content).expect("writable");
    write("old.yaml", BOOK);
    write("words.yaml", &BOOK.replace("One price.", "Other words."));
    let same = run(folder.path(), &["diff", "old.yaml", "words.yaml"]);
    assert_eq!(same.status.code(), Some(0));
    assert_eq!(
        text(&same.stdout),
        "old.yaml -> words.yaml\n\nno message changed\n"
    );

    write(
        "rules.yaml",
        &BOOK
            .replace("conflate, key: [side]", "block")
            .replace("min: 0", "min: 1"),
    );
    let rules = run(folder.path(), &["diff", "old.yaml", "rules.yaml"]);
    assert_eq!(rules.status.code(), Some(0));
    let said = text(&rules.stdout);
    assert!(said.contains("\nhandling: message 'Level' (topic 1000)\n  delivery conflate -> block\n  key side -> none\n  field 'price': min 0 removed, min 1 added\n"), "{said}");
    assert!(
        said.ends_with(
            "\ncompatible: old and new peers can exchange every message that both know\n"
        ),
        "{said}"
    );

    write(
        "wide.yaml",
        &BOOK.replace("u16", "u32").replace("Note:", "Memo:"),
    );
    let wide = run(folder.path(), &["diff", "old.yaml", "wide.yaml"]);
    assert_eq!(wide.status.code(), Some(1));
    let said = text(&wide.stdout);
    assert!(said.contains("\nincompatible: message 'Level' (topic 1000): layout changed\n  field 'last': type u16 -> u32\n"), "{said}");
    assert!(
        said.contains("\ncompatible: message 'Note' (topic 1001): renamed to 'Memo'\n"),
        "{said}"
    );
    assert!(
        said.ends_with("\nincompatible: old and new peers cannot exchange 1 message: 'Level'\n"),
        "{said}"
    );
    let output = run(
        folder.path(),
        &["diff", "old.yaml", "wide.yaml", "--format", "json"],
    );
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(found["compatible"], false);
    assert_eq!(
        found["differences"][0]["details"][0],
        "field 'last': type u16 -> u32"
    );
    assert_eq!(found["differences"][1]["new_name"], "Memo");

    write("bad.yaml", &BOOK.replace("u16", "u17"));
    let bad = run(folder.path(), &["diff", "none.yaml", "bad.yaml"]);
    assert_eq!(bad.status.code(), Some(2));
    let said = text(&bad.stderr);
    assert!(
        said.contains("none.yaml: contracts file cannot be read")
            && said.contains("unknown type: type=u17"),
        "{said}"
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
