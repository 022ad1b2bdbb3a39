//! Generates a contracts file for each type of the grammar alone, for `tests/contracts_alone.rs`.

use std::fmt::Write as _;
use std::path::Path;

/// A name and the field of a message, or the message itself where that is what matters.
const ALONE: &[(&str, &str)] = &[
    ("u8", "{ a: { type: u8 } }"),
    ("u16", "{ a: { type: u16 } }"),
    ("u32", "{ a: { type: u32 } }"),
    ("u64", "{ a: { type: u64 } }"),
    ("i8", "{ a: { type: i8 } }"),
    ("i16", "{ a: { type: i16 } }"),
    ("i32", "{ a: { type: i32 } }"),
    ("i64", "{ a: { type: i64 } }"),
    ("f32", "{ a: { type: f32 } }"),
    ("f64", "{ a: { type: f64, validation: [ { min: 1 } ] } }"),
    ("bool", "{ a: { type: bool } }"),
    ("u128", "{ a: { type: u128 } }"),
    ("i128", "{ a: { type: i128 } }"),
    ("u256", "{ a: { type: U256 } }"),
    ("bytes", "{ a: { type: \"[u8; 20]\" } }"),
    (
        "long_bytes",
        "{ a: { type: \"[u8; 64]\", validation: [ { not_zero: true } ] } }",
    ),
    ("table", "{ a: { type: \"[[u8; 3]; 2]\" } }"),
    ("text", "{ a: { type: String } }"),
    ("vec_u8", "{ a: { type: \"Vec<u8>\" } }"),
    ("vec_bytes", "{ a: { type: \"Vec<[u8; 20]>\" } }"),
    (
        "vec_i8",
        "{ a: { type: \"Vec<i8>\", validation: [ { max_length: 3 } ] } }",
    ),
    (
        "vec_u16",
        "{ a: { type: \"Vec<u16>\", validation: [ { max_length: 3 } ] } }",
    ),
    (
        "vec_f32",
        "{ a: { type: \"Vec<f32>\", validation: [ { max_length: 3 } ] } }",
    ),
    (
        "vec_f64",
        "{ a: { type: \"Vec<f64>\", validation: [ { max_length: 3 } ] } }",
    ),
    ("named", "{ a: { type: u8, enum: { ON: 1 } } }"),
    ("padding", "{ a: { type: u8 }, b: { type: u64 } }"),
    (
        "method_names",
        "{ new: { type: String }, fields: { type: bool }, set_new: { type: String } }",
    ),
    (
        "trait_names",
        "{ validate: { type: String }, view: { type: String }, read: { type: bool }, as_bytes: { type: String }, set: { type: bool }, copy: { type: bool } }",
    ),
    ("nothing", "{}"),
];

#[allow(clippy::print_stdout, reason = "cargo reads it")]
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let folder = std::env::var("OUT_DIR").expect("cargo sets it");
    let folder = Path::new(&folder);
    let mut config = String::new();
    let mut modules = String::new();
    let mut add = |name: &str, yaml: &str| {
        write(&folder.join(format!("{name}.yaml")), yaml);
        let _ = writeln!(
            config,
            "[[contracts]]\nfile = \"{name}.yaml\"\nrust = \"alone_{name}.rs\"\nrust_serde = \"serde\""
        );
        let path = folder.join(format!("alone_{name}.rs"));
        let _ = writeln!(modules, "#[path = {path:?}]\npub mod {name};");
    };
    for (name, fields) in ALONE {
        let fields =
            format!("messages: {{ One: {{ tlv_type: 1001, domain: D, fields: {fields} }} }}\n");
        add(name, &fields);
    }
    let both = "messages:\n  A: { tlv_type: 1001, domain: D, encoding: json, max_size: 100 }\n";
    add("dynamic", both);
    let taken = "messages:
  One: { tlv_type: 1001, domain: D, fields: { a: { type: String } } }
  OneFields: { tlv_type: 1002, domain: D, fields: { a: { type: u8 } } }
  Contracts: { tlv_type: 1003, domain: D, fields: { a: { type: u8 } } }
  Hex: { tlv_type: 1004, domain: D, sensitivity: secret, fields: { a: { type: \"[u8; 64]\" } } }
";
    add("taken_names", taken);
    let camel = "messages:
  quoteTick: { tlv_type: 1000, domain: D, delivery: conflate, key: [bidPrice], fields: { bidPrice: { type: f64 }, sideOf: { type: u8, enum: { UP: 0, DOWN: 1 } } } }
  shortNote: { tlv_type: 1001, domain: D, encoding: json, max_size: 9 }
";
    add("camel", camel);
    let _ = writeln!(config, "python = \"camel.py\"");
    write(&folder.join("generate.toml"), &config);
    write(&folder.join("alone.rs"), &modules);
    let config = mycelium_contracts::Config::load(&folder.join("generate.toml")).expect("valid");
    if let Err(failed) = mycelium_contracts::generate(&config, false) {
        panic!("{failed}");
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("OUT_DIR is writable");
}
