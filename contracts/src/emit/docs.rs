//! Documentation (Markdown).

use crate::model::Contracts;

pub(crate) fn file(_contracts: &Contracts) -> String {
    String::new()
}
