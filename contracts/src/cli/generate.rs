//! `generate`: writes what is not up to date, or with `--check` only tells.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use mycelium_contracts::{Config, GenerateError, Outcome, Target};

use super::{count, fail, print};

/// Where a configuration is looked for if none is named.
const CONFIGS: [&str; 2] = ["contracts/generate.toml", "generate.toml"];

#[derive(Debug, Args)]
pub(crate) struct Generate {
    /// A contracts file, instead of a configuration; say with --rust, --python, --docs or --vectors what to make of it.
    #[arg(conflicts_with = "config")]
    file: Option<PathBuf>,
    /// Write nothing; exit with 1 and name the files if any is not up to date.
    #[arg(long)]
    check: bool,
    /// What to generate from which file; paths in it are relative to its folder.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The Rust module to write.
    #[arg(long, value_name = "PATH", requires = "file")]
    rust: Option<PathBuf>,
    /// Where Rust code finds the message traits.
    #[arg(
        long,
        value_name = "MODULE",
        requires = "rust",
        default_value = "mycelium_messages::message"
    )]
    rust_runtime: String,
    /// Feature of the Rust package that brings serde's traits.
    #[arg(long, value_name = "FEATURE", requires = "rust")]
    rust_serde: Option<String>,
    /// The Python module to write.
    #[arg(long, value_name = "PATH", requires = "file")]
    python: Option<PathBuf>,
    /// Where Python code finds the base classes.
    #[arg(
        long,
        value_name = "MODULE",
        requires = "python",
        default_value = "mycelium._message"
    )]
    python_runtime: String,
    /// The Markdown page to write.
    #[arg(long, value_name = "PATH", requires = "file")]
    docs: Option<PathBuf>,
    /// The test vectors (JSON) to write.
    #[arg(long, value_name = "PATH", requires = "file")]
    vectors: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Generate) -> ExitCode {
    let config = match &arguments.file {
        Some(file) => {
            let mut target = Target::new(file);
            target.rust.clone_from(&arguments.rust);
            target.rust_runtime.clone_from(&arguments.rust_runtime);
            target.rust_serde.clone_from(&arguments.rust_serde);
            target.python.clone_from(&arguments.python);
            target.python_runtime.clone_from(&arguments.python_runtime);
            target.docs.clone_from(&arguments.docs);
            target.vectors.clone_from(&arguments.vectors);
            if target.outputs().next().is_none() {
                eprintln!("error: nothing to generate: file={}", file.display());
                eprintln!("hint: add at least one of --rust, --python, --docs and --vectors");
                return ExitCode::from(2);
            }
            Config::single(target)
        }
        None => match find(arguments.config.as_deref()) {
            Ok(config) => config,
            Err(code) => return code,
        },
    };
    let summary = match mycelium_contracts::generate(&config, arguments.check) {
        Ok(done) => done,
        Err(failed @ GenerateError::Collision { .. }) => return fail(&failed, 2),
        Err(failed) => return fail(&failed, 1),
    };
    for report in summary.warnings {
        eprintln!("{report}");
    }
    let mut stale = 0;
    for (path, outcome) in &summary.outputs {
        match outcome {
            Outcome::Fresh => {}
            Outcome::Written => print(&format!("wrote {}\n", path.display())),
            Outcome::Stale => {
                eprintln!("error: not up to date: {}", path.display());
                stale += 1;
            }
        }
    }
    if stale > 0 {
        eprintln!("hint: run `{}` and commit the result", command(&config));
        return ExitCode::from(1);
    }
    let files = count(summary.outputs.len(), "generated file");
    let are = if summary.outputs.len() == 1 {
        "is"
    } else {
        "are"
    };
    print(&format!("{files} {are} up to date\n"));
    ExitCode::SUCCESS
}

fn find(named: Option<&Path>) -> Result<Config, ExitCode> {
    let path = match named {
        Some(path) => path,
        None => match CONFIGS.iter().map(Path::new).find(|path| path.exists()) {
            Some(path) => path,
            None => {
                eprintln!(
                    "error: no configuration found: looked for {}",
                    CONFIGS.join(", ")
                );
                eprintln!(
                    "hint: name one with --config, or a contracts file with what to make of it: \
                     mycelium-contracts generate contracts.yaml --rust messages.rs"
                );
                return Err(ExitCode::from(2));
            }
        },
    };
    Config::load(path).map_err(|failed| fail(&failed, 2))
}

/// The command that writes what this run only looked at.
fn command(config: &Config) -> String {
    if let Some(command) = &config.command {
        return command.clone();
    }
    let arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--check");
    let quoted = arguments.map(|argument| {
        if argument.contains([' ', '\'', '"', '$', '\\']) {
            format!("'{}'", argument.replace('\'', "'\\''"))
        } else {
            argument
        }
    });
    format!(
        "mycelium-contracts {}",
        quoted.collect::<Vec<_>>().join(" ")
    )
}
