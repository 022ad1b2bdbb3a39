//! What is refused, and how the error says it.

use mycelium_messages::Message;
use mycelium_messages::bandit::{Quote, QuoteFields, Side};
use mycelium_messages::zerocopy::IntoBytes as _;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::golden::{Lists, Numbers, Rules, Secret, Vecs, Wide};

fn refused<M: Message + DeserializeOwned>(value: &serde_json::Value) -> String {
    let text = value.to_string();
    serde_json::from_str::<M>(&text)
        .expect_err("not valid")
        .to_string()
}

#[test]
fn a_message_looks_like_this() {
    let fields = QuoteFields {
        symbol: "EUR/USD",
        bid: 1.5,
        ask: f64::INFINITY,
        ..QuoteFields::default()
    };
    let text = serde_json::to_string(&Quote::new(fields).expect("valid")).expect("valid");
    let start = r#"{"symbol":"EUR/USD","sequence":0,"#;
    assert!(text.starts_with(start), "{text}");
    assert!(text.contains(r#""bid":1.5,"ask":"inf","#), "{text}");
    assert_eq!(
        serde_json::to_string(&Side::SELL).expect("named"),
        "\"SELL\""
    );
    assert_eq!(postcard::to_stdvec(&Side::SELL).expect("named"), [2]);
    assert_eq!(
        serde_json::from_str::<Side>("3").expect("named"),
        Side::HOLD
    );
}

#[test]
fn missing_fields_are_zero_where_that_is_legal() {
    let read: Quote = serde_json::from_value(json!({"symbol": "A"})).expect("the rest may be zero");
    let built = QuoteFields {
        symbol: "A",
        ..QuoteFields::default()
    };
    assert_eq!(
        read.as_bytes(),
        Quote::new(built).expect("valid").as_bytes()
    );
    let failed = refused::<Rules>(&json!({"level": 1, "price": 0.5}));
    let expected = "message 'Rules', field 'count': fields are missing: \
                    missing=count, change, big, colour; give them a value";
    assert!(failed.starts_with(expected), "{failed}");
}

#[test]
fn unknown_and_repeated_fields_are_refused_with_their_place() {
    let failed = refused::<Quote>(&json!({"symbol": "A", "bit": 1.0}));
    let expected = "message 'Quote': unknown field: name=\"bit\", legal: symbol, sequence, ";
    assert!(failed.starts_with(expected), "{failed}");
    let failed = serde_json::from_str::<Quote>("{\"symbol\": \"A\",\n \"symbol\": \"B\"}");
    let failed = failed.expect_err("twice").to_string();
    assert!(
        failed.contains("field 'symbol': field is given twice"),
        "{failed}"
    );
    assert!(failed.ends_with("at line 2 column 9"), "{failed}");
}

#[test]
fn values_of_another_type_or_size_are_refused_with_message_and_field() {
    for (field, value, expected) in [
        (
            "a",
            json!(256),
            "value out of range: value=256, min=0, max=255; stay inside",
        ),
        (
            "a",
            json!(-1),
            "value out of range: value=-1, min=0, max=255",
        ),
        ("a", json!(1.5), "expected an integer from 0 to 255"),
        ("a", json!("1"), "expected an integer from 0 to 255"),
        (
            "b",
            json!(1e30),
            "expected an integer from 0 to 18446744073709551615",
        ),
        ("c", json!(null), "expected an integer from -128 to 127"),
        (
            "f",
            json!(1e300),
            "value out of range: value=1e300, min=-3.4028235e38",
        ),
        (
            "f",
            json!("infinity"),
            "expected a number, 'inf', '-inf' or 'NaN'",
        ),
        (
            "k",
            json!("NaN:7ff0000000000000"),
            "expected a number, 'inf', '-inf' or 'NaN'",
        ),
        ("g", json!(1), "expected true or false"),
    ] {
        let failed = refused::<Numbers>(&json!({field: value}));
        assert!(
            failed.starts_with(&format!("message 'Numbers', field '{field}': ")),
            "{failed}"
        );
        assert!(failed.contains(expected), "{failed}");
    }
    let wide = |field: &str, value| {
        let mut values = json!({"c": "1", "e": "01".repeat(20)});
        values[field] = value;
        refused::<Wide>(&values)
    };
    for (field, value, expected) in [
        (
            "b",
            json!("-1"),
            "value out of range: value=-1, min=0, max=3402823669",
        ),
        ("c", json!("1".repeat(60)), "value out of range: value=111"),
        ("c", json!("+1"), "as a string if it has more than 64 bits"),
        ("e", json!("0x01"), "value too short: length=1, min=20"),
        (
            "e",
            json!("01".repeat(21)),
            "length out of range: length=21, max=20",
        ),
        (
            "e",
            json!("0".repeat(39)),
            "expected at most 20 bytes, two hexadecimal digits each",
        ),
        (
            "e",
            json!("+1".repeat(20)),
            "expected at most 20 bytes, two hexadecimal digits each",
        ),
        ("e", json!([1, 2]), "expected at most 20 bytes"),
        ("f", json!(["000000"]), "value too short: length=1, min=2"),
        (
            "f",
            json!(["000000", "000000", "000000"]),
            "length out of range: length=3, max=2",
        ),
        ("c", json!(0), "value is zero"),
    ] {
        let failed = wide(field, value);
        assert!(
            failed.starts_with(&format!("message 'Wide', field '{field}': ")),
            "{failed}"
        );
        assert!(failed.contains(expected), "{failed}");
    }
    let failed = refused::<Vecs>(&json!({"odd_rows": ["010203"], "prices": [1, 2, 3, 4, 5]}));
    assert!(
        failed.contains("field 'prices': length out of range: length=5, max=3"),
        "{failed}"
    );
    let failed = refused::<Lists>(&json!({"ints": [1]}));
    assert!(
        failed.contains("field 'ints': value too short: length=1, min=2"),
        "{failed}"
    );
    let colour = json!({"count": 1, "price": 1, "change": 1, "big": 1, "colour": "BLUE"});
    let failed = refused::<Rules>(&colour);
    assert!(
        failed.contains("field 'colour'") && failed.contains("expected one of RED=16, GREEN=32"),
        "{failed}"
    );
    assert!(failed.contains("\"BLUE\""), "{failed}");
}

#[test]
fn small_integers_may_be_given_for_wide_ones_and_digits_with_a_prefix() {
    let values = json!({"b": 7, "c": -7, "e": format!("0x{}", "aB".repeat(20))});
    let read: Wide = serde_json::from_value(values).expect("valid");
    assert_eq!((read.b(), read.c(), read.e), (7, -7, [0xAB; 20]));
}

#[test]
fn values_that_must_not_be_logged_are_written_but_in_no_error() {
    let values = json!({"account": "abc123", "amount": 12.0, "tier": "GOLD"});
    let secret: Secret = serde_json::from_value(values.clone()).expect("valid");
    let text = serde_json::to_string(&secret).expect("valid");
    assert!(text.contains("abc123"), "{text}");
    for (field, value) in [
        ("amount", json!("9876")),
        ("amount", json!(9876)),
        ("limit", json!(9876)),
        ("limit", json!(9876.5)),
        ("tier", json!("9876")),
        ("account", json!("9876987698769876")),
        ("account", json!(9876)),
        ("new", json!("9876")),
    ] {
        let mut values = values.clone();
        values[field] = value;
        let failed = refused::<Secret>(&values);
        assert!(
            failed.starts_with(&format!("message 'Secret', field '{field}': ")),
            "{failed}"
        );
        assert!(!failed.contains("9876"), "{failed}");
    }
}

#[test]
fn binary_input_that_is_cut_or_too_long_is_refused() {
    let quote = Quote::new(QuoteFields {
        symbol: "A",
        ..QuoteFields::default()
    })
    .expect("valid");
    let written = postcard::to_stdvec(&quote).expect("valid");
    for length in 0..written.len() {
        assert!(
            postcard::from_bytes::<Quote>(&written[..length]).is_err(),
            "{length}"
        );
    }
    let short = rmp_serde::to_vec(&("A", 1, 2)).expect("a list");
    let failed = rmp_serde::from_slice::<Quote>(&short)
        .expect_err("too few")
        .to_string();
    assert!(failed.contains("message 'Quote', field '"), "{failed}");
    assert!(
        failed.contains("too few values: len=3, expected="),
        "{failed}"
    );
    let long = rmp_serde::to_vec(&vec![1; 9]).expect("a list");
    assert!(rmp_serde::from_slice::<Quote>(&long).is_err());
}

#[test]
fn any_bytes_are_read_or_refused_without_a_panic() {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..20_000 {
        let mut bytes = [0; 64];
        random.fill(&mut bytes);
        for read in [
            postcard::from_bytes::<Vecs>(&bytes).ok(),
            rmp_serde::from_slice(&bytes).ok(),
        ] {
            assert!(read.is_none_or(|message| message.validate().is_ok()));
        }
    }
}
