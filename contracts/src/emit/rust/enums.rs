//! Open enums: a named integer, of which any value can arrive from a peer.

use std::fmt::Write as _;

use super::MAY_BE_UNUSED;
use super::layout::{array, doc};
use crate::model::EnumType;

pub(super) fn enumeration(found: &EnumType) -> String {
    let EnumType {
        name,
        repr,
        variants,
        ..
    } = found;
    let repr = repr.name();
    let mut text = format!("\n{}", doc("", &description(found)));
    let _ = write!(
        text,
        "///\n/// Any integer can arrive from a peer; those without a name fail validation.\n\
         #[repr(transparent)]\n#[derive(\n    Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, \
         IntoBytes, Immutable, KnownLayout,\n)]\npub struct {name}(pub {repr});\n\n\
         {MAY_BE_UNUSED}impl {name} {{\n"
    );
    for (variant, value) in variants {
        let _ = writeln!(text, "    /// `{variant}`, stored as {value}.");
        let _ = writeln!(text, "    pub const {variant}: Self = Self({value});");
    }
    text.push_str("\n    /// Name of the value; `None` if it has none.\n    #[must_use]\n");
    text.push_str(
        "    pub const fn name(self) -> Option<&'static str> {\n        match self.0 {\n",
    );
    for (variant, value) in variants {
        let _ = writeln!(text, "            {value} => Some(\"{variant}\"),");
    }
    let _ = write!(
        text,
        "            _ => None,\n        }}\n    }}\n}}\n\n\
         impl message::NamedInt for {name} {{\n    type Int = {repr};\n\n    \
         const TYPE: &'static str = \"{name}\";\n"
    );
    let member = |(variant, _): &(String, i128)| format!("(\"{variant}\", Self::{variant})");
    let members: Vec<_> = variants.iter().map(member).collect();
    let head = "const MEMBERS: &'static [(&'static str, Self)] = &";
    text.push_str(&array("    ", head, &members, ";"));
    let _ = write!(
        text,
        "\n    fn value(self) -> {repr} {{\n        self.0\n    }}\n\n    \
         fn member_name(self) -> Option<&'static str> {{\n        self.name()\n    }}\n}}\n"
    );
    for format in ["Debug", "Display"] {
        let _ = write!(
            text,
            "\nimpl fmt::{format} for {name} {{\n    \
             fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{\n        \
             message::NamedInt::show(*self, f)\n    }}\n}}\n"
        );
    }
    text
}

fn description(found: &EnumType) -> String {
    if !found.description.is_empty() {
        return found.description.clone();
    }
    let names = found.variants.iter().map(|(name, _)| format!("`{name}`"));
    format!("One of {}.", names.collect::<Vec<_>>().join(", "))
}
