//! Open enums: a named integer, of which any value can arrive from a peer.

use std::fmt::Write as _;

use super::layout::doc;
use crate::model::EnumType;

pub(super) fn enumeration(found: &EnumType) -> String {
    let EnumType {
        name,
        repr,
        variants,
        ..
    } = found;
    let repr = repr.name();
    let mut text = format!("\n{}", doc("", &super::described(&found.description, name)));
    let _ = write!(
        text,
        "///\n/// Any integer can arrive from a peer; those without a name fail validation.\n\
         #[repr(transparent)]\n#[derive(\n    Clone, Copy, PartialEq, Eq, Hash, Default, FromBytes, \
         IntoBytes, Immutable, KnownLayout,\n)]\npub struct {name}(pub {repr});\n\n\
         impl {name} {{\n"
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
         impl fmt::Debug for {name} {{\n    \
         fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {{\n        \
         match self.name() {{\n            Some(name) => f.write_str(name),\n            \
         None => write!(f, \"{name}({{}})\", self.0),\n        }}\n    }}\n}}\n"
    );
    text
}
