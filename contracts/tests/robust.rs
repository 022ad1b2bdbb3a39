//! Whatever the bytes of a contracts file are: findings, but never a panic, and nothing without end.
//!
//! The cases are made of the valid files of this repository, with a fixed seed. `FUZZ_SEED` and
//! `FUZZ_CASES` run others.

use std::fs;
use std::path::Path;

use fastrand::Rng;
use mycelium_contracts::{Contracts, Report, parse};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map(|text| text.parse().expect("a number"))
        .unwrap_or(default)
}

fn load(bytes: &[u8]) -> Result<Contracts, Report> {
    parse(Path::new("fuzz.yaml"), bytes)
}

/// What a token is replaced by: values of the grammar, values that are almost right, and syntax.
const PIECES: [&str; 60] = [
    "0",
    "-1",
    "1",
    "65535",
    "65536",
    "99999999999999999999999999999999999999999",
    "0x",
    "0xFFFF",
    "1e999",
    ".nan",
    "-0.0",
    "1_000",
    "~",
    "null",
    "true",
    "\"\"",
    "''",
    "[]",
    "{}",
    "[",
    "]",
    "{",
    "}",
    ": ",
    ", ",
    "- ",
    "\n",
    "\t",
    "  ",
    "#",
    "|",
    ">",
    "&a",
    "*a",
    "<<: *a",
    "!!binary",
    "---",
    "...",
    "%YAML",
    "? ",
    "\u{0}",
    "\u{feff}",
    "ä",
    "u8",
    "u128",
    "f64",
    "bool",
    "U256",
    "String",
    "Vec<u8>",
    "Vec<f64>",
    "Vec<[u8; 20]>",
    "[u8; 4194304]",
    "[[u8; 4194304]; 4194304]",
    "conflate",
    "msgpack",
    "max_length",
    "enum",
    "class",
    "Message",
];

/// A file that differs from a valid one in a few tokens, bytes or lines.
fn mutated(random: &mut Rng, files: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = files[random.usize(..files.len())].clone();
    for _ in 0..=random.usize(..4) {
        if bytes.is_empty() {
            break;
        }
        let at = random.usize(..bytes.len());
        match random.usize(..6) {
            // A byte.
            0 => bytes[at] = u8::try_from(random.usize(..256)).expect("a byte"),
            // A token, from one separator to the next.
            1 | 2 => {
                let is_end = |byte: &u8| b" \n,:{}[]\"".contains(byte);
                let start = bytes[..at].iter().rposition(is_end).map_or(0, |it| it + 1);
                let end = bytes[at..]
                    .iter()
                    .position(is_end)
                    .map_or(bytes.len(), |it| at + it);
                let piece = PIECES[random.usize(..PIECES.len())].bytes();
                bytes.splice(start..end.max(start), piece);
            }
            // A line, left out, doubled or moved to another place of any file.
            3 | 4 => {
                let start = bytes[..at]
                    .iter()
                    .rposition(|&it| it == b'\n')
                    .map_or(0, |it| it + 1);
                let end = bytes[at..]
                    .iter()
                    .position(|&it| it == b'\n')
                    .map_or(bytes.len(), |it| at + it + 1);
                let line = bytes[start..end].to_vec();
                match random.usize(..3) {
                    0 => drop(bytes.drain(start..end)),
                    1 => drop(bytes.splice(start..start, line)),
                    _ => {
                        let other = &files[random.usize(..files.len())];
                        let from = random.usize(..other.len());
                        let to = (from + random.usize(..200)).min(other.len());
                        drop(bytes.splice(start..start, other[from..to].to_vec()));
                    }
                }
            }
            // The rest of the file.
            _ => bytes.truncate(at),
        }
    }
    bytes
}

#[test]
fn no_mutated_file_panics_and_every_refusal_has_an_error_with_a_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // Small files give more cases a second, and every feature is in one of them.
    let names = [
        "tests/golden/trading.yaml",
        "tests/golden/grammar.yaml",
        "tests/invalid/more_names.yaml",
        "tests/invalid/dynamic.yaml",
        "tests/invalid/lengths.yaml",
        "examples/committed/contracts.yaml",
        "src/cli/starter.yaml",
    ];
    let files: Vec<_> = names
        .iter()
        .map(|name| fs::read(root.join(name)).expect("a file"))
        .collect();
    let (seed, cases) = (
        setting("FUZZ_SEED", 0x9E37_79B9_7F4A_7C15),
        setting("FUZZ_CASES", 20_000),
    );
    let mut random = Rng::with_seed(seed);
    let (mut accepted, mut refused) = (0, 0);
    for case in 0..cases {
        let bytes = mutated(&mut random, &files);
        let context = || {
            format!(
                "seed={seed:#x}, case={case}: {}",
                String::from_utf8_lossy(&bytes)
            )
        };
        match std::panic::catch_unwind(|| load(&bytes)) {
            Ok(Ok(contracts)) => {
                assert!(!contracts.report().has_errors(), "{}", context());
                for message in contracts.messages() {
                    let used: usize = message.fields.iter().map(|field| field.size).sum();
                    assert!(
                        used <= message.max_size && message.max_size <= 4 << 20,
                        "{}",
                        context()
                    );
                }
                accepted += 1;
            }
            Ok(Err(report)) => {
                assert!(report.has_errors(), "{}", context());
                assert!(
                    report.diagnostics.iter().all(|found| found.at.is_some()),
                    "{}",
                    context()
                );
                refused += 1;
            }
            Err(_) => panic!("panicked: {}", context()),
        }
    }
    assert!(
        accepted > cases / 50 && refused > cases / 50,
        "accepted={accepted}, refused={refused}"
    );
}

