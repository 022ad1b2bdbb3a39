//! The configuration of a generation, and writing or comparing what it makes.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::diagnostics::Report;
use crate::emit;
use crate::model::Contracts;

/// What to generate from which file: the content of `generate.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// One entry per contracts file.
    pub contracts: Vec<Target>,
    /// Folder that all paths are relative to.
    #[serde(skip)]
    base: PathBuf,
}

/// One contracts file and where its outputs go; paths are relative to the configuration's folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The contracts file.
    pub file: PathBuf,
    /// Rust module.
    pub rust: Option<PathBuf>,
    /// Path of the Rust module with the message traits.
    #[serde(default = "rust_runtime")]
    pub rust_runtime: String,
    /// Python module.
    pub python: Option<PathBuf>,
    /// Python module with the base classes.
    #[serde(default = "python_runtime")]
    pub python_runtime: String,
    /// Markdown page.
    pub docs: Option<PathBuf>,
    /// Test vectors (JSON).
    pub vectors: Option<PathBuf>,
    /// Rust functions that turn vectors into messages and back, for a test that reads them.
    pub rust_vectors: Option<RustVectors>,
}

/// Where a test finds the functions for its vectors.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RustVectors {
    /// The file.
    pub path: PathBuf,
    /// Path of the Rust module with the messages.
    pub module: String,
}

fn rust_runtime() -> String {
    "mycelium_messages::message".to_owned()
}

fn python_runtime() -> String {
    "mycelium._message".to_owned()
}

/// Why nothing could be generated.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// The configuration cannot be read: check the path.
    #[error("configuration cannot be read: path={}; check the path", path.display())]
    ReadConfig {
        /// The configuration.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
    /// The configuration is not what it should be.
    #[error("configuration is not valid: path={}; {source}", path.display())]
    Config {
        /// The configuration.
        path: PathBuf,
        /// Reason, with its place.
        source: Box<toml::de::Error>,
    },
    /// At least one contracts file has errors.
    #[error("{}", reports.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Contracts {
        /// One report per file with errors.
        reports: Vec<Report>,
    },
    /// An output cannot be written: check the folder.
    #[error("output cannot be written: path={}; check the folder and its permissions", path.display())]
    Write {
        /// The output.
        path: PathBuf,
        /// Reason.
        source: std::io::Error,
    },
}

/// What became of one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The file already had the right content.
    Fresh,
    /// The file was written.
    Written,
    /// The file has another content, or is missing, and was left so.
    Stale,
}

impl Config {
    /// Reads a configuration; its folder becomes the base of its paths.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is not valid.
    pub fn load(path: &Path) -> Result<Self, GenerateError> {
        let text = std::fs::read_to_string(path).map_err(|source| GenerateError::ReadConfig {
            path: path.to_owned(),
            source,
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|source| GenerateError::Config {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        config.base = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(config)
    }
}

/// What a configuration generates.
#[derive(Debug, Clone)]
pub struct Rendered {
    /// Path and content of every output, in the order of the configuration.
    pub outputs: Vec<(PathBuf, String)>,
    /// Reports of files that have warnings.
    pub warnings: Vec<Report>,
}

/// What a generation did.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Path and fate of every output, in the order of the configuration.
    pub outputs: Vec<(PathBuf, Outcome)>,
    /// Reports of files that have warnings.
    pub warnings: Vec<Report>,
}

/// Makes all outputs of a configuration without writing them.
///
/// # Errors
///
/// If a contracts file has errors; all files are looked at first.
pub fn render(config: &Config) -> Result<Rendered, GenerateError> {
    let mut rendered = Rendered {
        outputs: Vec::new(),
        warnings: Vec::new(),
    };
    let mut reports = Vec::new();
    for target in &config.contracts {
        match crate::load(config.base.join(&target.file)) {
            Ok(contracts) => {
                rendered
                    .outputs
                    .extend(target.render(&config.base, &contracts));
                if !contracts.report().diagnostics.is_empty() {
                    rendered.warnings.push(contracts.report().clone());
                }
            }
            Err(report) => reports.push(report),
        }
    }
    if reports.is_empty() {
        Ok(rendered)
    } else {
        Err(GenerateError::Contracts { reports })
    }
}

impl Target {
    fn render(&self, base: &Path, contracts: &Contracts) -> Vec<(PathBuf, String)> {
        let mut outputs = Vec::new();
        let mut add = |path: &Option<PathBuf>, text: &dyn Fn() -> String| {
            if let Some(path) = path {
                outputs.push((base.join(path), text()));
            }
        };
        add(&self.rust, &|| {
            emit::rust::file(contracts, &self.rust_runtime)
        });
        add(&self.python, &|| {
            emit::python::file(contracts, &self.python_runtime)
        });
        add(&self.docs, &|| emit::docs::file(contracts));
        add(&self.vectors, &|| emit::vectors::file(contracts));
        if let Some(test) = &self.rust_vectors {
            let path = Some(test.path.clone());
            add(&path, &|| {
                emit::rust::vectors::file(contracts, &test.module)
            });
        }
        outputs
    }
}

/// Writes every output that differs, or with `check` only tells which would be written.
///
/// # Errors
///
/// If a contracts file has errors, in which case nothing is written, or if an output cannot be written.
pub fn generate(config: &Config, check: bool) -> Result<Summary, GenerateError> {
    let Rendered { outputs, warnings } = render(config)?;
    let mut summary = Summary {
        outputs: Vec::new(),
        warnings,
    };
    for (path, text) in outputs {
        let outcome = if std::fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
            Outcome::Fresh
        } else if check {
            Outcome::Stale
        } else {
            let written = write(&path, &text);
            written.map_err(|source| GenerateError::Write {
                path: path.clone(),
                source,
            })?;
            Outcome::Written
        };
        summary.outputs.push((path, outcome));
    }
    Ok(summary)
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)
}
