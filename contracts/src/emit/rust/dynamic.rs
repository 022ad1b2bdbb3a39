//! Messages without a layout of their own.

use std::fmt::Write as _;

use super::layout::doc;
use super::{MAY_BE_UNUSED, constants, described};
use crate::check::pascal;
use crate::model::{Encoding, Message};

pub(super) fn message(message: &Message) -> String {
    let name = pascal(&message.name);
    let mut text = format!("\n{}", doc("", &described(&message.description, &name)));
    let (encoding, variant) = match message.encoding {
        Encoding::MsgPack => ("MessagePack", "MsgPack"),
        Encoding::Json => ("JSON", "Json"),
        Encoding::Raw | Encoding::Contract => ("raw bytes", "Raw"),
    };
    let max_size = message.max_size;
    let _ = write!(
        text,
        "///\n/// The payload is {encoding}, at most {max_size} bytes.\n{MAY_BE_UNUSED}\
         #[derive(Debug, Clone, Copy, PartialEq, Eq)]\npub struct {name};\n\n\
         impl message::DynamicMessage for {name} {{\n"
    );
    text.push_str(&constants(message));
    let _ = write!(
        text,
        "    const ENCODING: message::Encoding = message::Encoding::{variant};\n    \
         const MAX_SIZE: usize = {max_size};\n}}\n"
    );
    text
}
