//! The checked model: what the emitters and the bridge work with. It knows no language.

use std::path::PathBuf;

use crate::diagnostics::Report;

/// Largest payload of a message, in bytes.
pub const PAYLOAD_LIMIT: usize = 4 * 1024 * 1024;
/// Bytes of the length prefix of a `String` or `Vec`: u16 count, then zeros.
pub const PREFIX_LEN: usize = 8;

/// A 32-byte SHA-256 digest.
pub type Digest = [u8; 32];

/// A checked contracts file.
#[derive(Debug, Clone)]
pub struct Contracts {
    pub(crate) file: PathBuf,
    pub(crate) source_digest: Digest,
    pub(crate) schema_digest: Digest,
    pub(crate) core: bool,
    pub(crate) messages: Vec<Message>,
    pub(crate) enums: Vec<EnumType>,
    pub(crate) constants: Vec<Constant>,
    pub(crate) report: Report,
}

impl Contracts {
    /// The file, as it was named by the caller.
    #[must_use]
    pub fn file(&self) -> &std::path::Path {
        &self.file
    }

    /// SHA-256 of the file's bytes: what a Mycelium bus compares.
    #[must_use]
    pub fn source_digest(&self) -> Digest {
        self.source_digest
    }

    /// SHA-256 of the model: does not change with comments, descriptions or the order of map keys.
    #[must_use]
    pub fn schema_digest(&self) -> Digest {
        self.schema_digest
    }

    /// Whether this is a file of control messages (`core: true`).
    #[must_use]
    pub fn is_core(&self) -> bool {
        self.core
    }

    /// All messages, ordered by topic id.
    pub fn messages(&self) -> std::slice::Iter<'_, Message> {
        self.messages.iter()
    }

    /// The message called `name`. Cost: linear in the number of messages.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&Message> {
        self.messages.iter().find(|message| message.name == name)
    }

    /// The message with this topic id. Cost: logarithmic in the number of messages.
    #[must_use]
    pub fn by_id(&self, topic_id: u16) -> Option<&Message> {
        let found = self
            .messages
            .binary_search_by_key(&topic_id, |message| message.topic_id);
        found.ok().map(|index| &self.messages[index])
    }

    /// All enums, in the order of their first use. [`FieldType::Enum`] holds an index into this.
    #[must_use]
    pub fn enums(&self) -> &[EnumType] {
        &self.enums
    }

    /// All constants, in the order of the file.
    #[must_use]
    pub fn constants(&self) -> &[Constant] {
        &self.constants
    }

    /// The warnings of a file that has no errors.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}

/// One message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Name as in the file.
    pub name: String,
    /// Topic name, from the message's domain.
    pub topic: String,
    /// The contract's `tlv_type`.
    pub topic_id: u16,
    /// Description, or an empty string.
    pub description: String,
    /// Default delivery policy of a subscription.
    pub delivery: Delivery,
    /// Fields whose values together name what a newer message replaces (policy conflate).
    pub key: Vec<String>,
    /// How the payload is written.
    pub encoding: Encoding,
    /// Exact payload length in bytes; `None` for a dynamic message.
    pub wire_len: Option<usize>,
    /// Largest payload length in bytes; equals `wire_len` where that is known.
    pub max_size: usize,
    /// Alignment of the layout in bytes; 1 for a dynamic message.
    pub align: usize,
    /// SHA-256 over name, topic id, encoding and every field's name, type and offset.
    pub layout_digest: Digest,
    /// Fields in memory order; empty for a dynamic message.
    pub fields: Vec<Field>,
}

/// One field of a message.
#[derive(Debug, Clone)]
pub struct Field {
    /// Name as in the file.
    pub name: String,
    /// Description, or an empty string.
    pub description: String,
    /// Type.
    pub kind: FieldType,
    /// Bytes from the start of the payload.
    pub offset: usize,
    /// Bytes, without padding behind the field.
    pub size: usize,
    /// Whether the field may be left at zero; does not change the layout.
    pub optional: bool,
    /// What a value has to satisfy beyond its type.
    pub rules: Vec<Rule>,
}

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

    fn align(self) -> usize {
        match self {
            Self::Scalar(scalar) => scalar.size(),
            Self::Bytes(_) => 1,
        }
    }

    fn name(self) -> String {
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
    /// One of a set of named integers; index into [`Contracts::enums`].
    Enum {
        /// Index into [`Contracts::enums`].
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

/// A bound of a number: the text of the file decides whether it is an integer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// Written without fraction or exponent.
    Int(i128),
    /// Anything else that is finite.
    Float(f64),
}

impl Number {
    /// The value as a float; integers beyond 2^53 are rounded.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        match self {
            #[allow(clippy::cast_precision_loss, reason = "documented")]
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }
}

/// What a value has to satisfy beyond its type.
#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// Text or `Vec` of at least so many bytes or elements; `not_empty` is 1.
    MinLength(usize),
    /// A number other than 0, or bytes that are not all 0.
    NotZero,
    /// Smallest number.
    Min(Number),
    /// Largest number.
    Max(Number),
    /// Text that does not start with `0x`.
    No0xPrefix,
    /// Not checkable on one message; kept for the documentation.
    Documented(String),
}

/// Default delivery policy of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Back-pressure reaches the publisher.
    #[default]
    Block,
    /// A full link loses the new message.
    DropNewest,
    /// A full link loses its oldest message.
    DropOldest,
    /// A newer message replaces the one with the same key.
    Conflate,
}

impl Delivery {
    /// All policies.
    pub const ALL: [Self; 4] = [
        Self::Block,
        Self::DropNewest,
        Self::DropOldest,
        Self::Conflate,
    ];

    /// Name as in the grammar.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::DropNewest => "drop_newest",
            Self::DropOldest => "drop_oldest",
            Self::Conflate => "conflate",
        }
    }
}

/// How a payload is written; the numbers are those of the frame's flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// The binary layout of the contract.
    #[default]
    Contract,
    /// MessagePack.
    MsgPack,
    /// JSON.
    Json,
    /// Plain bytes.
    Raw,
}

impl Encoding {
    /// All encodings.
    pub const ALL: [Self; 4] = [Self::Contract, Self::MsgPack, Self::Json, Self::Raw];

    /// Name as in the grammar.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Contract => "contract",
            Self::MsgPack => "msgpack",
            Self::Json => "json",
            Self::Raw => "raw",
        }
    }

    /// Value of the two encoding bits in a frame's flags.
    #[must_use]
    pub fn bits(self) -> u16 {
        match self {
            Self::Contract => 0,
            Self::MsgPack => 1,
            Self::Json => 2,
            Self::Raw => 3,
        }
    }
}

/// A set of named integers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnumType {
    /// Name of the type: the field's name in Pascal case, with the message's name in front of it
    /// where fields of the same name have different sets.
    pub name: String,
    /// Description of the first field that uses it.
    pub description: String,
    /// The integer that is stored.
    pub repr: Int,
    /// Names and values, ordered by value.
    pub variants: Vec<(String, i128)>,
}

/// A named number.
#[derive(Debug, Clone)]
pub struct Constant {
    /// Name.
    pub name: String,
    /// Description, or an empty string.
    pub description: String,
    /// Type as in Rust: `usize`, or the name of an [`Int`].
    pub kind: String,
    /// Value.
    pub value: i128,
    /// Whether the file writes it in base 16, which the generated files then do too.
    pub hexadecimal: bool,
}
