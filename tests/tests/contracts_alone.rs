//! Generated code compiles without a warning whatever the file contains: each type of the grammar alone, names that
//! the generator itself uses, only dynamic messages. That this builds is most of the test.

#[deny(warnings, missing_docs, clippy::all, clippy::pedantic)]
#[allow(dead_code, unreachable_pub, reason = "generated for a library")]
#[allow(
    clippy::missing_fields_in_debug,
    clippy::trivially_copy_pass_by_ref,
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "all messages have the same methods, whatever their size and rules; padding is not shown"
)]
mod alone {
    include!(concat!(env!("OUT_DIR"), "/alone.rs"));
}

use alone::{
    bool, camel, dynamic, long_bytes, method_names, nothing, taken_names, text, trait_names,
};
use std::path::Path;
use std::process::Command;

use mycelium_messages::Message;
use mycelium_messages::message::{DynamicMessage, Encoding};
use mycelium_tests::{python, repository};

#[test]
fn a_file_with_one_type_has_what_every_file_has() {
    assert_eq!(text::CONTRACTS.messages.len(), 1);
    assert_eq!(text::One::FIELDS[0].type_text, "String(32)");
    assert_eq!(
        nothing::One::new(nothing::OneFields {}).map(|one| one.to_string()),
        Ok("One".to_owned())
    );
    assert_eq!(
        bool::One::new(bool::OneFields { a: true }).and_then(|one| one.a()),
        Ok(true)
    );
    assert_eq!(dynamic::A::ENCODING, Encoding::Json);
    assert_eq!(long_bytes::OneFields::default().a, [0; 64]);
}

#[test]
fn names_that_generated_code_uses_itself_are_free() {
    let fields = taken_names::OneFieldsValues { a: "x" };
    let one = taken_names::One::new(fields).expect("valid");
    assert_eq!(one.fields(), Ok(fields));
    assert_eq!(taken_names::Contracts::NAME, "Contracts");
    let one = method_names::One::new(method_names::OneFields {
        new: "n",
        fields: true,
        set_new: "s",
    });
    let mut one = one.expect("valid");
    one.set_set_new("t").expect("short");
    assert_eq!(
        (one.new.as_str(), one.fields.get(), one.set_new.as_str()),
        (Ok("n"), Some(true), Ok("t"))
    );
    let one = trait_names::One::new(trait_names::OneFields {
        validate: "v",
        view: "w",
        read: true,
        as_bytes: "b",
        set: true,
        copy: false,
    });
    let one = one.expect("valid");
    assert_eq!(one.validate(), Ok(()), "the method of the trait");
    let viewed =
        trait_names::One::view(zerocopy::IntoBytes::as_bytes(&one)).expect("the same layout");
    assert_eq!((viewed.view.as_str(), viewed.set()), (Ok("w"), Ok(true)));
}

/// What the classes of a Python module say about their contracts.
fn json_of_python(folder: &Path, module: &str) -> String {
    let output = Command::new(python())
        .args([
            "-c",
            &format!("import {module}; print({module}.CONTRACTS.to_json(), end='')"),
        ])
        .current_dir(folder)
        .output()
        .expect("Python starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn both_languages_and_the_model_describe_contracts_in_the_same_bytes() {
    let generated = Path::new(env!("OUT_DIR"));
    let camel = mycelium_contracts::load(generated.join("camel.yaml")).expect("valid");
    let expected = camel.shape().to_json();
    assert!(
        expected.contains("[\"bidPrice\",\"f64\",0,8]"),
        "{expected}"
    );
    assert_eq!(camel::CONTRACTS.to_json(), expected);
    assert_eq!(json_of_python(generated, "camel"), expected);
    assert_eq!(camel::QuoteTick::KEY, ["bidPrice"]);

    let folder = repository().join("contracts/tests/golden");
    let grammar = mycelium_contracts::load(folder.join("grammar.yaml")).expect("valid");
    assert_eq!(
        json_of_python(&folder, "grammar"),
        grammar.shape().to_json()
    );
}
