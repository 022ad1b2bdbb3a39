//! `mycelium-bridge run`: log, listening socket, control loop.

use std::process::ExitCode;

use mycelium_bridge::bridge::{self, BridgeError};
use mycelium_bridge::event_loop::StartError;
use mycelium_bridge::logging;

use super::{EXIT_CONFIG, EXIT_FAILURE, RunArguments, failure, load};

pub(super) fn run(arguments: &RunArguments) -> ExitCode {
    let config = match load(&arguments.config.path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let filter = arguments.log.as_deref().unwrap_or(&config.bridge.log);
    if let Err(error) = logging::init(filter, arguments.log_format) {
        return failure(
            error,
            "write a level (error | warn | info | debug | trace) or target=level",
            EXIT_CONFIG,
        );
    }
    if arguments.log.is_some() {
        logging::fix_filter();
    }
    for variable in config.overrides.names() {
        tracing::info!(
            variable,
            "the environment goes before a key of the configuration"
        );
    }
    match bridge::run(&config) {
        Ok(summary) => {
            tracing::info!("{summary}");
            ExitCode::from(summary.exit_code())
        }
        Err(BridgeError::Control(StartError::Listen(error))) => {
            failure(&error, error.hint(), EXIT_FAILURE)
        }
        Err(error) => failure(error, "", EXIT_FAILURE),
    }
}
