//! A contracts file of any bytes, and the description of contracts that a peer may send.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mycelium_contracts::{ContractsShape, diff, parse};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(contracts) = parse(Path::new("fuzz.yaml"), bytes) {
        let shape = contracts.shape();
        let read = ContractsShape::from_json(shape.to_json().as_bytes()).expect("its own form");
        assert_eq!(diff::compare(&shape, &read), []);
    }
    if let Ok(shape) = ContractsShape::from_json(bytes) {
        assert_eq!(diff::compare(&shape, &shape), []);
    }
});
