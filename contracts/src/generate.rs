//! The configuration of a generation, and writing or comparing what it makes.

mod config;
mod paths;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::diagnostics::Report;
use crate::emit;
use crate::model::Contracts;
pub use config::{Config, RustVectors, Target};
use config::{python_runtime, rust_runtime};
use paths::absolute;

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
    /// Configurations include one another, or nest too deeply.
    #[error("configurations include one another or nest too deeply: path={}; remove an include", path.display())]
    Includes {
        /// The configuration that was too much.
        path: PathBuf,
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
    let all = config.all();
    let targets = all
        .iter()
        .flat_map(|config| config.contracts.iter().map(|target| (*config, target)));
    for (config, target) in targets {
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
    let all = config.all();
    let mut seen: HashMap<PathBuf, String> = HashMap::new();
    for config in &all {
        for target in &config.contracts {
            let file = absolute(&config.base.join(&target.file));
            seen.insert(file, "the contracts file itself".to_owned());
        }
    }
    for config in &all {
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
    }
    Ok(())
}

impl Target {
    fn render(&self, config: &Config, contracts: &Contracts) -> Vec<(PathBuf, String)> {
        let render = |(key, path): (&'static str, &Path)| {
            let more = match key {
                "rust" => {
                    let runtime = if self.rust_runtime == rust_runtime() {
                        String::new()
                    } else {
                        format!(" --rust-runtime {}", self.rust_runtime)
                    };
                    let serde = self.rust_serde.as_ref();
                    let serde = serde.map_or_else(String::new, |it| format!(" --rust-serde {it}"));
                    runtime + &serde
                }
                "python" if self.python_runtime != python_runtime() => {
                    format!(" --python-runtime {}", self.python_runtime)
                }
                _ => String::new(),
            };
            let command = &config.command_for(self, key, path, &more);
            let text = match (key, &self.rust_vectors) {
                ("rust", _) => {
                    let serde = self.rust_serde.as_deref();
                    emit::rust::file(contracts, command, &self.rust_runtime, serde)
                }
                ("python", _) => emit::python::file(contracts, command, &self.python_runtime),
                ("docs", _) => emit::docs::file(contracts, command),
                ("rust_vectors", Some(test)) => {
                    emit::rust::vectors::file(contracts, command, &test.module)
                }
                _ => emit::vectors::file(contracts, command),
            };
            let text = if key == "rust" && config.for_include {
                crate::build::for_include(&text)
            } else {
                text
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
