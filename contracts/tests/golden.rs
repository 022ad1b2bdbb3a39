//! Layouts of every type of the grammar, digests, and that generating is repeatable.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mycelium_contracts::{Config, Contracts, Delivery, hex};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn golden() -> Contracts {
    mycelium_contracts::load(root().join("tests/golden/grammar.yaml")).expect("a valid file")
}

fn layout(contracts: &Contracts, message: &str) -> String {
    let message = contracts.by_name(message).expect("a message of this name");
    let mut text = String::new();
    for field in &message.fields {
        let _ = write!(text, "{}@{}+{} ", field.name, field.offset, field.size);
    }
    let _ = write!(
        text,
        "= {}/{}",
        message.wire_len.expect("fixed"),
        message.align
    );
    text
}

#[test]
fn numbers_lie_at_their_natural_alignment() {
    let expected =
        "a@0+1 b@8+8 c@16+1 d@18+2 e@20+4 f@24+4 g@28+1 h@30+2 i@32+4 j@40+8 k@48+8 l@56+1 = 64/8";
    assert_eq!(layout(&golden(), "Numbers"), expected);
}

#[test]
fn wide_numbers_are_aligned_to_eight_and_byte_arrays_to_one() {
    let expected = "a@0+1 b@8+16 c@24+16 d@40+32 e@72+20 f@92+6 bytes@104+8 = 112/8";
    assert_eq!(layout(&golden(), "Wide"), expected);
}

#[test]
fn texts_have_a_prefix_of_eight_bytes_and_are_rounded_to_two() {
    let golden = golden();
    assert_eq!(
        layout(&golden, "Texts"),
        "a@0+40 odd@40+14 flag@54+1 venue@56+20 = 76/2"
    );
    assert_eq!(layout(&golden, "OnlyText"), "text@0+12 = 12/2");
}

#[test]
fn vecs_have_a_prefix_of_eight_bytes_and_the_alignment_of_their_elements() {
    let expected = "a@0+1 plain@2+24 odd@26+12 addresses@38+88 odd_rows@126+18 prices@144+32 \
                    small@176+14 singles@192+16 signed@208+14 counts@224+12 = 240/8";
    assert_eq!(layout(&golden(), "Vecs"), expected);
}

#[test]
fn enums_take_the_place_of_their_integer_and_empty_messages_none() {
    let golden = golden();
    let expected = "level@0+4 count@4+2 share@8+4 price@16+8 change@24+8 big@32+16 chain@48+4 state@52+2 colour@56+4 = 64/8";
    assert_eq!(layout(&golden, "Rules"), expected);
    assert_eq!(layout(&golden, "Empty"), "= 0/1");
    let names: Vec<_> = golden
        .enums()
        .iter()
        .map(|found| found.name.as_str())
        .collect();
    assert_eq!(names, ["RulesState", "Colour", "OtherRulesState", "Tier"]);
}

#[test]
fn messages_are_found_by_name_and_by_id_and_know_their_topic() {
    let golden = golden();
    let ids: Vec<_> = golden.messages().map(|message| message.topic_id).collect();
    assert_eq!(
        ids,
        [
            1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 50000, 50001
        ]
    );
    assert_eq!(golden.by_id(1000).expect("declared").topic, "market-data");
    assert!(golden.by_id(1010).is_none());
    let texts = golden.by_name("Texts").expect("declared");
    assert_eq!((texts.delivery, texts.key.len()), (Delivery::Conflate, 2));
    let packed = golden.by_name("Packed").expect("declared");
    assert_eq!(
        (packed.wire_len, packed.max_size, packed.encoding.bits()),
        (None, 1024, 1)
    );
}

const SMALL: &str = "messages:
  Quote: { tlv_type: 1001, domain: Prices, fields: { bid: { type: f64 }, ask: { type: f64 } } }
  Trade: { tlv_type: 1002, domain: Prices, fields: { side: { type: u8, enum: { BUY: 1, SELL: 2 } } } }
";

fn small(text: &str) -> Contracts {
    mycelium_contracts::parse(Path::new("small.yaml"), text.as_bytes()).expect("valid")
}

