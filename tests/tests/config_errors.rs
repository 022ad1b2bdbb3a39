//! Every mistake in a configuration, as `mycelium-bridge check` reports it.
//!
//! The files in `tests/configurations` hold what is expected below the line it is about: `#! COLUMN MESSAGE`, further lines
//! of the message as `#+`, the hint as `#?`. A `…` at the end leaves the rest open. `#$ NAME=VALUE` sets a variable, and what
//! comes below it is about that, with `-` for the column; `BAD` in its value is a byte that no text has.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mycelium_tests::tls::Certificates;
use mycelium_tests::{Place, bridge_binary, repository};

/// Longer than a socket's path, and as JSON longer than what settings may be.
const LONG: usize = 65_536;
/// The `PATH` in which commands are looked for.
const PATH: &str = "/usr/bin:/bin";

fn configurations(extension: &str) -> Vec<PathBuf> {
    let folder = repository().join("tests/configurations");
    let entries = fs::read_dir(folder).expect("a folder");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|it| it == extension));
    files.sort();
    files
}

fn name(file: &Path) -> &str {
    file.file_name()
        .and_then(|name| name.to_str())
        .expect("text")
}

/// A directory with everything that the configurations name.
fn place() -> Place {
    let place = Place::new();
    for file in configurations("yaml") {
        fs::copy(&file, place.path().join(name(&file))).expect("copy");
    }
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (name, text) in [
        ("plain.py", "print()\n"),
        ("token", "a-token-of-legal-length\n"),
        ("short-token", "short\n"),
        ("two-words", "two words that are long enough\n"),
        (
            "broken.env",
            "# variables\nMODE=live\nexport MODE\nMYCELIUM_FD=3\n",
        ),
        ("garbage.pem", garbage),
    ] {
        fs::write(place.path().join(name), text).expect("write");
    }
    let made = Certificates::make(&place, "made");
    for (from, to) in [
        (&made.ca, "ca.pem"),
        (&made.server.0, "server.pem"),
        (&made.server.1, "server-key.pem"),
        (&made.client.1, "client-key.pem"),
    ] {
        fs::copy(from, place.path().join(to)).expect("copy");
    }
    place
}

/// The variables that a file wants to have.
fn variables(text: &str) -> Vec<(String, OsString)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("#$ "));
    let pair = |line: &str| {
        let (name, value) = line.split_once('=').expect("a value");
        let pieces: Vec<_> = value.split("BAD").map(str::as_bytes).collect();
        (name.to_owned(), OsString::from_vec(pieces.join(&0xFF)))
    };
    lines.map(pair).collect()
}

/// What `check` says of a file in the place, without the directory's name.
fn check(place: &Place, file: &str, variables: Vec<(String, OsString)>) -> (Option<i32>, String) {
    let output = Command::new(bridge_binary())
        .args(["check", "--config", file])
        .current_dir(place.path())
        .env("PATH", PATH)
        .envs(variables)
        .env_remove("STATE_DIRECTORY")
        .output()
        .expect("run the bridge");
    assert!(output.stdout.is_empty(), "nothing is right: {output:?}");
    let text = String::from_utf8(output.stderr).expect("text");
    let directory = fs::canonicalize(place.path()).expect("a directory");
    let directory = directory.to_str().expect("text");
    (output.status.code(), text.replace(directory, "DIR"))
}

/// What the marks of a file expect, in the form of the output.
fn expected(file: &str, text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut about = String::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(rest) = line.strip_prefix("#! ") {
            lines.push(match rest.split_once(' ').expect("a column") {
                ("-", message) => format!("error: {about}: {message}"),
                (column, message) => format!("error: {file}:{about}:{column}: {message}"),
            });
        } else if let Some(rest) = line.strip_prefix("#+ ") {
            lines.push(rest.to_owned());
        } else if let Some(hint) = line.strip_prefix("#? ") {
            lines.push(format!("hint: {hint}"));
        } else if let Some(variable) = line.strip_prefix("#$ ") {
            about = variable.split('=').next().unwrap_or_default().to_owned();
        } else {
            about = (number + 1).to_string();
        }
    }
    lines
}

