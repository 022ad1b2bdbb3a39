//! The language-neutral description of contracts, its JSON form, and the comparison of two.

use std::path::Path;

use mycelium_contracts::diff::{Change, Difference, compare};
use mycelium_contracts::{ContractsShape, hex, parse};

fn shape(messages: &str) -> ContractsShape {
    let text = format!("messages:\n{messages}");
    match parse(Path::new("x.yaml"), text.as_bytes()) {
        Ok(contracts) => contracts.shape(),
        Err(report) => panic!("{report}"),
    }
}

const QUOTE: &str = "
  Quote: { tlv_type: 1001, domain: Prices, fields: { symbol: { type: String, validation: [ { max_length: 16 } ] }, side: { type: u8, enum: { BUY: 1, SELL: 2 } }, bid: { type: f64 } } }";
const BLOB: &str = "
  Blob: { tlv_type: 1002, domain: Blobs, encoding: json, max_size: 512 }";

fn texts(found: &[Difference]) -> Vec<String> {
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn the_json_form_is_the_documented_one_and_reads_back() {
    let shape = shape(&format!("{QUOTE}{BLOB}"));
    let expected = format!(
        "{{\"schema_digest\":\"{}\",\"messages\":[{{\"name\":\"Quote\",\"id\":1001,\"encoding\":\"contract\",\"max_size\":40,\"layout_digest\":\"{}\",\"fields\":[[\"symbol\",\"String(16)\",0,24],[\"side\",\"u8 BUY=1 SELL=2\",24,1],[\"bid\",\"f64\",32,8]]}},{{\"name\":\"Blob\",\"id\":1002,\"encoding\":\"json\",\"max_size\":512,\"layout_digest\":\"{}\",\"fields\":[]}}]}}",
        hex(&shape.schema_digest),
        hex(&shape.messages[0].layout_digest),
        hex(&shape.messages[1].layout_digest),
    );
    assert_eq!(shape.to_json(), expected);
    let read = ContractsShape::from_json(expected.as_bytes()).expect("the documented form");
    assert_eq!(read, shape);
}

#[test]
fn every_contracts_file_of_this_repository_survives_the_json_form() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["bandit.yaml", "control.yaml", "tests/golden/grammar.yaml"] {
        let shape = mycelium_contracts::load(root.join(file))
            .expect("valid")
            .shape();
        let read = ContractsShape::from_json(shape.to_json().as_bytes()).expect("its own form");
        assert_eq!(read, shape, "{file}");
    }
}

#[test]
fn unknown_keys_are_ignored_and_wrong_values_are_named() {
    let good = shape(QUOTE).to_json();
    let newer = good.replace("\"id\":1001", "\"colour\":[{\"a\":null}],\"id\":1001");
    assert!(ContractsShape::from_json(newer.as_bytes()).is_ok());
    for (from, to, expected) in [
        (
            "\"id\":1001",
            "\"id\":0",
            "id of message 'Quote'=0 (legal: 1 to 65535)",
        ),
        (
            "\"id\":1001",
            "\"id\":65536",
            "not readable: invalid value: integer `65536`, expected u16",
        ),
        (
            "\"Quote\"",
            "\"a\\nb\"",
            "name of message 1001=a\\nb (legal: ",
        ),
        ("\"Quote\"", "\"\"", "name of message 1001= (legal: "),
        (
            "contract",
            "xml",
            "encoding of message 'Quote'=xml (legal: contract, msgpack",
        ),
        (
            ":40",
            ":4194305",
            "max_size of message 'Quote'=4194305 (legal: 0 to 4194304)",
        ),
        (
            ",32,8]",
            ",33,8]",
            "end of field 'bid' of message 'Quote'=41 (legal: at most max_size)",
        ),
        (
            ",32,8]",
            ",18446744073709551615,8]",
            "offset of field 'bid' of message 'Quote'=18446744073709551615",
        ),
        (
            "\"f64\"",
            "\"f\\u00e4\"",
            "type of field 'bid' of message 'Quote'=fä (legal: printable ASCII)",
        ),
        (
            "\"schema_digest\":\"",
            "\"schema_digest\":\"x",
            "schema_digest=",
        ),
        ("\"fields\"", "\"felder\"", "missing field `fields`"),
        ("[[", "[[[[[[", "not readable: invalid type: sequence"),
    ] {
        let wrong = good.replacen(from, to, 1);
        assert_ne!(wrong, good, "{from}");
        let failed = ContractsShape::from_json(wrong.as_bytes())
            .expect_err(to)
            .to_string();
        assert!(failed.contains(expected), "{failed}");
    }
}

