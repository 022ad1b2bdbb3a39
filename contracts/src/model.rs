//! The checked model: what the emitters and the bridge work with. It knows no language.

mod types;

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::diagnostics::Report;

pub use types::{Element, FieldType, Int, Scalar};

/// Largest payload of a message, in bytes.
pub const PAYLOAD_LIMIT: usize = 4 * 1024 * 1024;
/// Longest name of a message, field, enum member or constant, in bytes.
pub const NAME_MAX: usize = 128;
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
    pub(crate) notes: Notes,
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

    /// What a value of a field may be, as half a sentence: `text of 1 to 16 bytes in UTF-8`.
    #[must_use]
    pub fn legal_values(&self, field: &Field) -> String {
        crate::emit::legal(self, field)
    }

    /// What the file says without effect on what is generated; the documentation shows it.
    #[must_use]
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The type of a field as far as it decides whether two peers read the same bytes the same way:
    /// its name with all lengths, and of an enum the members, for example `u8 BUY=1 SELL=2`.
    ///
    /// Two fields whose texts are equal hold the same values in the same bytes.
    #[must_use]
    pub fn type_text(&self, field: &Field) -> String {
        type_text(field, &self.enums)
    }

    /// The warnings of a file that has no errors.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }
}

pub(crate) fn type_text(field: &Field, enums: &[EnumType]) -> String {
    let mut text = field.kind.name();
    if let FieldType::Enum { index, .. } = field.kind {
        for (name, value) in &enums[index].variants {
            let _ = write!(text, " {name}={value}");
        }
    }
    text
}

/// One message.
#[derive(Debug, Clone)]
pub struct Message {
    /// Name as in the file.
    pub name: String,
    /// Domain as in the file.
    pub domain: String,
    /// Topic name, from the message's domain.
    pub topic: String,
    /// The contract's `tlv_type`.
    pub topic_id: u16,
    /// Description, or an empty string.
    pub description: String,
    /// Version of this message's schema, where the file gives one; without effect on the layout.
    pub schema_version: Option<String>,
    /// How sensitive the content is, as the file words it.
    pub sensitivity: Option<String>,
    /// Whether values of this message may be shown in logs and error texts.
    ///
    /// What the file says under `log_payload`; without that, false if `sensitivity` is given and
    /// is not one of `public`, `internal`, `low` and `none`.
    pub log_payload: bool,
    /// Name of a Rust type that stands for this message elsewhere; informative.
    pub rust_type: Option<String>,
    /// Messages that have to be seen before this one; informative.
    pub required_prior_messages: Vec<String>,
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

/// Parts of a contracts file that inform people and change nothing that is generated but the
/// documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// The entries of `schema`, in the order of the file: `id`, `version`, `min_compatible`.
    pub schema: Vec<(String, String)>,
    /// Domains, in the order of the file.
    pub domains: Vec<Domain>,
    /// Names and entries of `types`, in the order of the file.
    pub types: Vec<(String, Vec<(String, String)>)>,
    /// Invariants, in the order of the file.
    pub invariants: Vec<Invariant>,
}

/// A group of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Name as in the file.
    pub name: String,
    /// First and last topic id that the domain's messages should have, counted from 0 or from 1000.
    pub type_range: Option<(u16, u16)>,
    /// Description, or an empty string.
    pub description: String,
    /// Service level objectives and the like: key as in the file (its end names the unit), value.
    pub slos: Vec<(String, String)>,
}

/// Something that holds across messages, in the words of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Invariant {
    /// Name.
    pub name: String,
    /// Description, or an empty string.
    pub description: String,
    /// What makes sure of it.
    pub enforced_by: Vec<String>,
    /// How bad a breach is, or an empty string.
    pub severity: String,
}
