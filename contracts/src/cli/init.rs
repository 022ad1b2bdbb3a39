//! `init`: a commented contracts file to start from.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::print;

/// What is written; a test holds it against every command.
const STARTER: &str = include_str!("starter.yaml");

pub(crate) fn run(file: &Path, force: bool) -> ExitCode {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let written = options
        .open(file)
        .and_then(|mut opened| opened.write_all(STARTER.as_bytes()));
    match written {
        Ok(()) => {
            let path = file.display();
            print(&format!(
                "wrote {path}\nnext:\n  \
                 mycelium-contracts check {path}\n  \
                 mycelium-contracts show {path} Quote\n  \
                 mycelium-contracts generate {path} --rust messages.rs --python messages.py --docs messages.md\n"
            ));
            ExitCode::SUCCESS
        }
        Err(failed) if failed.kind() == ErrorKind::AlreadyExists => {
            eprintln!("error: the file exists: path={}", file.display());
            eprintln!("hint: name another file, or replace it with --force");
            ExitCode::from(1)
        }
        Err(failed) => {
            eprintln!(
                "error: file cannot be written: path={}: {failed}",
                file.display()
            );
            eprintln!("hint: check the folder and its permissions");
            ExitCode::from(1)
        }
    }
}
