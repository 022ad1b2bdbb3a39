//! Lines as rustfmt would write them.

use std::fmt::Write as _;

use crate::emit::wrap;

/// Widest line, and widest arguments of a call, elements of an array or struct literal on one line.
const WIDTH: usize = 100;
const ARGUMENTS_WIDTH: usize = 60;
/// Widest fields of a struct literal on one line.
const LITERAL_WIDTH: usize = 18;
/// Elements up to this width are put several on a line.
const SHORT_ELEMENT_WIDTH: usize = 10;

/// A doc comment; brackets are escaped because rustdoc would take them for links.
pub(super) fn doc(indent: &str, text: &str) -> String {
    let text = text.replace('[', "\\[").replace('<', "\\<");
    wrap(&text, 96 - indent.len())
        .iter()
        .fold(String::new(), |mut lines, line| {
            let _ = writeln!(lines, "{indent}/// {line}");
            lines
        })
}

/// A call as rustfmt lays it out.
pub(super) fn call(indent: &str, head: &str, arguments: &[String], tail: &str) -> String {
    let joined = arguments.join(", ");
    let width = indent.len() + head.len() + joined.len() + tail.len() + 2;
    if joined.len() <= ARGUMENTS_WIDTH && width <= WIDTH {
        return format!("{indent}{head}({joined}){tail}\n");
    }
    let mut text = format!("{indent}{head}(\n");
    for argument in arguments {
        let comma = if head.ends_with('!') && arguments.len() == 1 {
            ""
        } else {
            ","
        };
        let _ = writeln!(text, "{indent}    {argument}{comma}");
    }
    let _ = writeln!(text, "{indent}){tail}");
    text
}

/// An array behind `head`: `const KEY: … = &[…];`.
pub(super) fn array(indent: &str, head: &str, elements: &[String], tail: &str) -> String {
    let joined = elements.join(", ");
    let width = indent.len() + head.len() + joined.len() + tail.len() + 2;
    if joined.len() <= ARGUMENTS_WIDTH && width <= WIDTH {
        return format!("{indent}{head}[{joined}]{tail}\n");
    }
    if let Some((name, reference)) = head.split_once(" = ")
        && joined.len() <= ARGUMENTS_WIDTH
    {
        return format!("{indent}{name} =\n{indent}    {reference}[{joined}]{tail}\n");
    }
    let mut text = format!("{indent}{head}[\n");
    if elements.iter().all(|one| one.len() <= SHORT_ELEMENT_WIDTH) {
        for line in wrap(&format!("{joined},"), WIDTH - indent.len() - 4) {
            let _ = writeln!(text, "{indent}    {line}");
        }
    } else {
        for element in elements {
            let _ = writeln!(text, "{indent}    {element},");
        }
    }
    let _ = writeln!(text, "{indent}]{tail}");
    text
}

/// An array of calls, given as what is called and its arguments.
pub(super) fn array_of_calls(
    indent: &str,
    head: &str,
    calls: &[(String, Vec<String>)],
    tail: &str,
) -> String {
    let flat = |(function, arguments): &(String, Vec<String>)| {
        let arguments = arguments.join(", ");
        format!("{function}({arguments})")
    };
    let flat: Vec<_> = calls.iter().map(flat).collect();
    if flat.join(", ").len() <= ARGUMENTS_WIDTH {
        return array(indent, head, &flat, tail);
    }
    let inner = format!("{indent}    ");
    let mut text = format!("{indent}{head}[\n");
    for (function, arguments) in calls {
        text.push_str(&call(&inner, function, arguments, ","));
    }
    let _ = writeln!(text, "{indent}]{tail}");
    text
}

/// A struct literal behind `head`; each field is `name: value`.
pub(super) fn literal(indent: &str, head: &str, fields: &[String], tail: &str) -> String {
    let joined = fields.join(", ");
    if joined.len() <= LITERAL_WIDTH {
        return format!("{indent}{head} {{ {joined} }}{tail}\n");
    }
    let mut text = format!("{indent}{head} {{\n");
    for field in fields {
        let _ = writeln!(text, "{indent}    {field},");
    }
    let _ = writeln!(text, "{indent}}}{tail}");
    text
}