#[test]
fn duplicates_long_texts_and_deep_nesting_are_refused_with_short_errors() {
    let one = shape(BLOB).to_json();
    let start = one.find("{\"name\"").expect("a message");
    let message = &one[start..one.len() - 2];
    let twice = format!("{}{message},{message}]}}", &one[..start]);
    let failed = ContractsShape::from_json(twice.as_bytes()).expect_err("twice");
    assert!(
        failed.to_string().contains("id of message 'Blob'=1002"),
        "{failed}"
    );

    let long = one.replace("Blob", &"x".repeat(1_000_000));
    let failed = ContractsShape::from_json(long.as_bytes())
        .expect_err("long")
        .to_string();
    assert!(
        failed.contains("name of message 1002=xxx") && failed.len() < 300,
        "{failed}"
    );

    let wrong = format!("{{\"messages\":\"{}\"}}", "y\\n".repeat(1_000_000));
    let failed = ContractsShape::from_json(wrong.as_bytes())
        .expect_err("a text")
        .to_string();
    assert!(failed.len() < 600 && !failed.contains('\n'), "{failed}");

    let huge = " ".repeat(4 * 1024 * 1024 + 1);
    let failed = ContractsShape::from_json(huge.as_bytes())
        .expect_err("huge")
        .to_string();
    assert!(failed.contains("len=4194305, max=4194304"), "{failed}");

    let deep = format!("{{\"other\":{}", "[".repeat(1_000_000));
    assert!(ContractsShape::from_json(deep.as_bytes()).is_err());
    for cut in 0..one.len() {
        assert!(
            ContractsShape::from_json(&one.as_bytes()[..cut]).is_err(),
            "{cut}"
        );
    }
}

#[test]
fn equal_contracts_have_no_differences() {
    let same = shape(&format!("{QUOTE}{BLOB}"));
    assert_eq!(compare(&same, &same), []);
    let described = shape(&QUOTE.replace("fields:", "description: \"Other words.\", fields:"));
    assert_eq!(compare(&shape(QUOTE), &described), []);
}

#[test]
fn a_changed_layout_names_each_field_and_what_became_of_it() {
    let changed = "
  Quote: { tlv_type: 1001, domain: Prices, fields: { symbol: { type: String, validation: [ { max_length: 24 } ] }, count: { type: u64 }, side: { type: u8, enum: { BUY: 1, SHORT: 3 } } } }";
    let found = compare(&shape(QUOTE), &shape(changed));
    assert_eq!(found.len(), 1);
    assert_eq!(
        (&found[0].change, found[0].compatible),
        (&Change::LayoutChanged, false)
    );
    assert!(found[0].concerns(1001) && !found[0].concerns(1002));
    assert_eq!(
        found[0].details,
        [
            "size 40 -> 48",
            "field 'symbol': type String(16) -> String(24)",
            "field 'side': enum values removed: SELL=2, enum values added: SHORT=3, offset 24 -> 40",
            "field 'bid' removed from offset 32, f64",
            "field 'count' added at offset 32, u64",
        ]
    );
}

