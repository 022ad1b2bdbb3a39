//! The table of synchronisation pairs in `docs/memory-model.md` and the `SYNC:` marks in the sources say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The two names of a pair, in alphabetical order.
type Pair = [String; 2];

fn pair(text: &str) -> Option<Pair> {
    let (first, second) = text.split_once('↔')?;
    let name = |side: &str| side.split('(').next().unwrap_or_default().trim().to_owned();
    let mut names = [name(first), name(second)];
    names.sort();
    Some(names)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Each pair with the files that name it.
fn marks() -> BTreeMap<Pair, BTreeSet<String>> {
    let mut files = Vec::new();
    for folder in ["shm-transport/src", "bridge/src"] {
        sources(&root().join(folder), &mut files);
    }
    let mut marks = BTreeMap::<_, BTreeSet<_>>::new();
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file");
        let short = file.strip_prefix(root()).expect("below the root");
        for line in text.lines() {
            let Some((_, mark)) = line.split_once("SYNC: ") else {
                continue;
            };
            let pair = pair(mark)
                .unwrap_or_else(|| panic!("{}: a mark without ↔: {line}", short.display()));
            let short = short.to_str().expect("an ASCII path").to_owned();
            marks.entry(pair).or_default().insert(short);
        }
    }
    marks
}

/// Each pair of the table with the files that its row names.
fn rows() -> BTreeMap<Pair, BTreeSet<String>> {
    let text = fs::read_to_string(root().join("docs/memory-model.md")).expect("the document");
    let table = text
        .lines()
        .skip_while(|line| !line.starts_with("| pair |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    table
        .map(|row| {
            let pair = row.split('|').nth(1).and_then(pair);
            let files = row.split('`').filter(|part| part.ends_with(".rs"));
            (pair.expect("a pair"), files.map(str::to_owned).collect())
        })
        .collect()
}

#[test]
fn every_mark_has_its_row_and_every_row_its_marks() {
    let (marks, rows) = (marks(), rows());
    assert!(rows.len() >= 3, "the table was not found: {rows:?}");
    assert_eq!(marks, rows, "left: sources, right: docs/memory-model.md");
}
