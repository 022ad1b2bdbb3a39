//! `mycelium-bridge status`: how a running bridge is.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use mycelium_bridge::config::{Config, Overrides};
use mycelium_bridge::status::client::{AskError, ControlClient};

use super::paint::{self, Colour};
use super::{ConfigArgument, EXIT_CONFIG, EXIT_FAILURE, config_error, failure, picture, terminal};

/// Exit code where no bridge runs.
const EXIT_NO_BRIDGE: u8 = 3;

#[derive(Debug, clap::Args)]
pub(super) struct WhichBridge {
    #[command(flatten)]
    config: ConfigArgument,
    /// The control socket of the bridge, in place of a configuration.
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    bridge: WhichBridge,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    /// When to use colours; never in JSON.
    #[arg(long, value_name = "WHEN", value_enum, default_value_t)]
    color: Colour,
}

impl WhichBridge {
    /// Connects to the control socket; an error has been printed and is an exit code.
    pub(super) fn connect(&self) -> Result<ControlClient, ExitCode> {
        let path = match &self.control {
            Some(path) => path.clone(),
            None => {
                let overrides = Overrides::from_environment();
                Config::control_path(&self.config.path, &overrides)
                    .map_err(|error| config_error(&error))?
            }
        };
        ControlClient::connect(&path).map_err(|error| ask_failed(&error))
    }
}

/// Prints why a bridge gave no status.
pub(super) fn ask_failed(error: &AskError) -> ExitCode {
    let code = match error {
        AskError::NoBridge { .. } => EXIT_NO_BRIDGE,
        AskError::NoMessage { .. } => EXIT_CONFIG,
        AskError::Io { .. } | AskError::Answer { .. } => EXIT_FAILURE,
    };
    let meant = match error {
        AskError::NoMessage { known, .. } => {
            known.first().map(|it| format!("the nearest name is {it}"))
        }
        _ => None,
    };
    failure(error, meant.as_deref().unwrap_or(error.hint()), code)
}

pub(super) fn run(arguments: &StatusArguments) -> ExitCode {
    let status = match arguments.bridge.connect() {
        Ok(mut client) => client.status(),
        Err(code) => return code,
    };
    let status = match status {
        Ok(status) => status,
        Err(error) => return ask_failed(&error),
    };
    let text = if arguments.json {
        match serde_json::to_string(&status) {
            Ok(text) => text + "\n",
            Err(error) => return failure(error, "", EXIT_FAILURE),
        }
    } else {
        let window = terminal::columns_of(&io::stdout());
        let lines = picture::render(&status, None, window);
        paint::text(&lines, arguments.color.is_on())
    };
    // A reader that has closed the pipe has seen enough.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
