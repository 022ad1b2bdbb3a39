//! How values look in a log: on one line, of bounded length, and not at all where the contract says so.

use std::fmt;

use super::Message;

/// Bytes of an array, bytes of a text and elements of a list that are shown; the rest is counted.
const BYTES_SHOWN: usize = 32;
const TEXT_SHOWN: usize = 256;
const ITEMS_SHOWN: usize = 8;

/// Bytes as `0x…`.
#[derive(Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        for byte in self.0.iter().take(BYTES_SHOWN) {
            write!(f, "{byte:02x}")?;
        }
        if self.0.len() > BYTES_SHOWN {
            write!(f, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

/// Rows of bytes, each as `0x…`.
#[derive(Clone, Copy)]
pub struct HexRows<'a, const N: usize>(pub &'a [[u8; N]]);

impl<const N: usize> fmt::Debug for HexRows<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(self.0, |row, f| Hex(row).fmt(f), f)
    }
}

/// `[a, b]`, or `[a, b, … 20 more]`.
pub(super) fn list<T>(
    items: &[T],
    show: impl Fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    f.write_str("[")?;
    for (number, item) in items.iter().take(ITEMS_SHOWN).enumerate() {
        if number > 0 {
            f.write_str(", ")?;
        }
        show(item, f)?;
    }
    if items.len() > ITEMS_SHOWN {
        write!(f, ", … {} more", items.len() - ITEMS_SHOWN)?;
    }
    f.write_str("]")
}

/// A text in quotation marks.
pub(super) fn text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if text.len() <= TEXT_SHOWN {
        return fmt::Debug::fmt(text, f);
    }
    let mut end = TEXT_SHOWN;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    write!(f, "{:?}… ({} bytes)", &text[..end], text.len())
}

/// What stands in a log for a message whose values must not.
///
/// # Errors
///
/// If the formatter does.
pub fn not_logged<M: Message>(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let (name, topic_id, size) = (M::NAME, M::TOPIC_ID, size_of::<M>());
    write!(
        f,
        "{name} {{ payload not logged, topic_id: {topic_id}, size: {size} }}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{InlineString, InlineVec, le};

    #[test]
    fn long_values_are_cut_and_counted() {
        assert_eq!(format!("{:?}", Hex(&[0, 0xAB])), "0x00ab");
        let long = format!("{:?}", Hex(&[0x11; 40]));
        assert_eq!(long, format!("0x{}… (40 bytes)", "11".repeat(32)));
        assert_eq!(
            format!("{:?}", HexRows(&[[1, 2], [3, 4]])),
            "[0x0102, 0x0304]"
        );
        let vec = InlineVec::<le::F64, 10>::collect((0..10).map(f64::from)).expect("ten");
        let expected = "[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, … 2 more]";
        assert_eq!(format!("{vec:?}"), expected);
        let vec = InlineVec::<u8, 4>::new(b"ab").expect("two");
        assert_eq!(format!("{vec:?}"), "0x6162");
        let text = InlineString::<300>::new(&"é".repeat(150)).expect("it fits");
        let expected = format!("\"{}\"… (300 bytes)", "é".repeat(128));
        assert_eq!(format!("{text:?}"), expected);
    }
}
