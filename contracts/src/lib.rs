//! Contracts: one YAML file that says which messages exist, how their bytes lie and what may be in
//! them, checked and turned into Rust, Python, documentation and test vectors.
//!
//! The way of a file is: text, tree with places (`yaml`), file as written (`schema`), all rules
//! (`check`), model ([`Contracts`]), and from there either a program that reads the model (the
//! bridge does) or the emitters ([`generate`]).
//!
//! ```
//! let contracts = mycelium_contracts::parse(
//!     "ticks.yaml".as_ref(),
//!     b"messages: { Tick: { tlv_type: 1000, domain: Ticks, fields: { price: { type: f64 } } } }",
//! )?;
//! let tick = contracts.by_name("Tick").expect("declared above");
//! assert_eq!((tick.topic_id, tick.wire_len), (1000, Some(8)));
//! # Ok::<(), mycelium_contracts::Report>(())
//! ```

mod build;
mod check;
mod diagnostics;
pub mod diff;
mod digest;
mod emit;
mod generate;
mod model;
mod schema;
pub mod shape;
mod yaml;

use std::path::Path;

pub use build::{Build, BuildError, Built};
pub use diagnostics::{Diagnostic, Position, Report, Severity, closest};
pub use digest::hex;
pub use generate::{
    Config, GenerateError, Outcome, Rendered, RustVectors, Summary, Target, generate, render,
};
pub use model::{
    Constant, Contracts, Delivery, Digest, Domain, Element, Encoding, EnumType, Field, FieldType,
    Int, Invariant, Message, NAME_MAX, Notes, Number, PAYLOAD_LIMIT, PREFIX_LEN, Rule, Scalar,
};
pub use shape::{ContractsShape, FieldShape, MessageShape, ShapeError};

/// Reads and checks a contracts file.
///
/// # Errors
///
/// A [`Report`] with everything that is wrong with the file; its `Display` is ready to be shown.
pub fn load(path: impl AsRef<Path>) -> Result<Contracts, Report> {
    let path = path.as_ref();
    match std::fs::read(path) {
        Ok(bytes) => parse(path, &bytes),
        Err(failed) => {
            let mut report = Report::new(path.to_owned());
            let text = format!("contracts file cannot be read: {failed}");
            report.push(
                Severity::Error,
                None,
                text,
                "check the path and its permissions",
            );
            Err(report)
        }
    }
}

/// Checks the bytes of a contracts file; `path` is only used to name it.
///
/// # Errors
///
/// A [`Report`] with everything that is wrong with the file.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Contracts, Report> {
    let mut report = Report::new(path.to_owned());
    let Some(root) = tree(bytes, &mut report) else {
        return Err(report);
    };
    let file = schema::read(&root, &mut report);
    let mut checked = check::check(&file, &mut report);
    report.sort();
    if report.has_errors() {
        return Err(report);
    }
    for message in &mut checked.messages {
        message.layout_digest = digest::layout(message, &checked.enums);
    }
    Ok(Contracts {
        file: path.to_owned(),
        source_digest: digest::sha256(bytes),
        schema_digest: digest::schema(&checked.messages, &checked.constants),
        core: checked.core,
        messages: checked.messages,
        enums: checked.enums,
        constants: checked.constants,
        notes: checked.notes,
        report,
    })
}

fn tree(bytes: &[u8], report: &mut Report) -> Option<yaml::Node> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(failed) => {
            let line = bytes[..failed.valid_up_to()]
                .iter()
                .filter(|&&byte| byte == b'\n')
                .count();
            let at = Position {
                line: line + 1,
                column: 1,
            };
            let text = format!("not UTF-8: offset={}", failed.valid_up_to());
            report.error(at, text, "save the file as UTF-8");
            return None;
        }
    };
    match yaml::parse(text) {
        Ok(root) => Some(root),
        Err(failed) => {
            report.error(failed.at, failed.text, failed.hint);
            None
        }
    }
}
