//! Generating from a build script, for packages that do not commit generated code.

#![allow(
    clippy::print_stdout,
    reason = "that is how a build script talks to cargo"
)]

use std::path::PathBuf;

use thiserror::Error;

use crate::diagnostics::Report;
use crate::generate::{Config, GenerateError, Target, generate};

/// Makes code from a contracts file while cargo builds a package.
///
/// In `build.rs`, with `mycelium-contracts` under `[build-dependencies]`:
///
/// ```no_run
/// mycelium_contracts::Build::new("contracts.yaml").rust().run();
/// ```
///
/// and where the messages shall be, with `mycelium-messages` and `zerocopy` under `[dependencies]`:
///
/// ```ignore
/// mod contracts {
///     include!(concat!(env!("OUT_DIR"), "/contracts.rs"));
/// }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing happens before run()"]
pub struct Build {
    target: Target,
    rust: bool,
    out_dir: Option<PathBuf>,
}

/// What a build script made.
#[derive(Debug, Clone)]
pub struct Built {
    /// All files, written or already up to date.
    pub files: Vec<PathBuf>,
    /// Warnings of the contracts file.
    pub warnings: Vec<Report>,
}

/// Why a build script made nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// There is no folder for the output: call from a build script, or name one.
    #[error(
        "no folder for the output: OUT_DIR is not set; run from a build script, or call out_dir()"
    )]
    NoOutDir,
    /// The contracts file has errors, or an output cannot be written.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

impl Build {
    /// A contracts file; the path is relative to the package, where cargo runs build scripts.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            target: Target::new(file),
            rust: false,
            out_dir: None,
        }
    }

    /// Writes the Rust module, called like the contracts file with the ending `.rs`, for `include!`.
    pub fn rust(mut self) -> Self {
        self.rust = true;
        self
    }

    /// Where the Rust module finds the message traits; without this `mycelium_messages::message`.
    pub fn rust_runtime(mut self, module: impl Into<String>) -> Self {
        self.target.rust_runtime = module.into();
        self
    }

    /// Brings serde's traits behind this feature of the package, which has to turn on the feature `serde` of
    /// `mycelium-messages`.
    pub fn rust_serde(mut self, feature: impl Into<String>) -> Self {
        self.target.rust_serde = Some(feature.into());
        self
    }

    /// Writes a Python module; a relative path is below the folder of the output.
    pub fn python(mut self, path: impl Into<PathBuf>) -> Self {
        self.target.python = Some(path.into());
        self
    }

    /// Where the Python module finds its base classes; without this `mycelium._message`.
    pub fn python_runtime(mut self, module: impl Into<String>) -> Self {
        self.target.python_runtime = module.into();
        self
    }

    /// Writes a Markdown page; a relative path is below the folder of the output.
    pub fn docs(mut self, path: impl Into<PathBuf>) -> Self {
        self.target.docs = Some(path.into());
        self
    }

    /// The folder of the output; without this `OUT_DIR`, which cargo sets for build scripts.
    pub fn out_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.out_dir = Some(folder.into());
        self
    }

    /// Makes everything, tells cargo what to watch, and passes all warnings on.
    ///
    /// If something is wrong, cargo shows each finding with its place and its hint, and the build
    /// script ends with exit code 1.
    pub fn run(self) {
        println!("cargo::rerun-if-changed={}", self.target.file.display());
        match self.try_run() {
            Ok(built) => {
                for line in built.warnings.iter().flat_map(lines) {
                    println!("cargo::warning={line}");
                }
            }
            Err(failed) => {
                for line in failed.to_string().lines() {
                    println!("cargo::error={line}");
                }
                let mut source = std::error::Error::source(&failed);
                while let Some(cause) = source {
                    println!("cargo::error=  caused by: {cause}");
                    source = cause.source();
                }
                std::process::exit(1);
            }
        }
    }

    /// Makes everything and prints nothing.
    ///
    /// # Errors
    ///
    /// If there is no folder for the output, if the contracts file has errors, or if an output
    /// cannot be written.
    pub fn try_run(self) -> Result<Built, BuildError> {
        let out_dir = self
            .out_dir
            .or_else(|| std::env::var_os("OUT_DIR").map(PathBuf::from))
            .ok_or(BuildError::NoOutDir)?;
        let mut target = self.target;
        if self.rust {
            let name = target.file.with_extension("rs");
            target.rust = name.file_name().map(|name| out_dir.join(name));
        }
        target.python = target.python.map(|path| out_dir.join(path));
        target.docs = target.docs.map(|path| out_dir.join(path));
        let mut config = Config::single(target);
        config.command = Some("cargo build".to_owned());
        config.for_include = true;
        let summary = generate(&config, false)?;
        Ok(Built {
            files: summary.outputs.into_iter().map(|(path, _)| path).collect(),
            warnings: summary.warnings,
        })
    }
}

fn lines(report: &Report) -> Vec<String> {
    report.to_string().lines().map(str::to_owned).collect()
}

/// A Rust file as `include!` takes it: what describes the whole file becomes a plain comment.
pub(crate) fn for_include(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix("//!") {
        Some(rest) => format!("//{rest}\n"),
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}
