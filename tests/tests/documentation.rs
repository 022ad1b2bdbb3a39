//! The documentation is held against the code: examples run, links lead somewhere, lists are complete.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mycelium_messages::bandit::Side;
use mycelium_tests::{Place, python, repository};
use shm_transport::frame::FrameHeader;

/// The Rust example of the README, word for word.
mod example {
    use std::time::Duration;

    use mycelium_bridge::bridge::Bridge;
    use mycelium_bridge::config::Config;
    use mycelium_messages::bandit::{Quote, QuoteFields, Signal};

    fn ask_the_strategy(config: &str) -> Result<Signal, Box<dyn std::error::Error>> {
        let bridge = Bridge::start(&Config::load(config)?)?;
        let mut actor = bridge.attach("pricing")?;
        actor.subscribe::<Signal>()?;
        let quote = Quote::new(QuoteFields {
            symbol: "EUR/USD",
            sequence: 1,
            bid: 1.1212,
            ask: 1.1214,
            ..QuoteFields::default()
        })?;
        actor.publish(&quote, Some(Duration::from_secs(5)))?;
        let signal = actor.recv(Some(Duration::from_secs(60)))?.read()?;
        drop(actor);
        bridge.shut_down()?;
        Ok(signal)
    }

    pub(super) fn run(config: &str) -> Signal {
        ask_the_strategy(config).unwrap_or_else(|error| panic!("{error}"))
    }
}

fn read(path: impl AsRef<Path>) -> String {
    let path = repository().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The contents of all fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}\n");
    text.split(&opening)
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default().to_owned())
        .collect()
}

fn only_block(text: &str, language: &str) -> String {
    let mut found = blocks(text, language);
    assert_eq!(found.len(), 1, "blocks of {language}");
    found.remove(0)
}

/// Every document that people read.
fn documents() -> Vec<PathBuf> {
    let mut found = vec![
        "README.md".into(),
        "CHANGELOG.md".into(),
        "python-sdk/README.md".into(),
        "tests/data/README.md".into(),
    ];
    for folder in ["docs", "docs/python"] {
        for entry in std::fs::read_dir(repository().join(folder)).expect("a folder") {
            let name = entry.expect("entry").file_name();
            if name.to_string_lossy().ends_with(".md") {
                found.push(Path::new(folder).join(name));
            }
        }
    }
    found
}

#[test]
fn the_examples_of_the_readme_run_together() {
    let readme = read("README.md");
    let place = Place::new();
    std::fs::write(
        place.path().join("momentum.py"),
        only_block(&readme, "python"),
    )
    .expect("write the strategy");
    std::os::unix::fs::symlink(
        repository().join("contracts"),
        place.path().join("contracts"),
    )
    .expect("link the contracts");
    let config = only_block(&readme, "toml");
    let with_sdk = config.replace("\"python3\"", &format!("{:?}", python()));
    assert_ne!(config, with_sdk, "the worker's command is python3");
    let path = place.path().join("bridge.toml");
    std::fs::write(&path, with_sdk).expect("write the configuration");

    let signal = example::run(path.to_str().expect("text"));
    assert_eq!(signal.worker.as_str(), Ok("momentum"));
    assert_eq!((signal.quote_sequence, signal.side.0), (1, Side::HOLD.0));
    assert!((signal.price - 1.1213).abs() < 1e-9, "{}", signal.price);
}

#[test]
fn the_rust_example_of_the_readme_is_the_one_that_runs() {
    let source = include_str!("documentation.rs");
    let body = source.split_once("mod example {\n").expect("the module").1;
    let body = body
        .split_once("\n    pub(super) fn run")
        .expect("its end")
        .0;
    let unindented: String = body
        .lines()
        .map(|line| line.strip_prefix("    ").unwrap_or(line).to_owned() + "\n")
        .collect();
    assert_eq!(
        only_block(&read("README.md"), "rust").trim(),
        unindented.trim()
    );
}

#[test]
fn the_worked_example_of_the_wire_format_is_a_test_vector() {
    let vectors: serde_json::Value =
        serde_json::from_str(&read("contracts/vectors/bandit.json")).expect("JSON");
    let named = |list: &serde_json::Value, name: &str| {
        let list = list.as_array().expect("a list");
        let found = list.iter().find(|item| item["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}")).clone()
    };
    let quote = named(&vectors["messages"], "Quote");
    let case = named(&quote["cases"], "typical");
    let payload = case["bytes"].as_str().expect("hexadecimal digits");
    let topic_id = u16::try_from(quote["topic_id"].as_u64().expect("a number")).expect("u16");
    let header = FrameHeader::new(topic_id, (payload.len() / 2) as u32);
    let header: String = header
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();

    let is_byte =
        |word: &&str| word.len() == 2 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let documented: String = only_block(&read("docs/wire-format.md"), "hex")
        .lines()
        .flat_map(|line| line.split_whitespace().take_while(is_byte))
        .collect();
    assert_eq!(documented, header + payload);
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    text.chars()
        .filter_map(|letter| match letter {
            ' ' => Some('-'),
            '-' | '_' => Some(letter),
            _ if letter.is_alphanumeric() => Some(letter),
            _ => None,
        })
        .collect()
}

#[test]
fn every_relative_link_leads_to_a_file_and_a_heading() {
    let mut links = 0;
    for document in documents() {
        let text = read(&document);
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap_or_default();
            if target.contains("://") {
                continue;
            }
            links += 1;
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() {
                document.clone()
            } else {
                document.parent().expect("a folder").join(file)
            };
            let shown = document.display();
            assert!(
                repository().join(&path).exists(),
                "{shown}: no file {target}"
            );
            if !heading.is_empty() {
                let anchors: BTreeSet<_> = read(&path)
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .map(anchor)
                    .collect();
                assert!(anchors.contains(heading), "{shown}: no heading {target}");
            }
        }
    }
    assert!(links > 20, "links={links}");
}

