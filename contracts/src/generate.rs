//! The configuration of a generation, and writing or comparing what it makes.

mod paths;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::diagnostics::Report;
use crate::emit;
use crate::model::Contracts;
use paths::{absolute, from_folder};

/// What to generate from which file: the content of `generate.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The command that people shall run to make the files; it stands in their heads.
    ///
    /// Without it: `mycelium-contracts generate`, with what else it takes to make the file.
    pub command: Option<String>,
    /// One entry per contracts file.
    pub contracts: Vec<Target>,
    /// Folder that all paths are relative to.
    #[serde(skip)]
    base: PathBuf,
    /// File name of the configuration; `None` if it came from elsewhere.
    #[serde(skip)]
    name: Option<String>,
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
    /// Two outputs have the same path, or one would overwrite a contracts file.
    #[error("outputs collide: path={}, wanted by {first} and by {second}; give each a path of its own", path.display())]
    Collision {
        /// The path.
        path: PathBuf,
        /// What it is for first.
        first: String,
        /// What else it is for.
        second: String,
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
        config.name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        Ok(config)
    }

    /// A configuration for one contracts file; its paths are relative to the current folder.
    #[must_use]
    pub fn single(target: Target) -> Self {
        Self {
            command: None,
            contracts: vec![target],
            base: PathBuf::new(),
            name: None,
        }
    }

    /// What stands in the head of a file: it must not depend on where the generator runs.
    fn command_for(&self, target: &Target, flag: &str, path: &Path, more: &str) -> String {
        if let Some(command) = &self.command {
            return command.clone();
        }
        match &self.name {
            Some(name) if name == "generate.toml" => "mycelium-contracts generate".to_owned(),
            Some(name) => format!("mycelium-contracts generate --config {name}"),
            None => {
                let file = self.base.join(&target.file);
                let folder = file.parent().unwrap_or(Path::new(""));
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                let path = from_folder(folder, &self.base.join(path));
                format!("mycelium-contracts generate {name} --{flag} {path}{more}")
            }
        }
    }
}

impl Target {
    /// A contracts file without outputs.
    #[must_use]
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            rust: None,
            rust_runtime: rust_runtime(),
            python: None,
            python_runtime: python_runtime(),
            docs: None,
            vectors: None,
            rust_vectors: None,
        }
    }

    /// All outputs by the name of their key.
    pub fn outputs(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let vectors = self.rust_vectors.as_ref().map(|it| &it.path);
        [
            ("rust", self.rust.as_ref()),
            ("python", self.python.as_ref()),
            ("docs", self.docs.as_ref()),
            ("vectors", self.vectors.as_ref()),
            ("rust_vectors", vectors),
        ]
        .into_iter()
        .filter_map(|(key, path)| Some((key, path?.as_path())))
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
/// If outputs collide, or if a contracts file has errors; all files are looked at first.
pub fn render(config: &Config) -> Result<Rendered, GenerateError> {
    let mut rendered = Rendered {
        outputs: Vec::new(),
        warnings: Vec::new(),
    };
    check_collisions(config)?;
    let mut reports = Vec::new();
    for target in &config.contracts {
        match crate::load(config.base.join(&target.file)) {
            Ok(contracts) => {
                rendered.outputs.extend(target.render(config, &contracts));
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

fn check_collisions(config: &Config) -> Result<(), GenerateError> {
    let mut seen: HashMap<PathBuf, String> = HashMap::new();
    for target in &config.contracts {
        let file = absolute(&config.base.join(&target.file));
        seen.insert(file, "the contracts file itself".to_owned());
    }
    for target in &config.contracts {
        for (key, path) in target.outputs() {
            let path = config.base.join(path);
            let second = format!("{key} of {}", target.file.display());
            if let Some(first) = seen.insert(absolute(&path), second.clone()) {
                return Err(GenerateError::Collision {
                    path,
                    first,
                    second,
                });
            }
        }
    }
    Ok(())
}

impl Target {
    fn render(&self, config: &Config, contracts: &Contracts) -> Vec<(PathBuf, String)> {
        let render = |(key, path): (&'static str, &Path)| {
            let more = match key {
                "rust" if self.rust_runtime != rust_runtime() => {
                    format!(" --rust-runtime {}", self.rust_runtime)
                }
                "python" if self.python_runtime != python_runtime() => {
                    format!(" --python-runtime {}", self.python_runtime)
                }
                _ => String::new(),
            };
            let command = &config.command_for(self, key, path, &more);
            let text = match (key, &self.rust_vectors) {
                ("rust", _) => emit::rust::file(contracts, command, &self.rust_runtime),
                ("python", _) => emit::python::file(contracts, command, &self.python_runtime),
                ("docs", _) => emit::docs::file(contracts, command),
                ("rust_vectors", Some(test)) => {
                    emit::rust::vectors::file(contracts, command, &test.module)
                }
                _ => emit::vectors::file(contracts, command),
            };
            (config.base.join(path), text)
        };
        self.outputs().map(render).collect()
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

/// Through a file of another name, so that nobody ever sees half of it.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let done = std::fs::write(&unfinished, text).and_then(|()| std::fs::rename(&unfinished, path));
    if done.is_err() {
        // Best effort: the reason that is reported is the first one.
        let _ = std::fs::remove_file(&unfinished);
    }
    done
}
