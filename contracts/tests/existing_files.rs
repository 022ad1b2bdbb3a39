//! Files in the dialect of existing users load without a word, with the layout that they have there.

use std::path::Path;

use mycelium_contracts::{Contracts, Report, parse};

fn load(name: &str) -> Contracts {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    mycelium_contracts::load(path).unwrap_or_else(|report| panic!("{report}"))
}

fn layout(contracts: &Contracts, message: &str) -> Vec<(String, usize, usize)> {
    let message = contracts.by_name(message).expect("a message of this name");
    let fields = message.fields.iter();
    let mut found: Vec<_> = fields
        .map(|it| (it.name.clone(), it.offset, it.size))
        .collect();
    found.push(("end".to_owned(), message.max_size, message.align));
    found
}

fn expected(fields: &[(&str, usize, usize)]) -> Vec<(String, usize, usize)> {
    let fields = fields.iter();
    fields
        .map(|&(name, at, size)| (name.to_owned(), at, size))
        .collect()
}

#[test]
fn a_file_of_the_existing_dialect_has_no_findings_and_the_known_layout() {
    let contracts = load("trading.yaml");
    assert_eq!(contracts.report().to_string(), "");
    let token = [
        ("token", 0, 20),
        ("symbol", 20, 40),
        ("decimals", 60, 1),
        ("chain_id", 64, 4),
        ("end", 68, 4),
    ];
    assert_eq!(layout(&contracts, "TokenInfo"), expected(&token));
    let pool = [
        ("pool", 0, 20),
        ("venue_id", 20, 2),
        ("reserve0", 22, 32),
        ("sqrt_price", 54, 32),
        ("tick", 88, 4),
        ("block_number", 96, 8),
        ("end", 104, 8),
    ];
    assert_eq!(layout(&contracts, "PoolState"), expected(&pool));
    let opportunity = [
        ("id", 0, 8),
        ("path", 8, 88),
        ("hashes", 96, 136),
        ("profit_usd", 232, 8),
        ("gas_wei", 240, 32),
        ("note", 272, 40),
        ("data", 312, 24),
        ("nonce", 336, 6),
        ("tokens", 342, 120),
        ("table", 462, 8192),
        ("end", 8656, 8),
    ];
    assert_eq!(layout(&contracts, "Opportunity"), expected(&opportunity));
    let topics: Vec<_> = contracts.messages().map(|it| it.topic.as_str()).collect();
    assert_eq!(topics, ["market-data", "market-data", "signal"]);
    assert!(!contracts.by_name("Opportunity").expect("there").log_payload);
    let pool = contracts.by_name("PoolState").expect("there");
    assert_eq!(pool.required_prior_messages, ["TokenInfo"]);
    assert_eq!(contracts.notes().domains[1].slos[2].0, "security");
}

fn one(message: &str) -> Result<Contracts, Report> {
    let text = format!("messages:\n  Tick: {{ tlv_type: 1000, {message} }}\n");
    parse(Path::new("x.yaml"), text.as_bytes())
}

#[test]
fn topics_are_domains_in_lower_case_with_a_hyphen_in_market_data() {
    for (domain, topic) in [
        ("MarketData", "market-data"),
        ("CryptoMarketData", "cryptomarket-data"),
        ("Signal", "signal"),
        ("Order_Flow", "order_flow"),
    ] {
        let contracts = one(&format!(
            "domain: {domain}, fields: {{ a: {{ type: u8 }} }}"
        ));
        let contracts = contracts.expect("valid");
        assert_eq!(contracts.by_id(1000).expect("there").topic, topic);
    }
}

#[test]
fn windows_line_ends_a_byte_order_mark_and_null_values_are_accepted() {
    let text = "messages:\r\n  Tick:\r\n    tlv_type: 1000\r\n    domain: Ticks\r\n    sensitivity:\r\n    log_payload: null\r\n    fields:\r\n      a: { type: u8, optional: ~ }\r\n";
    let plain = parse(Path::new("x.yaml"), text.as_bytes()).expect("CRLF");
    assert_eq!(plain.report().to_string(), "");
    let with_mark = format!("\u{feff}{text}");
    let marked = parse(Path::new("x.yaml"), with_mark.as_bytes()).expect("BOM");
    assert_eq!(marked.schema_digest(), plain.schema_digest());
    assert_ne!(marked.source_digest(), plain.source_digest());
}