fn refusal(text: &str) -> String {
    match load(text.as_bytes()) {
        Ok(_) => panic!("accepted: {}", &text[..text.len().min(200)]),
        Err(report) => report.to_string(),
    }
}

#[test]
fn aliases_that_multiply_are_refused_by_their_number() {
    let mut text = String::from("a: &a [x, x, x, x, x, x, x, x, x, x]\n");
    for (from, to) in "abcdefghi".chars().zip("bcdefghij".chars()) {
        let uses = vec![format!("*{from}"); 10].join(", ");
        text.push_str(&format!("{to}: &{to} [{uses}]\n"));
    }
    let said = refusal(&text);
    assert!(said.contains("too many values: count="), "{said}");
}

#[test]
fn long_texts_and_nested_anchors_count_too() {
    // One text of a megabyte a thousand times would be a gigabyte.
    let text = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(1_000_000),
        vec!["*a"; 1_000].join(", ")
    );
    assert!(refusal(&text).contains("too many values: count="));
    // Each level keeps a copy of everything below it.
    let open: String = (0..30).map(|level| format!("&a{level} [")).collect();
    let text = format!("{open}{}{}", "x, ".repeat(100_000), "]".repeat(30));
    assert!(refusal(&text).contains("too many values: count="));
}

#[test]
fn nesting_of_every_kind_is_refused() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        "? ".repeat(10_000),
    ] {
        assert!(load(text.as_bytes()).is_err());
    }
    let deep: String = (0..1_000)
        .map(|level| format!("{}a:\n", " ".repeat(level)))
        .collect();
    let said = refusal(&deep);
    assert!(
        said.contains("nested too deeply: depth=33, max=32"),
        "{said}"
    );
}

#[test]
fn texts_that_are_not_yaml_of_this_century_are_refused_with_a_place() {
    assert!(refusal("messages:\n\tTick: {}\n").starts_with("fuzz.yaml:2:"));
    assert!(refusal("\u{0}\u{0}").starts_with("fuzz.yaml:1:"));
    assert!(refusal("--- a\n--- b\n").contains("a second YAML document"));
    assert!(refusal("[a]: b\n").contains("a map key is a list or a map"));
    let utf16: Vec<u8> = "messages: {}\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert!(load(&[&[0xFF, 0xFE][..], &utf16].concat()).is_err());
    assert!(
        load(b"\xC3")
            .expect_err("cut")
            .to_string()
            .contains("not UTF-8: offset=0")
    );
}

#[test]
fn huge_numbers_are_refused_and_do_not_wrap() {
    let digits = "9".repeat(10_000);
    for (key, value) in [
        ("tlv_type", digits.as_str()),
        ("tlv_type", "-170141183460469231731687303715884105728"),
        ("tlv_type", "0x100000000000000000000000000000000"),
    ] {
        let text = format!(
            "messages: {{ Tick: {{ {key}: {value}, domain: D, fields: {{ a: {{ type: u8 }} }} }} }}"
        );
        assert!(refusal(&text).contains("tlv_type out of range"));
    }
    for kind in [
        "[u8; 18446744073709551615]",
        "[[u8; 4294967296]; 4294967296]",
        "[u8; -1]",
        "[u8; 1e3]",
    ] {
        let text = format!(
            "messages: {{ Tick: {{ tlv_type: 1000, domain: D, fields: {{ a: {{ type: \"{kind}\" }} }} }} }}"
        );
        assert!(load(text.as_bytes()).is_err(), "{kind}");
    }
    for bound in [
        "1e308",
        "-1e308",
        "170141183460469231731687303715884105727",
        "5e-324",
    ] {
        let rules = format!("[ {{ min: {bound} }}, {{ max: {bound} }} ]");
        let text = format!(
            "messages: {{ Tick: {{ tlv_type: 1000, domain: D, fields: {{ a: {{ type: f64, validation: {rules} }} }} }} }}"
        );
        assert!(load(text.as_bytes()).is_ok(), "{bound}");
    }
}

#[test]
fn a_file_of_ten_megabytes_is_read_or_refused() {
    let comment = format!("# {}\n", "x".repeat(10_000_000));
    let small = "messages: { Tick: { tlv_type: 1000, domain: D, fields: { a: { type: u8 } } } }\n";
    assert!(load(format!("{comment}{small}").as_bytes()).is_ok());
    let description = small.replace(
        "domain: D",
        &format!("domain: D, description: \"{}\"", "x ".repeat(2_000_000)),
    );
    assert!(load(description.as_bytes()).is_ok());
    let name = small.replace("Tick", &"x".repeat(10_000_000));
    assert!(load(name.as_bytes()).is_err());
    let many: String = (0..100_000)
        .map(|number| format!("k{number}: 1\n"))
        .collect();
    assert!(load(many.as_bytes()).is_err());
}
