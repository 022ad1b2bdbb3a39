//! Keys of the configuration from the environment: `MYCELIUM_BRIDGE__LOG=debug` stands for `log` in `[bridge]`.
//!
//! They are put into the table that was read from the file, in the place of what it says, and are then read and checked
//! like everything else; a problem names the variable where it would name the line.

use std::ffi::{OsStr, OsString};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problems, did_you_mean};

/// What the names of all variables of the project begin with.
const PREFIX: &str = "MYCELIUM_";
/// Between the names of tables and keys, because keys hold single ones.
const BETWEEN: &str = "__";
/// The tables of which there is one.
const TABLES: [&str; 4] = ["bridge", "contracts", "metrics", "uplink"];

/// Variables that stand for keys of the configuration, as they were when they were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Names and values, ordered by name; no value is empty.
    variables: Vec<(String, OsString)>,
}

impl Overrides {
    /// Those that this process was started with: `MYCELIUM_TABLE__KEY`, where there is a value.
    #[must_use]
    pub fn from_environment() -> Self {
        Self::of(std::env::vars_os())
    }

    fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut variables: Vec<_> = variables
            .into_iter()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, value)| {
                let path = name.strip_prefix(PREFIX);
                path.is_some_and(|path| path.contains(BETWEEN)) && !value.is_empty()
            })
            .collect();
        variables.sort();
        Self { variables }
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|(name, _)| name.as_str())
    }

    /// Puts them into a configuration that was read.
    pub(super) fn apply<'i>(&'i self, root: &mut DeTable<'i>, problems: &mut Problems<'_>) {
        for (name, value) in &self.variables {
            let span = problems.variable(name);
            let Some(path) = path(name) else {
                problems.add(
                    &span,
                    "the variable stands for no key of the configuration",
                    hint(name),
                );
                continue;
            };
            let Some(value) = value_of(value) else {
                problems.add(&span, "the value is not valid UTF-8", "");
                continue;
            };
            let path: Vec<_> = path.iter().map(String::as_str).collect();
            if !put(root, &path, value, &span) {
                problems.add(
                    &span,
                    format!("[{}] of the file is not one table", path[0]),
                    "set the key in the file, and unset the variable",
                );
            }
        }
    }
}

/// Table and key, or with a table in a table between them.
fn path(name: &str) -> Option<Vec<String>> {
    let rest = name.strip_prefix(PREFIX)?;
    if rest.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return None;
    }
    let path: Vec<_> = rest.split(BETWEEN).map(str::to_ascii_lowercase).collect();
    let is_legal = TABLES.contains(&&*path[0]) && (2..=3).contains(&path.len());
    (is_legal && path.iter().all(|it| !it.is_empty())).then_some(path)
}

fn hint(name: &str) -> String {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    let (table, key) = rest.split_once(BETWEEN).unwrap_or((rest, ""));
    match did_you_mean(table, TABLES) {
        Some(table) if !key.is_empty() => {
            let meant = format!("{PREFIX}{table}{BETWEEN}{key}").to_ascii_uppercase();
            if meant == name {
                "after the table comes a key, or a table in it and a key".to_owned()
            } else {
                format!("did you mean {meant}?")
            }
        }
        _ => format!("tables: {}; unset it otherwise", TABLES.join(", ")),
    }
}

/// What TOML calls a number, a truth value, an array or a quoted string is one; everything else is text as it stands.
fn value_of(value: &OsStr) -> Option<DeValue<'_>> {
    let text = value.to_str()?;
    let parsed = DeValue::parse(text.trim()).map(Spanned::into_inner);
    Some(match parsed {
        Ok(
            value @ (DeValue::Integer(_)
            | DeValue::Boolean(_)
            | DeValue::Array(_)
            | DeValue::String(_)),
        ) => value,
        _ => DeValue::String(text.into()),
    })
}

/// Whether there is a place for it: on the way are tables, single ones in arrays, or nothing yet.
fn put<'i>(
    table: &mut DeTable<'i>,
    path: &[&str],
    value: DeValue<'i>,
    span: &Range<usize>,
) -> bool {
    let [key, rest @ ..] = path else {
        return false;
    };
    let name = || Spanned::new(span.clone(), (*key).to_owned().into());
    if rest.is_empty() {
        // Or else the key keeps the place that it has in the file.
        table.remove(*key);
        table.insert(name(), Spanned::new(span.clone(), value));
        return true;
    }
    if !table.contains_key(*key) {
        let empty = DeValue::Table(DeTable::new());
        table.insert(name(), Spanned::new(span.clone(), empty));
    }
    let inner = match table.get_mut(*key).map(Spanned::get_mut) {
        Some(DeValue::Array(items)) => match &mut **items {
            [item] => Some(item.get_mut()),
            _ => None,
        },
        other => other,
    };
    match inner {
        Some(DeValue::Table(inner)) => put(inner, rest, value, span),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tables_and_keys_in_capitals_with_a_value_stand_for_keys() {
        let names = [
            ("MYCELIUM_BRIDGE__LOG", "debug"),
            ("MYCELIUM_BRIDGE__SPIN_US", ""),
            ("MYCELIUM_BRIDGE_SERVICE_HOST", "10.0.0.1"),
            ("MYCELIUM_CONFIG", "a__b"),
            ("OTHER__LOG", "1"),
        ];
        let found = Overrides::of(names.map(|(name, value)| (name.into(), value.into())));
        assert_eq!(found.names().collect::<Vec<_>>(), ["MYCELIUM_BRIDGE__LOG"]);
        assert_eq!(
            path("MYCELIUM_BRIDGE__MEMORY__HUGE_PAGES").unwrap(),
            ["bridge", "memory", "huge_pages"]
        );
        for wrong in [
            "MYCELIUM__LOG",
            "MYCELIUM_BRIDGE__",
            "MYCELIUM_BRIDGE__log",
            "MYCELIUM_BRIDGE__A__B__C",
            "MYCELIUM_WORKER__NICE",
            "MYCELIUM_BRIDGE____LOG",
        ] {
            assert_eq!(path(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn numbers_truth_values_arrays_and_quoted_text_are_what_they_look_like() {
        let type_of = |text: &str| value_of(OsStr::new(text)).unwrap().type_str();
        for (text, expected) in [
            ("7", "integer"),
            (" 0x10 ", "integer"),
            ("true", "boolean"),
            ("[1000, 1001]", "array"),
            ("\"7\"", "string"),
            ("1MiB", "string"),
            ("[::1]:9464", "string"),
            ("2020-01-01", "string"),
            ("{ a = 1 }", "string"),
            ("a\nb = 1", "string"),
        ] {
            assert_eq!(type_of(text), expected, "{text}");
        }
        let quoted = value_of(OsStr::new("'7'")).unwrap();
        assert_eq!(quoted.as_str(), Some("7"));
    }
}
