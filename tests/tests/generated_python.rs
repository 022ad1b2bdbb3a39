//! Python that is generated from odd contracts files: it imports, and ruff and mypy find nothing to say.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use mycelium_contracts::{Config, generate};
use mycelium_tests::{python, repository};

/// Every type of the grammar, each with a rule where one applies.
const TYPES: [&str; 39] = [
    "type: u8",
    "type: u16, validation: [ { max: 7 } ]",
    "type: u32, validation: [ { not_zero: true } ]",
    "type: u64, validation: [ { min: 1 }, { max: 9 }, { not_zero: true } ]",
    "type: i8",
    "type: i16, validation: [ { min: -3 } ]",
    "type: i32",
    "type: i64",
    "type: f32",
    "type: f32, validation: [ { min: 0 }, { max: 0.1 }, { not_zero: true } ]",
    "type: f64",
    "type: f64, validation: [ { max: -0.5 } ]",
    "type: bool",
    "type: u128",
    "type: i128, validation: [ { min: -5 }, { max: 5 } ]",
    "type: U256",
    "type: U256, validation: [ { not_zero: true } ]",
    "type: \"[u8; 20]\"",
    "type: \"[u8; 3]\", validation: [ { not_zero: true } ]",
    "type: \"[[u8; 32]; 4]\"",
    "type: String",
    "type: String, validation: [ { max_length: 1 }, { not_empty: true } ]",
    "type: String, validation: [ { max_length: 42 }, { no_0x_prefix: true }, { min_length: 40 } ]",
    "type: \"Vec<u8>\"",
    "type: \"Vec<u16>\"",
    "type: \"Vec<u32>\"",
    "type: \"Vec<u64>\"",
    "type: \"Vec<i8>\"",
    "type: \"Vec<i16>\"",
    "type: \"Vec<i32>\"",
    "type: \"Vec<i64>\"",
    "type: \"Vec<f32>\"",
    "type: \"Vec<f64>\", validation: [ { not_empty: true }, { max_length: 100 } ]",
    "type: \"Vec<[u8; 20]>\"",
    "type: u8, enum: { A: 0, B: 1 }",
    "type: u8, enum: { A: 0, B: 1 }, validation: [ { not_zero: true } ]",
    "type: i64, enum: { LOW: -9223372036854775808 }, validation: [ { not_zero: true } ]",
    "type: u16, enum: { FIRST_LONG_NAME: 1, SECOND_LONG_NAME: 2, THIRD_LONG_NAME: 3, FOURTH_LONG_NAME: 4, FIFTH_LONG_NAME: 5, SIXTH_LONG_NAME: 6, SEVENTH: 7 }",
    "type: u8, optional: true, description: \"Ends without a full stop, has 'quotes', \\\"more\\\" and a \\\\backslash\"",
];

/// Field names that mean something in Python, or that generated code uses itself.
const NAMES: [&str; 33] = [
    "bool",
    "bytes",
    "float",
    "int",
    "str",
    "tuple",
    "len",
    "list",
    "dict",
    "object",
    "l",
    "o",
    "data",
    "value",
    "single",
    "rejected",
    "read_text",
    "name",
    "key",
    "size",
    "fields",
    "topic",
    "message",
    "field",
    "sequence",
    "iterable",
    "builtins",
    "views",
    "word",
    "feeBps",
    "print",
    "id",
    "hash",
];

/// Fields that are called as members of every Python message.
const MEMBERS: &str = include_str!("../../contracts/tests/issues/006.yaml");

/// What a program sees of them: under the name of the property, and to a peer under the name in the file.
const USE_MEMBERS: &str = r#"
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
from members import CONTRACTS, Members, Property
from mycelium import MessageError
from mycelium._message import Message

taken = {name for name in dir(Message) if name[0] != "_" and name.islower()} | {"property", "set"}
named = {field.name: field.contract_name for field in Members.FIELDS}
assert set(named) == {name + "_" for name in taken}, set(named) ^ {name + "_" for name in taken}
assert named.pop("to_bytes_") == "toBytes"
assert all(name == contract_name + "_" for name, contract_name in named.items()), named
assert Members.KEY == ("set_",)
(shape,) = json.loads(CONTRACTS.to_json())["messages"]
assert [field[0] for field in shape["fields"]][:2] == ["set", "copy"], shape

values = {
    "set_": 7, "copy_": True, "dtype_": "text", "from_array_": (1, 2), "from_bytes_": b"abc", "from_dict_": 0.5,
    "property_": Property.SOME, "to_array_": -1, "to_bytes_": b"x", "to_dict_": -7, "validate_": "yes",
}
message = Members(**values)
message.validate()
assert message.to_dict() == values
assert Members.from_dict(message.to_dict(json=True)) == message == message.copy()
assert Members.from_bytes(message.to_bytes()) == message
assert Members.from_array(Members.to_array([message])) == [message]
assert "set_" in Members.dtype().names and "dtype_.len" in Members.dtype().names
message.set(set_=8, validate_="no")
assert (message.set_, message.validate_) == (8, "no")
try:
    message.to_dict_ = -8
except MessageError as failed:
    assert failed.field == "to_dict_" and "field 'to_dict_'" in str(failed), failed
