//! The types of fields: sizes, alignments and names.

use super::PREFIX_LEN;

/// Integer types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Int {
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
}

impl Int {
    /// Name as in the grammar, which is Rust's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
        }
    }

    /// Bytes.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 => 4,
            Self::U64 | Self::I64 => 8,
        }
    }

    /// Smallest and largest value.
    #[must_use]
    pub fn range(self) -> (i128, i128) {
        let bits = self.size() * 8;
        match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => (0, (1 << bits) - 1),
            _ => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        }
    }
}

/// What a field or an element of a `Vec` can be without a length of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Scalar {
    Int(Int),
    F32,
    F64,
}

impl Scalar {
    /// Name as in the grammar.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Int(int) => int.name(),
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }

    /// Bytes; the alignment is the same.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Int(int) => int.size(),
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// Element of a `Vec`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// A number.
    Scalar(Scalar),
    /// `[u8; N]`.
    Bytes(usize),
}

impl Element {
    /// Bytes of one element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Scalar(scalar) => scalar.size(),
            Self::Bytes(len) => len,
        }
    }

    pub(crate) fn align(self) -> usize {
        match self {
            Self::Scalar(scalar) => scalar.size(),
            Self::Bytes(_) => 1,
        }
    }

    /// Name as in the grammar.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Scalar(scalar) => scalar.name().to_owned(),
            Self::Bytes(len) => format!("[u8; {len}]"),
        }
    }
}

/// Type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// A number.
    Scalar(Scalar),
    /// One byte, 0 or 1.
    Bool,
    /// 16 bytes, alignment 8.
    U128,
    /// 16 bytes, alignment 8.
    I128,
    /// 32 bytes, alignment 1.
    U256,
    /// `[u8; N]`.
    Bytes(usize),
    /// `[[u8; len]; rows]`.
    Table {
        /// Bytes of one row.
        len: usize,
        /// Number of rows.
        rows: usize,
    },
    /// UTF-8 text of at most so many bytes.
    Text {
        /// Largest length in bytes.
        max_length: usize,
    },
    /// Counted elements.
    Vec {
        /// Type of one element.
        element: Element,
        /// Largest number of elements.
        max_length: usize,
    },
    /// One of a set of named integers; index into [`Contracts::enums`](super::Contracts::enums).
    Enum {
        /// Index into [`Contracts::enums`](super::Contracts::enums).
        index: usize,
        /// The integer that is stored.
        repr: Int,
    },
}

impl FieldType {
    /// Bytes of a value, rounded up to the alignment of the type.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Scalar(scalar) => scalar.size(),
            Self::Bool => 1,
            Self::U128 | Self::I128 => 16,
            Self::U256 => 32,
            Self::Bytes(len) => len,
            Self::Table { len, rows } => len * rows,
            Self::Text { max_length } => (PREFIX_LEN + max_length).next_multiple_of(2),
            Self::Vec {
                element,
                max_length,
            } => (PREFIX_LEN + max_length * element.size()).next_multiple_of(self.align()),
            Self::Enum { repr, .. } => repr.size(),
        }
    }

    /// Alignment in bytes.
    #[must_use]
    pub fn align(self) -> usize {
        match self {
            Self::Scalar(scalar) => scalar.size(),
            Self::Bool | Self::U256 | Self::Bytes(_) | Self::Table { .. } => 1,
            Self::U128 | Self::I128 => 8,
            Self::Text { .. } => 2,
            Self::Vec { element, .. } => element.align().max(2),
            Self::Enum { repr, .. } => repr.size(),
        }
    }

    /// Name as in the grammar, with the lengths that decide the layout; an enum by its integer.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Scalar(scalar) => scalar.name().to_owned(),
            Self::Bool => "bool".to_owned(),
            Self::U128 => "u128".to_owned(),
            Self::I128 => "i128".to_owned(),
            Self::U256 => "U256".to_owned(),
            Self::Bytes(len) => format!("[u8; {len}]"),
            Self::Table { len, rows } => format!("[[u8; {len}]; {rows}]"),
            Self::Text { max_length } => format!("String({max_length})"),
            Self::Vec {
                element,
                max_length,
            } => format!("Vec<{}>({max_length})", element.name()),
            Self::Enum { repr, .. } => repr.name().to_owned(),
        }
    }
}
