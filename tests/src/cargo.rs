//! Cargo, called by a running test. Tests of other packages take this file by its path.

use std::path::Path;
use std::process::Command;

/// Cargo in this folder, without what it tells a running test about itself: that would make build scripts run again.
pub(crate) fn cargo(folder: &Path) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.current_dir(folder);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_MANIFEST_")
            || text.starts_with("CARGO_PKG_")
            || text == "OUT_DIR"
        {
            command.env_remove(name);
        }
    }
    command
}