else:
    raise AssertionError("the rule holds")
print("done")
"#;

fn one_message(name: &str, fields: &str) -> String {
    format!("messages:\n  {name}: {{ tlv_type: 1000, domain: Odd, fields: {{ {fields} }} }}\n")
}

/// Names and texts of the contracts files.
fn cases() -> Vec<(String, String)> {
    let mut cases = Vec::new();
    for (index, kind) in TYPES.iter().enumerate() {
        cases.push((
            format!("type_{index}"),
            one_message("Odd", &format!("field: {{ {kind} }}")),
        ));
    }
    for name in NAMES {
        let fields = format!(
            "{name}: {{ type: u8 }}, other: {{ type: bool }}, ratio: {{ type: f32, validation: [ {{ max: 1 }} ] }}, raw: {{ type: \"[u8; 8]\" }}, parts: {{ type: \"Vec<f64>\" }}, note: {{ type: String }}"
        );
        cases.push((
            format!("name_{}", name.to_lowercase()),
            one_message("Odd", &fields),
        ));
    }
    let hidden = "bytes: { type: \"[u8; 4]\" }, tuple: { type: \"[[u8; 4]; 2]\" }, str: { type: String }, int: { type: i8 }, float: { type: f64 }, bool: { type: bool }, rows: { type: \"Vec<[u8; 4]>\" }, numbers: { type: \"Vec<i32>\" }";
    cases.push(("all_hidden".into(), one_message("Hidden", hidden)));
    cases.push(("empty_message".into(), one_message("Nothing", "")));
    cases.push((
        "called_contracts".into(),
        one_message(
            "Contracts",
            "only: { type: u8, description: \"A single Field, not a Message: rejected(x).\" }",
        ),
    ));
    cases.push(("members".into(), MEMBERS.into()));
    cases.push((
        "only_dynamic".into(),
        "messages:\n  Blob: { tlv_type: 1000, domain: Odd, encoding: raw, max_size: 8 }\n".into(),
    ));
    cases.push((
        "only_constants".into(),
        "constants: { LIMIT: { value: 7, type: u32 } }\nmessages: {}\n".into(),
    ));
    let long = "x".repeat(32);
    cases.push((
        "long_names".into(),
        one_message(
            &"Long".repeat(8),
            &format!("{long}: {{ type: f64, validation: [ {{ min: 0 }} ] }}, {long}_y: {{ type: u8, enum: {{ A: 1 }} }}, {long}_z: {{ type: String, validation: [ {{ not_empty: true }} ] }}, {long}_v: {{ type: \"Vec<f64>\" }}"),
        ),
    ));
    let many = (0..200).fold(String::new(), |mut text, index| {
        let _ = write!(text, "field_{index}: {{ type: f32 }}, ");
        text
    });
    cases.push(("many_fields".into(), one_message("Wide", &many)));
    let mut messages = String::from("messages:\n");
    for index in 0..200 {
        let id = 1000 + index;
        let _ = writeln!(
            messages,
            "  Message{index}: {{ tlv_type: {id}, domain: D{index}, delivery: conflate, key: [first, second], fields: {{ first: {{ type: u64 }}, second: {{ type: String }} }} }}"
        );
    }
    cases.push(("many_messages".into(), messages));
    cases
}

fn run(program: &Path, folder: &Path, arguments: &[&str]) {
    let done = Command::new(program)
        .args(arguments)
        .arg(folder)
        .current_dir(repository().join("python-sdk"))
        .output()
        .expect("the interpreter starts");
    assert!(
        done.status.success(),
        "{arguments:?}\n{}\n{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
fn generated_python_imports_and_is_clean_for_ruff_and_mypy() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut config = String::new();
    let cases = cases();
    for (name, text) in &cases {
        std::fs::write(folder.path().join(format!("{name}.yaml")), text).expect("written");
        let _ = writeln!(
            config,
            "[[contracts]]\nfile = \"{name}.yaml\"\npython = \"made/{name}.py\""
        );
    }
    let path = folder.path().join("generate.toml");
    std::fs::write(&path, config).expect("written");
    let config = Config::load(&path).expect("valid");
    generate(&config, false).unwrap_or_else(|failed| panic!("{failed}"));
    let made = folder.path().join("made");
    let python = python();
    let import = "import pathlib, runpy, sys\n\
                  for path in sorted(pathlib.Path(sys.argv[1]).glob('*.py')): runpy.run_path(str(path))";
    run(&python, &made, &["-W", "error", "-c", import]);
    run(&python, &made, &["-W", "error", "-c", USE_MEMBERS]);
    run(
        &python,
        &made,
        &[
            "-m",
            "ruff",
            "check",
            "--no-cache",
            "--config",
            "pyproject.toml",
        ],
    );
    run(
        &python,
        &made,
        &[
            "-m",
            "ruff",
            "format",
            "--check",
            "--diff",
            "--no-cache",
            "--config",
            "pyproject.toml",
        ],
    );
    run(
        &python,
        &made,
        &["-m", "mypy", "--strict", "--no-incremental"],
    );
    assert_eq!(
        std::fs::read_dir(&made)
            .expect("there")
            .flatten()
            .filter(|entry| entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "py"))
            .count(),
        cases.len()
    );
}
