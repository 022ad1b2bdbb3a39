//! Python text as `ruff format` lays it out at 120 columns: calls, tuples, strings and docstrings.

use crate::emit::wrap;

/// Widest line.
pub(super) const COLUMNS: usize = 120;
/// Widest line of prose.
const WIDTH: usize = 110;

/// A call on one line, or with its arguments on the next, or with one line per argument.
pub(super) fn layout(indent: &str, head: &str, arguments: &[&str], tail: &str) -> String {
    let joined = arguments.join(", ");
    let line = format!("{indent}{head}({joined}){tail}\n");
    let several_lines = joined.contains('\n');
    if width(&line) <= COLUMNS && !several_lines {
        return line;
    }
    let inner = format!("{indent}    {joined}\n");
    if width(&inner) <= COLUMNS && !several_lines {
        return format!("{indent}{head}(\n{inner}{indent}){tail}\n");
    }
    let separator = format!(",\n{indent}    ");
    let joined = arguments.join(&separator);
    format!("{indent}{head}(\n{indent}    {joined},\n{indent}){tail}\n")
}

fn width(line: &str) -> usize {
    line.trim_end_matches('\n').chars().count()
}

/// A tuple behind `head`, on one line or with one line per element. Elements of several lines are indented for that.
pub(super) fn tuple(indent: &str, head: &str, elements: &[String]) -> String {
    let line = match elements {
        [] => format!("{indent}{head}()\n"),
        [one] => format!("{indent}{head}({one},)\n"),
        many => format!("{indent}{head}({})\n", many.join(", ")),
    };
    if elements.len() <= 1 && width(&line) <= COLUMNS && !line.trim_end().contains('\n') {
        return line;
    }
    let separator = format!(",\n{indent}    ");
    format!(
        "{indent}{head}(\n{indent}    {},\n{indent})\n",
        elements.join(&separator)
    )
}

/// A tuple of short strings, on one line where it fits.
pub(super) fn short_tuple(indent: &str, head: &str, elements: &[String]) -> String {
    let line = format!("{indent}{head}({})\n", elements.join(", "));
    if elements.len() > 1 && width(&line) <= COLUMNS {
        return line;
    }
    tuple(indent, head, elements)
}

/// An `if` whose conditions all have to hold.
pub(super) fn all_of(indent: &str, tests: &[String]) -> String {
    let line = format!("{indent}if {}:\n", tests.join(" and "));
    if width(&line) <= COLUMNS {
        return line;
    }
    let lines = tests.join(&format!("\n{indent}    and "));
    format!("{indent}if (\n{indent}    {lines}\n{indent}):\n")
}

/// A string literal in pieces of at most `room` columns, one line each; broken at spaces where there are some.
pub(super) fn pieces(text: &str, room: usize) -> Vec<String> {
    if text.len() + 2 <= room {
        return vec![format!("\"{text}\"")];
    }
    if text.contains(' ') {
        let lines = wrap(text, room - 3);
        let last = lines.len() - 1;
        let quoted = lines.iter().enumerate().map(|(index, line)| {
            let space = if index == last { "" } else { " " };
            format!("\"{line}{space}\"")
        });
        return quoted.collect();
    }
    let characters: Vec<char> = text.chars().collect();
    let chunks = characters.chunks(room - 2);
    chunks
        .map(|chunk| format!("\"{}\"", chunk.iter().collect::<String>()))
        .collect()
}

/// A string as the value of an assignment.
pub(super) fn assigned_string(indent: &str, head: &str, text: &str, tail: &str) -> String {
    let line = format!("{indent}{head}\"{text}\"{tail}\n");
    if width(&line) <= COLUMNS {
        return line;
    }
    let inner = pieces(text, COLUMNS - indent.len() - 4).join(&format!("\n{indent}    "));
    format!("{indent}{head}(\n{indent}    {inner}\n{indent}){tail}\n")
}

/// Prose inside a docstring: no escapes, no quotes that could end it, a full stop at the end.
fn prose(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "'");
    let text = text.trim();
    if text.ends_with(['.', '!', '?', ':']) {
        text.to_owned()
    } else {
        format!("{text}.")
    }
}

/// The first sentence, and the rest.
fn summary(text: &str) -> Option<(&str, &str)> {
    let ends = text.match_indices(". ").map(|(index, _)| index);
    ends.filter(|index| text[index + 2..].starts_with(char::is_uppercase))
        .map(|index| (&text[..=index], &text[index + 2..]))
        .next()
}

/// A docstring; what does not fit into one line is a summary and the rest.
pub(super) fn docstring(indent: &str, text: &str) -> String {
    let text = prose(text);
    let room = WIDTH - indent.len();
    let lines = wrap(&text, room);
    if let [line] = lines.as_slice() {
        return format!("{indent}\"\"\"{line}\"\"\"\n");
    }
    let separator = format!("\n{indent}");
    if let Some((first, rest)) = summary(&text)
        && first.chars().count() <= room
    {
        let rest = wrap(rest, room).join(&separator);
        return format!("{indent}\"\"\"{first}\n\n{indent}{rest}\n{indent}\"\"\"\n");
    }
    format!("{indent}\"\"\"{}\n{indent}\"\"\"\n", lines.join(&separator))
}