#[test]
fn every_file_that_a_document_names_exists() {
    let mut names = 0;
    for document in documents() {
        for name in read(&document).split('`').skip(1).step_by(2) {
            let is_source = [".rs", ".py", ".yaml", ".toml", ".json"]
                .iter()
                .any(|ending| name.ends_with(ending));
            let is_path = name.contains('/') && !name.contains([' ', '*', '<', '=', '{']);
            // A temporary result is not in the repository; the Python package names its own files from its folder.
            if !is_source || !is_path || name.starts_with("target/") {
                continue;
            }
            names += 1;
            let own_folder = document.parent().expect("a folder").join(name);
            assert!(
                repository().join(name).exists() || repository().join(own_folder).exists(),
                "{}: no file {name}",
                document.display()
            );
        }
    }
    assert!(names > 50, "names={names}");
}

/// Folders of sources that the code map of ARCHITECTURE.md has to show, and the ending of their files.
const MAPPED: [(&str, &str); 7] = [
    ("shm-transport/src/", ".rs"),
    ("bridge/src/", ".rs"),
    ("contracts/src/", ".rs"),
    ("contracts/messages/src/", ".rs"),
    ("tests/src/", ".rs"),
    ("benches/src/", ".rs"),
    (SDK, ".py"),
];
const SDK: &str = "python-sdk/src/mycelium/";

/// All files in a folder, as paths from the repository's root.
fn files_below(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(repository().join(folder)).expect("a folder") {
        let entry = entry.expect("entry");
        let path = format!("{folder}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            found.extend(files_below(&format!("{path}/")));
        } else {
            found.push(path);
        }
    }
    found
}

/// A file that is named by its full path, that stands behind its folder in a row, or whose folder is named with no files.
#[test]
fn the_code_map_has_every_source_file_and_no_other() {
    let text = read("docs/ARCHITECTURE.md");
    let map = text.split_once("## Code map").expect("the map").1;
    let map = map.split_once("\n## ").expect("its end").0;
    let (mut files, mut folders) = (BTreeSet::new(), BTreeSet::new());
    for line in map.lines().filter(|line| !line.starts_with('#')) {
        // Private files of the SDK stand in rows of their own without their folder.
        let (mut folder, mut ending) = (SDK.to_owned(), ".py");
        let row = line
            .strip_prefix("| ")
            .and_then(|row| row.split(" | ").next());
        for name in row.unwrap_or(line).split('`').skip(1).step_by(2) {
            if name.ends_with('/') {
                folders.insert(name.to_owned());
                (folder, ending) = (name.to_owned(), ".rs");
            } else if name.contains('/') {
                files.insert(name.to_owned());
            } else if row.is_some() {
                files.insert(format!("{folder}{name}{ending}"));
                folders.remove(&folder);
            }
        }
    }
    for file in &files {
        assert!(repository().join(file).exists(), "the map names {file}");
    }
    let mut seen = 0;
    for (root, ending) in MAPPED {
        for file in files_below(root) {
            let (_, name) = file.rsplit_once('/').expect("a folder");
            let is_entry =
                ["lib.rs", "main.rs", "mod.rs", "tests.rs", "__init__.py"].contains(&name);
            if is_entry || file.contains("/tests/") || !name.ends_with(ending) {
                continue;
            }
            seen += 1;
            assert!(
                files.contains(&file) || folders.iter().any(|folder| file.starts_with(folder)),
                "the code map in ARCHITECTURE.md lacks {file}"
            );
        }
    }
    assert!(seen > 250, "source files: {seen}");
}

/// The schema has every key that the bridge reads; a test of the bridge sees to that.
#[test]
fn every_key_of_the_configuration_is_documented() {
    let schema: serde_json::Value =
        serde_json::from_str(&read("bridge/samples/bridge.schema.json")).expect("JSON");
    let mut keys = BTreeSet::new();
    collect_keys(&schema, &mut keys);
    assert!(keys.len() >= 60, "{keys:?}");
    let configuration = read("docs/configuration.md");
    for key in keys {
        // A table is a heading of its own.
        let heading = format!("`[{key}]`");
        let array = format!("`[[{key}]]`");
        assert!(
            [format!("`{key}`"), heading, array]
                .iter()
                .any(|form| configuration.contains(form)),
            "configuration.md lacks {key}"
        );
    }
}

/// The names of all properties in a JSON schema.
fn collect_keys(schema: &serde_json::Value, keys: &mut BTreeSet<String>) {
    match schema {
        serde_json::Value::Object(object) => {
            for (name, value) in object {
                if let ("properties", Some(properties)) = (name.as_str(), value.as_object()) {
                    keys.extend(properties.keys().cloned());
                }
                collect_keys(value, keys);
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| collect_keys(value, keys)),
        _ => {}
    }
}

#[test]
fn every_file_with_a_synchronisation_pair_is_in_the_memory_model() {
    let model = read("docs/memory-model.md");
    let mut folders = vec![
        repository().join("shm-transport/src"),
        repository().join("bridge/src"),
    ];
    let mut pairs = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if read(&path).contains("SYNC:") {
                pairs += 1;
                let name = path.strip_prefix(repository()).expect("inside").display();
                assert!(
                    model.contains(&format!("`{name}`")),
                    "memory-model.md lacks {name}"
                );
            }
        }
    }
    assert!(pairs >= 5, "files with pairs: {pairs}");
}
