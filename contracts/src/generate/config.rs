//! What to generate from which file.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::GenerateError;
use super::paths::from_folder;

/// Deepest nesting of `include`.
const INCLUDES_MAX: usize = 8;

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
    /// Other configurations that are generated along, for example those of a repository's parts.
    #[serde(default)]
    include: Vec<PathBuf>,
    /// What `include` names, read.
    #[serde(skip)]
    pub(super) included: Vec<Self>,
    /// Whether Rust files are for `include!`, which takes no comments on the whole file.
    #[serde(skip)]
    pub(crate) for_include: bool,
    /// Folder that all paths are relative to.
    #[serde(skip)]
    pub(super) base: PathBuf,
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
    /// Feature of the package with the Rust module that brings serde's traits; it has to turn on the feature
    /// `serde` of the runtime. Without it there are none.
    pub rust_serde: Option<String>,
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

pub(super) fn rust_runtime() -> String {
    "mycelium_messages::message".to_owned()
}

pub(super) fn python_runtime() -> String {
    "mycelium._message".to_owned()
}

impl Config {
    /// Reads a configuration and what it includes; the folder of each becomes the base of its paths.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or is not valid, or if includes nest deeper than eight levels.
    pub fn load(path: &Path) -> Result<Self, GenerateError> {
        Self::load_nested(path, 0)
    }

    fn load_nested(path: &Path, depth: usize) -> Result<Self, GenerateError> {
        if depth > INCLUDES_MAX {
            return Err(GenerateError::Includes {
                path: path.to_owned(),
            });
        }
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
        for path in &config.include {
            let path = config.base.join(path);
            config.included.push(Self::load_nested(&path, depth + 1)?);
        }
        Ok(config)
    }

    /// A configuration for one contracts file; its paths are relative to the current folder.
    #[must_use]
    pub fn single(target: Target) -> Self {
        Self {
            command: None,
            contracts: vec![target],
            include: Vec::new(),
            included: Vec::new(),
            for_include: false,
            base: PathBuf::new(),
            name: None,
        }
    }

    /// This configuration and all that it includes.
    pub(super) fn all(&self) -> Vec<&Self> {
        let included = self.included.iter().flat_map(Self::all);
        std::iter::once(self).chain(included).collect()
    }

    /// What stands in the head of a file: it must not depend on where the generator runs.
    pub(super) fn command_for(
        &self,
        target: &Target,
        flag: &str,
        path: &Path,
        more: &str,
    ) -> String {
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
            rust_serde: None,
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
