//! Pages of the documentation whose blocks are run.

/// One fenced block of the page.
#[derive(Debug)]
pub struct Block<'page> {
    /// What stands behind the opening fence.
    pub language: &'page str,
    /// Its lines.
    pub text: &'page str,
    /// The comment on the line before, for the test; may be empty.
    pub mark: &'page str,
    /// The last name in backquotes of the paragraph before.
    pub name: &'page str,
}

/// All fenced blocks of a page.
///
/// # Panics
///
/// If a fence does not end its line.
#[must_use]
pub fn blocks(page: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut parts = page.split("```");
    while let (Some(before), Some(block)) = (parts.next(), parts.next()) {
        let (language, text) = block.split_once('\n').expect("a fence ends its line");
        let paragraph = before.trim_end().rsplit("\n\n").next().unwrap_or_default();
        let mark = paragraph
            .strip_prefix("<!-- ")
            .and_then(|rest| rest.strip_suffix(" -->"));
        found.push(Block {
            language,
            text,
            mark: mark.unwrap_or_default(),
            name: paragraph.rsplit('`').nth(1).unwrap_or_default(),
        });
    }
    found
}
