//! Reads the keys of one TOML table into typed values and notes every problem instead of stopping at the first.
//!
//! Values are read by hand rather than derived with serde because a derived reader stops at the first unknown key
//! or wrong type and points at the value; here each problem of the file gets its own line.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::problem::{Problems, did_you_mean};

/// A value with the place of its key, so that later checks point at the right line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// One table of the file. Every key that the program knows is taken once; `finish` reports the rest.
pub(crate) struct Section<'t, 'i> {
    /// How messages name the table, for example `[bridge]` or `worker 'momentum'`.
    label: String,
    table: &'t DeTable<'i>,
    span: Range<usize>,
    known: Vec<&'static str>,
}

impl<'t, 'i> Section<'t, 'i> {
    pub(crate) fn new(
        label: impl Into<String>,
        table: &'t DeTable<'i>,
        span: Range<usize>,
    ) -> Self {
        Self {
            label: label.into(),
            table,
            span,
            known: Vec::new(),
        }
    }

    pub(crate) fn set_label(&mut self, label: String) {
        self.label = label;
    }

    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    pub(crate) fn span(&self) -> &Range<usize> {
        &self.span
    }

    /// The raw value of a key, with the place of the key.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<(Range<usize>, &'t DeValue<'i>)> {
        self.known.push(key);
        let (name, value) = self.table.get_key_value(key)?;
        Some((name.span(), value.get_ref()))
    }

    pub(crate) fn string(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<At<String>> {
        let (span, value) = self.take(key)?;
        match value.as_str() {
            Some(text) => Some(At {
                value: text.to_owned(),
                span,
            }),
            None => self.wrong_type(key, span, "a string", value, problems),
        }
    }

    /// As `string`, for a path: not empty, and without a zero byte.
    pub(crate) fn path(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<At<String>> {
        let at = self.string(key, problems)?;
        if !at.value.is_empty() && !at.value.contains('\0') {
            return Some(at);
        }
        problems.add(
            &at.span,
            format!(
                "{}: {key} is no path: value='{}'",
                self.label,
                at.value.escape_debug()
            ),
            "name a file or directory, or remove the key",
        );
        None
    }

    pub(crate) fn strings(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<At<Vec<String>>> {
        let (span, value) = self.take(key)?;
        let texts = value.as_array().and_then(|array| {
            array
                .iter()
                .map(|item| item.get_ref().as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
        });
        match texts {
            Some(texts) => Some(At { value: texts, span }),
            None => self.wrong_type(key, span, "an array of strings", value, problems),
        }
    }

    /// A table whose values are strings.
    pub(crate) fn string_map(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<At<BTreeMap<String, String>>> {
        let (span, value) = self.take(key)?;
        let Some(table) = value.as_table() else {
            return self.wrong_type(key, span, "a table of strings", value, problems);
        };
        let mut map = BTreeMap::new();
        for (name, item) in table.iter() {
            match item.get_ref().as_str() {
                Some(text) => drop(map.insert(name.get_ref().to_string(), text.to_owned())),
                None => problems.add(
                    &name.span(),
                    format!(
                        "{}: {key}.{} has the wrong type: expected=string, actual={}",
                        self.label,
                        name.get_ref(),
                        item.get_ref().type_str()
                    ),
                    "environment variables are text: put the value in quotes",
                ),
            }
        }
        Some(At { value: map, span })
    }

    pub(crate) fn boolean(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<bool> {
        let (span, value) = self.take(key)?;
        match value.as_bool() {
            Some(flag) => Some(flag),
            None => self.wrong_type(key, span, "true or false", value, problems),
        }
    }

    /// An integer within `range`, inclusive at both ends.
    pub(crate) fn integer(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
        problems: &mut Problems<'_>,
    ) -> Option<At<u64>> {
        let (span, value) = self.take(key)?;
        let Some(number) = integer(value) else {
            return self.wrong_type(key, span, "an integer", value, problems);
        };
        match u64::try_from(number).ok().filter(|n| range.contains(n)) {
            Some(value) => Some(At { value, span }),
            None => {
                problems.add(
                    &span,
                    format!(
                        "{}: {key} is out of range: value={number}, legal={}..={}",
                        self.label,
                        range.start(),
                        range.end()
                    ),
                    "",
                );
                None
            }
        }
    }

    /// As `integer`, for a range that has negative numbers in it.
    pub(crate) fn signed(
        &mut self,
        key: &'static str,
        range: RangeInclusive<i64>,
        problems: &mut Problems<'_>,
    ) -> Option<i64> {
        let (span, value) = self.take(key)?;
        let Some(number) = integer(value) else {
            return self.wrong_type(key, span, "an integer", value, problems);
        };
        if range.contains(&number) {
            return Some(number);
        }
        problems.add(
            &span,
            format!(
                "{}: {key} is out of range: value={number}, legal={}..={}",
                self.label,
                range.start(),
                range.end()
            ),
            "",
        );
        None
    }

    /// Every element must be an integer that fits a `u32`.
    pub(crate) fn u32_list(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<At<Vec<u32>>> {
        let (span, value) = self.take(key)?;
        let numbers = value.as_array().and_then(|array| {
            array
                .iter()
                .map(|item| integer(item.get_ref()).and_then(|n| u32::try_from(n).ok()))
                .collect::<Option<Vec<_>>>()
        });
        match numbers {
            Some(numbers) => Some(At {
                value: numbers,
                span,
            }),
            None => self.wrong_type(
                key,
                span,
                "an array of integers from 0 to 4294967295",
                value,
                problems,
            ),
        }
    }

    /// One of a few words.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        choices: &[(&'static str, T)],
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        let text = self.string(key, problems)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(*value);
        }
        let legal: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
        let hint = did_you_mean(&text.value, legal.iter().copied())
            .map_or_else(String::new, |word| format!("did you mean '{word}'?"));
        problems.add(
            &text.span,
            format!(
                "{}: {key} is not known: value='{}', legal={}",
                self.label,
                text.value,
                legal.join(" | ")
            ),
            hint,
        );
        None
    }

    /// A table of anything, as JSON. Dates become strings; numbers that JSON cannot hold are reported.
    pub(crate) fn json_object(
        &mut self,
        key: &'static str,
        problems: &mut Problems<'_>,
    ) -> Option<At<Map<String, Value>>> {
        let (span, value) = self.take(key)?;
        let Some(table) = value.as_table() else {
            return self.wrong_type(key, span, "a table", value, problems);
        };
        Some(At {
            value: json_table(table, &format!("{}: {key}", self.label), problems),
            span,
        })
    }

    /// Reports every key of the table that was not taken.
    pub(crate) fn finish(self, problems: &mut Problems<'_>) {
        for name in self.table.keys() {
            let word: &str = name.get_ref();
            if self.known.contains(&word) {
                continue;
            }
            let hint = match did_you_mean(word, self.known.iter().copied()) {
                Some(known) => format!("did you mean '{known}'?"),
                None => format!("known keys: {}", self.known.join(", ")),
            };
            problems.add(
                &name.span(),
                format!("{}: unknown key '{word}'", self.label),
                hint,
            );
        }
    }

    fn wrong_type<T>(
        &self,
        key: &str,
        span: Range<usize>,
        expected: &str,
        actual: &DeValue<'_>,
        problems: &mut Problems<'_>,
    ) -> Option<T> {
        let message = format!(
            "{}: {key} has the wrong type: expected={expected}, actual={}",
            self.label,
            actual.type_str()
        );
        problems.add(&span, message, "");
        None
    }
}

/// TOML integers may be written in four radices; `None` where the value is no integer or exceeds 64 bits.
pub(crate) fn integer(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn json_table(table: &DeTable<'_>, path: &str, problems: &mut Problems<'_>) -> Map<String, Value> {
    let mut map = Map::new();
    for (name, value) in table.iter() {
        let name: &Spanned<DeString<'_>> = name;
        let path = format!("{path}.{}", name.get_ref());
        map.insert(name.get_ref().to_string(), json(value, &path, problems));
    }
    map
}

fn json_array(array: &DeArray<'_>, path: &str, problems: &mut Problems<'_>) -> Vec<Value> {
    array
        .iter()
        .enumerate()
        .map(|(index, item)| json(item, &format!("{path}[{index}]"), problems))
        .collect()
}

fn json(value: &Spanned<DeValue<'_>>, path: &str, problems: &mut Problems<'_>) -> Value {
    let number = match value.get_ref() {
        DeValue::String(text) => return Value::String(text.to_string()),
        DeValue::Boolean(flag) => return Value::Bool(*flag),
        DeValue::Datetime(datetime) => return Value::String(datetime.to_string()),
        DeValue::Array(array) => return Value::Array(json_array(array, path, problems)),
        DeValue::Table(table) => return Value::Object(json_table(table, path, problems)),
        DeValue::Integer(_) => integer(value.get_ref()).map(Number::from),
        DeValue::Float(float) => float.as_str().parse().ok().and_then(Number::from_f64),
    };
    match number {
        Some(number) => Value::Number(number),
        None => {
            problems.add(
                &value.span(),
                format!("{path} has no JSON form: legal=64-bit integers and finite floats"),
                "write the number as a string",
            );
            Value::Null
        }
    }
}