#[test]
fn comments_descriptions_and_the_order_of_keys_do_not_change_the_schema_digest() {
    let base = small(SMALL);
    let other = small(
        "# A comment.
messages:
  Trade:
    fields: { side: { description: \"Which.\", enum: { SELL: 2, BUY: 0x1 }, type: u8 } }
    domain: Prices
    description: \"What happened.\"
    tlv_type: 0x3EA
  Quote:
    domain: Prices
    tlv_type: 1_001
    fields: { bid: { type: \"f64\" }, ask: { type: f64 } }
",
    );
    assert_eq!(hex(&base.schema_digest()), hex(&other.schema_digest()));
    assert_ne!(base.source_digest(), other.source_digest());
}

#[test]
fn every_change_of_meaning_changes_the_schema_digest() {
    let base = small(SMALL);
    for (from, to) in [
        (
            "bid: { type: f64 }, ask: { type: f64 }",
            "ask: { type: f64 }, bid: { type: f64 }",
        ),
        ("bid: { type: f64 }", "bid: { type: u64 }"),
        ("bid:", "offer:"),
        ("1001", "1003"),
        ("Quote:", "Tick:"),
        ("BUY: 1", "BUY: 3"),
        ("BUY:", "LONG:"),
        (
            "domain: Prices, fields: { bid",
            "domain: Quotes, fields: { bid",
        ),
        ("1001,", "1001, delivery: drop_oldest,"),
        ("1001,", "1001, key: [bid],"),
        (
            "bid: { type: f64 }",
            "bid: { type: f64, validation: [ { min: 0 } ] }",
        ),
    ] {
        let changed = small(&SMALL.replacen(from, to, 1));
        assert_ne!(
            hex(&base.schema_digest()),
            hex(&changed.schema_digest()),
            "{from} -> {to}"
        );
    }
}

#[test]
fn payloads_are_logged_unless_the_file_or_the_sensitivity_says_no() {
    for (keys, expected) in [
        ("", true),
        ("log_payload: false,", false),
        ("log_payload: true, sensitivity: secret,", true),
        ("log_payload: ~, sensitivity: secret,", false),
        ("sensitivity: Public,", true),
        ("sensitivity: internal,", true),
        ("sensitivity: LOW,", true),
        ("sensitivity: none,", true),
        ("sensitivity: ~,", true),
        ("sensitivity: financial,", false),
    ] {
        let contracts = small(&SMALL.replacen("1001,", &format!("1001, {keys}"), 1));
        let quote = contracts.by_name("Quote").expect("there");
        assert_eq!(quote.log_payload, expected, "{keys}");
        assert_eq!(
            contracts.schema_digest(),
            small(SMALL).schema_digest(),
            "{keys}"
        );
    }
}

#[test]
fn what_only_informs_people_is_kept_for_the_documentation() {
    let golden = golden();
    let notes = golden.notes();
    assert_eq!(notes.schema[1], ("version".to_owned(), "1".to_owned()));
    let domain = &notes.domains[0];
    assert_eq!(domain.type_range, Some((1000, 1000)));
    assert_eq!(
        domain.slos[0],
        ("latency_slo_p99_ms".to_owned(), "10".to_owned())
    );
    assert_eq!(notes.types[0].0, "U256");
    assert_eq!(notes.invariants[0].enforced_by, ["a"]);
    let numbers = golden.by_name("Numbers").expect("there");
    assert_eq!(numbers.schema_version.as_deref(), Some("v1"));
    assert_eq!(numbers.sensitivity.as_deref(), Some("public"));
    assert_eq!(numbers.rust_type.as_deref(), Some("Numbers"));
}

#[test]
fn only_the_changed_message_gets_another_layout_digest() {
    let base = small(SMALL);
    let changed = small(&SMALL.replacen("bid: { type: f64 }", "bid: { type: f32 }", 1));
    let digest =
        |contracts: &Contracts, name| contracts.by_name(name).expect("there").layout_digest;
    assert_ne!(digest(&base, "Quote"), digest(&changed, "Quote"));
    assert_eq!(digest(&base, "Trade"), digest(&changed, "Trade"));
}

#[test]
fn generating_twice_gives_the_same_bytes() {
    let config = Config::load(&root().join("generate.toml")).expect("the project's own");
    let first = mycelium_contracts::render(&config).expect("valid");
    let second = mycelium_contracts::render(&config).expect("valid");
    assert_eq!(first.outputs, second.outputs);
    assert!(first.outputs.len() >= 18);
    assert_eq!(first.warnings, []);
}

#[test]
fn generated_rust_is_as_rustfmt_would_write_it() {
    let config = Config::load(&root().join("generate.toml")).expect("the project's own");
    let rendered = mycelium_contracts::render(&config).expect("valid");
    for (path, text) in rendered.outputs {
        if path.extension().is_some_and(|extension| extension == "rs") {
            let formatted = rustfmt(&text);
            for (number, (ours, theirs)) in text.lines().zip(formatted.lines()).enumerate() {
                assert_eq!(ours, theirs, "{}:{}", path.display(), number + 1);
            }
            assert_eq!(text.len(), formatted.len(), "{}", path.display());
        }
    }
}

fn rustfmt(text: &str) -> String {
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("rustfmt belongs to the toolchain");
    let mut input = child.stdin.take().expect("piped");
    let text = text.to_owned();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().expect("rustfmt ends");
    writer
        .join()
        .expect("no panic")
        .expect("rustfmt reads its input");
    String::from_utf8(output.stdout).expect("UTF-8")
}
