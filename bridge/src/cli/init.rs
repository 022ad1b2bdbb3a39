//! `mycelium-bridge init` and `schema`: a configuration to begin with, and what editors need to know.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{EXIT_FAILURE, failure};

const SAMPLE: &str = include_str!("../../samples/init.toml");
const CONTRACTS: &str = include_str!("../../samples/contracts.yaml");
const SCHEMA: &str = include_str!("../../samples/bridge.schema.json");

/// Name of the configuration in a directory.
const FILE_NAME: &str = "bridge.toml";
/// The contracts file that the sample names.
const CONTRACTS_NAME: &str = "contracts.yaml";

/// Writes the sample, and contracts beside it unless there are some. Never touches a file that exists.
pub(super) fn init(path: &Path) -> ExitCode {
    let file = if path.is_dir() {
        path.join(FILE_NAME)
    } else {
        path.to_owned()
    };
    let contracts = file.with_file_name(CONTRACTS_NAME);
    if let Err(error) = create(&file, SAMPLE) {
        return refused(&file, &error);
    }
    let messages = match create(&contracts, CONTRACTS) {
        Ok(()) => format!("wrote {}", contracts.display()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            format!("kept {}", contracts.display())
        }
        Err(error) => return refused(&contracts, &error),
    };
    let file = file.display();
    // A reader that has closed the pipe has seen enough.
    let _ = writeln!(
        io::stdout(),
        "wrote {file}\n{messages}\nnext: mycelium-bridge check --config {file}"
    );
    ExitCode::SUCCESS
}

fn create(path: &PathBuf, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())
}

fn refused(path: &Path, error: &io::Error) -> ExitCode {
    let hint = match error.kind() {
        io::ErrorKind::AlreadyExists => {
            "it is left as it is; name another file, or move it away yourself"
        }
        io::ErrorKind::NotFound => "create the directory first",
        _ => "name a file in a directory that you may write to",
    };
    let message = format!("cannot write: path={}: {error}", path.display());
    failure(message, hint, EXIT_FAILURE)
}

/// Prints the JSON schema of the configuration.
pub(super) fn schema() -> ExitCode {
    match io::stdout().write_all(SCHEMA.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(
            format!("cannot print the schema: {error}"),
            "",
            EXIT_FAILURE,
        ),
    }
}
