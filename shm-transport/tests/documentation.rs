//! Every public type of the crate is used in an example that runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("sources") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            if !path.ends_with("tests") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// The lines of all examples that a test run compiles and runs.
fn examples(source: &str) -> String {
    let (mut text, mut runs, mut inside) = (String::new(), false, false);
    for line in source.lines().map(str::trim_start) {
        let Some(doc) = line.strip_prefix("///").or(line.strip_prefix("//!")) else {
            continue;
        };
        let doc = doc.strip_prefix(' ').unwrap_or(doc);
        if let Some(language) = doc.strip_prefix("```") {
            inside = !inside;
            runs = inside && language.is_empty();
        } else if runs {
            text += doc;
            text.push('\n');
        }
    }
    text
}

/// Names of the public types at the top level of a file.
fn types(source: &str) -> Vec<String> {
    let kinds = ["pub struct ", "pub enum ", "pub trait "];
    let name = |line: &str| {
        let rest = kinds.iter().find_map(|kind| line.strip_prefix(kind))?;
        let end = rest
            .find(|it: char| !it.is_alphanumeric())
            .unwrap_or(rest.len());
        Some(rest[..end].to_owned())
    };
    source.lines().filter_map(name).collect()
}

#[test]
fn every_public_type_is_used_in_an_example_that_runs() {
    let mut files = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut files,
    );
    let read = |path: &PathBuf| std::fs::read_to_string(path).expect("source");
    let texts: Vec<String> = files.iter().map(read).collect();
    let shown: String = texts.iter().map(|text| examples(text)).collect();
    let words: BTreeSet<&str> = shown
        .split(|it: char| !it.is_alphanumeric() && it != '_')
        .collect();
    let declared: BTreeSet<String> = texts.iter().flat_map(|text| types(text)).collect();
    assert!(declared.len() > 40, "the types are found: {declared:?}");
    let missing: Vec<_> = declared
        .iter()
        .filter(|name| !words.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "types without an example: {missing:?}");
}