#[test]
fn swapped_fields_and_another_encoding_are_not_compatible() {
    let ab = "\n  P: { tlv_type: 1000, domain: D, fields: { a: { type: f64 }, b: { type: f64 } } }";
    let ba = "\n  P: { tlv_type: 1000, domain: D, fields: { b: { type: f64 }, a: { type: f64 } } }";
    let found = compare(&shape(ab), &shape(ba));
    assert!(!found[0].compatible);
    assert_eq!(
        found[0].details,
        ["field 'a': offset 0 -> 8", "field 'b': offset 8 -> 0"]
    );
    let packed = BLOB.replace("json, max_size: 512", "msgpack, max_size: 1024");
    let found = compare(&shape(BLOB), &shape(&packed));
    assert!(!found[0].compatible);
    assert_eq!(
        found[0].details,
        ["encoding json -> msgpack", "max_size 512 -> 1024"]
    );
}

#[test]
fn messages_that_one_side_lacks_are_compatible() {
    let both = shape(&format!("{QUOTE}{BLOB}"));
    let found = compare(&both, &shape(QUOTE));
    assert_eq!(texts(&found), ["message 'Blob' (topic 1002): removed"]);
    assert!(found[0].compatible);
    let found = compare(&shape(QUOTE), &both);
    assert_eq!(texts(&found), ["message 'Blob' (topic 1002): added"]);
    assert!(found[0].compatible);
}

#[test]
fn a_renamed_message_is_compatible_if_its_fields_are_the_same() {
    let renamed = QUOTE.replace("Quote:", "Tick:");
    let found = compare(&shape(QUOTE), &shape(&renamed));
    assert_eq!(
        texts(&found),
        ["message 'Quote' (topic 1001): renamed to 'Tick'"]
    );
    assert!(found[0].compatible);
    let found = compare(&shape(QUOTE), &shape(&renamed.replace("f64", "f32")));
    assert!(!found[0].compatible);
    assert_eq!(
        found[0].change,
        Change::Renamed {
            to: "Tick".to_owned()
        }
    );
}

#[test]
fn a_topic_id_that_stands_for_another_message_is_not_compatible() {
    let moved = QUOTE.replace("1001", "1003");
    let found = compare(&shape(QUOTE), &shape(&moved));
    assert_eq!(
        texts(&found),
        ["message 'Quote' (topic 1001 -> 1003): moved to another topic id"]
    );
    assert!(!found[0].compatible);

    let swapped = format!(
        "{}{}",
        QUOTE.replace("1001", "1002"),
        BLOB.replace("1002", "1001")
    );
    let found = compare(&shape(&format!("{QUOTE}{BLOB}")), &shape(&swapped));
    assert!(
        found
            .iter()
            .all(|it| it.change == Change::Moved && !it.compatible)
    );
    assert_eq!(found.len(), 2);

    // Quote moves away and a newcomer takes its id: frames of 1001 are not for each other.
    let replaced = format!("{}{}", moved, BLOB.replace("1002", "1001"));
    let found = compare(&shape(QUOTE), &shape(&replaced));
    assert!(
        found
            .iter()
            .filter(|it| it.concerns(1001))
            .all(|it| !it.compatible)
    );
    assert_eq!(
        texts(&found)[0],
        "message 'Blob' (topic 1001): added: its topic id is message 'Quote' on the old side"
    );
}

#[test]
fn a_difference_shows_eight_details_and_counts_the_others() {
    let fields = |kind: &str| {
        let fields: Vec<_> = (0..20)
            .map(|n| format!("f{n}: {{ type: {kind} }}"))
            .collect();
        format!(
            "\n  P: {{ tlv_type: 1000, domain: D, fields: {{ {} }} }}",
            fields.join(", ")
        )
    };
    let found = compare(&shape(&fields("u32")), &shape(&fields("i32")));
    assert_eq!(found[0].details.len(), 20);
    assert!(
        found[0]
            .to_string()
            .ends_with("; field 'f7': type u32 -> i32; and 12 more")
    );
}
