//! The text of a configuration file, or why there is none.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::problem::{ConfigError, Problems};

/// Longest configuration, in bytes: ten thousand workers. What is longer is another file, or has no end.
const LEN_MAX: u64 = 4 << 20;

/// Reads the file. A pipe will do.
pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    let bytes = read_bytes(path).map_err(|error| {
        let message = format!("cannot read the configuration: {error}");
        ConfigError::whole_file(path, message, hint(error.kind()))
    })?;
    if bytes.len() as u64 > LEN_MAX {
        let message = format!("the configuration is too long: max={LEN_MAX} bytes");
        return Err(ConfigError::whole_file(
            path,
            message,
            "name a TOML file with --config",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        let offset = error.utf8_error().valid_up_to();
        let (legal, rest) = error.as_bytes().split_at(offset);
        let legal = String::from_utf8_lossy(legal);
        let mut problems = Problems::new(&legal);
        problems.add(
            &(offset..offset),
            format!("not valid UTF-8: byte=0x{:02X}", rest[0]),
            "save the file as UTF-8",
        );
        problems.into_error(path)
    })
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(LEN_MAX + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn hint(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => {
            "name an existing file with --config, or write one with: mycelium-bridge init"
        }
        io::ErrorKind::IsADirectory => "name the file in it, for example DIRECTORY/bridge.toml",
        io::ErrorKind::PermissionDenied => "let this user read the file and enter its directories",
        _ => "name a readable TOML file with --config",
    }
}