fn is_expected(actual: &str, expected: &str) -> bool {
    match expected.strip_suffix('…') {
        Some(begin) => actual.starts_with(begin),
        None => actual == expected,
    }
}

#[test]
fn every_problem_is_reported_at_once_with_its_line_its_column_and_what_to_change() {
    let place = place();
    for file in configurations("toml") {
        let name = name(&file);
        let text = fs::read_to_string(&file).expect("text");
        let uid = nix::unistd::geteuid().to_string();
        let expected = expected(name, &text.replace("OWN_UID", &uid));
        let written = text.replace("LONG", &"x".repeat(LONG));
        fs::write(place.path().join(name), written).expect("write");
        let (code, shown) = check(&place, name, variables(&text));
        let shown = shown.replace(&"x".repeat(LONG), "LONG");
        assert_eq!(code, Some(2), "{shown}");
        let shown: Vec<_> = shown.lines().collect();
        for (actual, expected) in shown.iter().zip(&expected) {
            assert!(
                is_expected(actual, expected),
                "{name}\nexpected: {expected}\nactual:   {actual}"
            );
        }
        assert_eq!(shown.len(), expected.len(), "{name}: {shown:#?}");
    }
}

/// The first string after each of the places in a source that say what is wrong, with `{…}` and lines joined.
fn messages(source: &str, call: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (offset, _) in source.match_indices(call) {
        let rest = &source[offset + call.len()..];
        let (_, rest) = rest.split_once('"').expect("a message");
        let mut message = String::new();
        let mut letters = rest.chars();
        loop {
            match letters.next().expect("the string ends") {
                '"' => break,
                '\\' => match letters.next().expect("the string ends") {
                    '\n' => {
                        let left = letters.as_str().trim_start();
                        letters = left.chars();
                    }
                    // The report that follows has lines of its own.
                    'n' => message.push_str("{}"),
                    letter => message.push(letter),
                },
                letter => message.push(letter),
            }
        }
        found.push(message);
    }
    found
}

/// Whether a text is what the format string makes.
fn is_made_by(text: &str, format: &str) -> bool {
    let mut rest = text;
    let mut pieces = format.split('{').enumerate();
    pieces.all(|(number, piece)| {
        let literal = if number == 0 {
            piece
        } else {
            piece.split_once('}').expect("it is closed").1
        };
        match rest.find(literal) {
            Some(at) => {
                rest = &rest[at + literal.len()..];
                true
            }
            None => false,
        }
    })
}

#[test]
fn no_problem_of_the_source_is_without_a_configuration_that_has_it() {
    let mut shown = Vec::new();
    for file in configurations("toml") {
        let text = fs::read_to_string(&file).expect("text");
        shown.extend(expected("", &text));
    }
    let source = repository().join("bridge/src");
    let mut files = vec![
        (source.join("listen/token.rs"), vec!["#[error("]),
        (source.join("listen/tls.rs"), vec!["#[error("]),
    ];
    for entry in fs::read_dir(source.join("config")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() && !path.ends_with("tests.rs") && !path.ends_with("source.rs") {
            files.push((path, vec!["problems.add(", "format!("]));
        }
    }
    let mut count = 0;
    let mut missing = Vec::new();
    for (file, calls) in files {
        let text = fs::read_to_string(&file).expect("text");
        let text = text.split("#[cfg(test)]").next().expect("code");
        for message in calls.iter().flat_map(|call| messages(text, call)) {
            // What is wrong was said somewhere else, and is a row of its own.
            let is_passed_on = message.split(['{', '}']).step_by(2).all(|it| it.len() < 3);
            if is_passed_on {
                continue;
            }
            count += 1;
            if !shown.iter().any(|line| is_made_by(line, &message)) {
                missing.push(format!("{}: {message}", file.display()));
            }
        }
    }
    assert_eq!(missing, [""; 0]);
    assert!(count > 70, "messages={count}");
}
