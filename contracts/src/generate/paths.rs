//! Paths as text that does not depend on the current folder.

use std::path::{Component, Path, PathBuf};

/// The path from the root, without `.` and `..`; symbolic links are not followed.
pub(super) fn absolute(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for part in absolute.components() {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

/// How `path` is called by somebody in `folder`, with `/` between the parts.
pub(super) fn from_folder(folder: &Path, path: &Path) -> String {
    let folder = absolute(folder);
    let path = absolute(path);
    let common = folder
        .components()
        .zip(path.components())
        .take_while(|(left, right)| left == right)
        .count();
    let up = folder.components().skip(common).map(|_| "..".to_owned());
    let down = path
        .components()
        .skip(common)
        .map(|part| part.as_os_str().to_string_lossy().into_owned());
    up.chain(down).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_a_folder() {
        let from = |folder: &str, path: &str| from_folder(Path::new(folder), Path::new(path));
        assert_eq!(from("a", "a/out/x.rs"), "out/x.rs");
        assert_eq!(from("a/b", "a/./c/../x.rs"), "../x.rs");
        assert_eq!(from("", "x.rs"), "x.rs");
    }
}
