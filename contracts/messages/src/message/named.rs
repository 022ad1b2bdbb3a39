//! Enums as they come from a peer: an integer, of which some values have names.

use std::fmt;

/// An integer with named values; any value can arrive from a peer.
pub trait NamedInt: Copy + Eq + 'static {
    /// The integer that is stored.
    type Int: Copy + Into<i128> + TryFrom<i128> + fmt::Display;

    /// Name of the type.
    const TYPE: &'static str;
    /// All names and their values, ordered by value.
    const MEMBERS: &'static [(&'static str, Self)];

    /// The stored integer.
    fn value(self) -> Self::Int;

    /// Name of this value; `None` if it has none. Cost: linear in the number of names.
    fn member_name(self) -> Option<&'static str> {
        let found = Self::MEMBERS.iter().find(|(_, value)| *value == self);
        found.map(|(name, _)| *name)
    }

    /// The value with this name. Cost: linear in the number of names.
    fn from_name(name: &str) -> Option<Self> {
        let found = Self::MEMBERS.iter().find(|(member, _)| *member == name);
        found.map(|(_, value)| *value)
    }

    /// The named value that is stored as this integer. Cost: linear in the number of names.
    fn from_value(value: i128) -> Option<Self> {
        let found = Self::MEMBERS
            .iter()
            .find(|(_, member)| member.value().into() == value);
        found.map(|(_, value)| *value)
    }

    /// Writes the name, or the type and the integer where it has none.
    ///
    /// # Errors
    ///
    /// If the formatter does.
    fn show(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.member_name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}({})", Self::TYPE, self.value()),
        }
    }
}
