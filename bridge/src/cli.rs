//! The command line: `run`, `check`, `init`, `schema`, `status`, `top`, `tap`, `quarantine` and `demo`.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mycelium_bridge::config::{Config, ConfigError, Overrides};
use mycelium_bridge::logging::{self, LogFormat};
use mycelium_bridge::reload::Plan;
use mycelium_bridge::supervisor::{GUARD_COMMAND, stand_guard};

mod demo;
mod init;
mod paint;
mod picture;
mod quarantine;
mod run;
mod status;
mod table;
mod tap;
#[allow(unsafe_code)]
mod terminal;
mod top;

/// Exit code of a failure while running.
const EXIT_FAILURE: u8 = 1;
/// Exit code of a configuration that cannot be used; clap uses the same for wrong arguments.
const EXIT_CONFIG: u8 = 2;

/// Spawns and supervises Python strategy workers and routes frames by topic between them and Rust actors.
#[derive(Debug, Parser)]
#[command(
    name = "mycelium-bridge",
    version,
    after_help = "Exit codes: 0 clean, 1 failure while running, 2 wrong arguments or configuration."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the bridge until SIGINT or SIGTERM; a second signal hurries.
    Run(RunArguments),
    /// Check a configuration and everything it names, and print all problems at once; starts nothing.
    Check {
        #[command(flatten)]
        config: ConfigArgument,
        /// The configuration that a bridge runs with: say what a reload would change, and what needs a restart.
        #[arg(long, value_name = "FILE")]
        running: Option<PathBuf>,
    },
    /// How a running bridge is: workers, links, topics, endpoints.
    #[command(
        after_help = "Exit codes: 0 answered, 1 no usable answer, 2 wrong arguments or configuration, 3 no bridge runs."
    )]
    Status(status::StatusArguments),
    /// The same on the whole terminal, every second, with rates; q or Ctrl-C ends. Once where standard output is no terminal.
    Top(top::TopArguments),
    /// The messages of a topic as they come, decoded. Nobody waits for the reader: what it does not take is left out.
    Tap(tap::TapArguments),
    /// Write a commented configuration to begin with, and contracts beside it; never touches a file that exists.
    Init {
        /// The file, or the directory that bridge.toml goes into.
        #[arg(value_name = "PATH", default_value = "bridge.toml")]
        path: PathBuf,
    },
    /// Print the JSON schema of the configuration, for editors.
    Schema,
    /// Ends what workers have started when the bridge is killed; the bridge starts it itself.
    #[command(name = GUARD_COMMAND, hide = true)]
    Guard {
        /// What the processes to end carry.
        mark: String,
    },
    /// Look at records that kept killing their worker, and send them again.
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// Replay real quotes to two Python workers over shared memory and over the socket, kill one, and verify everything.
    Demo(demo::DemoArguments),
}

/// Which configuration.
#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// The TOML configuration of the bridge; variables like MYCELIUM_BRIDGE__LOG go before its keys.
    #[arg(
        long = "config",
        value_name = "FILE",
        env = "MYCELIUM_CONFIG",
        default_value = "bridge.toml"
    )]
    path: PathBuf,
}

#[derive(Debug, clap::Args)]
struct RunArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Filter of the log instead of the configured one, for example debug or info,worker=off.
    #[arg(long, value_name = "FILTER", env = "MYCELIUM_LOG")]
    log: Option<String>,
    /// Form of the log lines on standard error.
    #[arg(
        long,
        value_name = "FORMAT",
        env = "MYCELIUM_LOG_FORMAT",
        value_enum,
        default_value_t
    )]
    log_format: LogFormat,
}

pub(crate) fn main() -> ExitCode {
    let code = match Arguments::parse().command {
        Command::Run(arguments) => run::run(&arguments),
        Command::Check { config, running } => check(&config.path, running.as_deref()),
        Command::Status(arguments) => status::run(&arguments),
        Command::Top(arguments) => top::run(&arguments),
        Command::Tap(arguments) => tap::run(&arguments),
        Command::Init { path } => init::init(&path),
        Command::Schema => init::schema(),
        Command::Guard { mark } => guard(&mark),
        Command::Quarantine(command) => quarantine::run(&command),
        Command::Demo(arguments) => demo::run(&arguments),
    };
    logging::flush();
    code
}

fn guard(mark: &str) -> ExitCode {
    let killed = stand_guard(mark);
    if killed > 0 {
        print_error(format_args!(
            "mycelium-bridge guard: the bridge is gone; descendants of its workers were ended: count={killed}"
        ));
    }
    ExitCode::SUCCESS
}

/// Reads a configuration with what the environment says about it. An error has been printed and is an exit code.
fn load(path: &Path) -> Result<Config, ExitCode> {
    let overrides = Overrides::from_environment();
    Config::load_with(path, &overrides).map_err(|error| config_error(&error))
}

fn check(path: &Path, running: Option<&Path>) -> ExitCode {
    let config = match load(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    let contracts = config.bridge.contracts.display();
    let warnings = config.contracts.report();
    if !warnings.diagnostics.is_empty() {
        print_error(warnings);
    }
    let workers = config.workers.len();
    let listen: Vec<_> = config
        .listen
        .iter()
        .map(|endpoint| endpoint.address.to_string())
        .collect();
    let listen = if listen.is_empty() {
        "none".to_owned()
    } else {
        listen.join(" ")
    };
    let uplinks = config.uplinks.iter();
    let uplinks: String = uplinks
        .map(|uplink| format!(", {}={}", uplink.name, uplink.address))
        .collect();
    let mut variables = config.overrides.names().collect::<Vec<_>>().join(" ");
    if !variables.is_empty() {
        variables.insert_str(0, ", environment=");
    }
    // A reader that has closed the pipe has seen enough; the exit code tells the rest.
    let _ = writeln!(
        io::stdout(),
        "ok: {workers} worker{}, contracts={contracts} ({} messages), listen={listen}{uplinks}{variables}",
        if workers == 1 { "" } else { "s" },
        config.contracts.messages().len(),
    );
    match running {
        None => ExitCode::SUCCESS,
        Some(running) => compare(running, &config),
    }
}

/// Says what a bridge that runs with one configuration would do with the other.
fn compare(running: &Path, new: &Config) -> ExitCode {
    let running = match load(running) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match Plan::new(&running, new) {
        Ok(plan) => {
            let _ = writeln!(io::stdout(), "reload: {plan}");
            ExitCode::SUCCESS
        }
        Err(error) => failure(error, "a reload would be refused", EXIT_CONFIG),
    }
}

/// Prints every problem of a configuration.
fn config_error(error: &ConfigError) -> ExitCode {
    for (line, hint) in error.lines() {
        print_error(format_args!("error: {line}"));
        if !hint.is_empty() {
            print_error(format_args!("hint: {hint}"));
        }
    }
    ExitCode::from(EXIT_CONFIG)
}

/// Prints one failure with its remedy.
fn failure(message: impl Display, hint: &str, code: u8) -> ExitCode {
    print_error(format_args!("error: {message}"));
    if !hint.is_empty() {
        print_error(format_args!("hint: {hint}"));
    }
    ExitCode::from(code)
}

/// Standard error may be closed; there is nobody left to tell then.
fn print_error(line: impl Display) {
    logging::flush();
    let _ = writeln!(io::stderr(), "{line}");
}
