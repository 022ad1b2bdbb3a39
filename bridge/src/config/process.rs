//! The keys of a worker that concern its process: environment, processors, priority and limits.

use std::collections::BTreeMap;
use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::resource::Resource;
use nix::unistd::Pid;
use toml::de::DeValue;

use super::problem::Problems;
use super::read::size;
use super::section::{At, Section};

/// What a worker's process gets before its program begins. Each key that is absent is inherited from the bridge.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessConfig {
    /// Whether the bridge's own environment is kept from the worker.
    pub clear_env: bool,
    /// The processors that it may run on; empty for those of the bridge.
    pub cpus: Vec<usize>,
    /// Its priority, from -20 (first) to 19 (last).
    pub nice: Option<i32>,
    /// Its limits, each for itself.
    pub limits: Vec<(Limit, u64)>,
}

/// A limit that the kernel holds a process to; what goes beyond it fails or ends the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of address space.
    Memory,
    /// Open file descriptors.
    OpenFiles,
    /// Bytes of a core dump; 0 for none.
    Core,
    /// Bytes of the longest file it may write.
    FileSize,
    /// Seconds of processor time.
    CpuSeconds,
}

impl Limit {
    /// Every limit, in the order in which they are set.
    pub const ALL: [Self; 5] = [
        Self::OpenFiles,
        Self::Core,
        Self::FileSize,
        Self::CpuSeconds,
        // Last, because the steps before it and the start of the program need memory, too.
        Self::Memory,
    ];

    /// How the configuration names it.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::OpenFiles => "open_files",
            Self::Core => "core",
            Self::FileSize => "file_size",
            Self::CpuSeconds => "cpu_s",
        }
    }

    /// How the kernel names it.
    pub(crate) fn resource(self) -> Resource {
        match self {
            Self::Memory => Resource::RLIMIT_AS,
            Self::OpenFiles => Resource::RLIMIT_NOFILE,
            Self::Core => Resource::RLIMIT_CORE,
            Self::FileSize => Resource::RLIMIT_FSIZE,
            Self::CpuSeconds => Resource::RLIMIT_CPU,
        }
    }

    fn is_size(self) -> bool {
        matches!(self, Self::Memory | Self::Core | Self::FileSize)
    }
}

/// The keys as written.
#[derive(Debug, Default)]
pub(super) struct Written {
    clear_env: Option<bool>,
    env_file: Option<At<String>>,
    cpus: Option<At<Vec<u32>>>,
    nice: Option<i32>,
    limits: Vec<(Limit, u64)>,
}

pub(super) fn read(section: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Written {
    Written {
        clear_env: section.boolean("clear_env", problems),
        env_file: section.path("env_file", problems),
        cpus: section.u32_list("cpus", problems),
        nice: section
            .signed("nice", -20..=19, problems)
            .and_then(|nice| i32::try_from(nice).ok()),
        limits: limits(section, problems),
    }
}

fn limits(section: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Vec<(Limit, u64)> {
    let label = format!("{}: limits", section.label());
    let (span, table) = match section.take("limits") {
        None => return Vec::new(),
        Some((span, DeValue::Table(table))) => (span, table),
        Some((span, _)) => {
            problems.add(
                &span,
                format!("{label} must be a table"),
                "write limits = { memory = \"512MiB\", open_files = 256 }",
            );
            return Vec::new();
        }
    };
    let mut section = Section::new(label, table, span);
    let mut limits = Vec::new();
    for limit in Limit::ALL {
        let value = if limit.is_size() {
            size(&mut section, limit.key(), problems)
        } else {
            let smallest = u64::from(limit == Limit::CpuSeconds);
            section
                .integer(limit.key(), smallest..=1 << 30, problems)
                .map(|at| at.value)
        };
        limits.extend(value.map(|value| (limit, value)));
    }
    section.finish(problems);
    limits
}

/// Checks the keys against this machine; variables of the file that `env` does not set are added to it.
pub(super) fn check(
    label: &str,
    written: Written,
    env: &mut BTreeMap<String, String>,
    directory: &Path,
    problems: &mut Problems<'_>,
) -> ProcessConfig {
    if let Some(file) = written.env_file {
        for (name, value) in env_file(label, &file, directory, problems) {
            env.entry(name).or_insert(value);
        }
    }
    ProcessConfig {
        clear_env: written.clear_env.unwrap_or(false),
        cpus: written
            .cpus
            .map_or_else(Vec::new, |cpus| check_cpus(label, &cpus, problems)),
        nice: written.nice,
        limits: written.limits,
    }
}

fn check_cpus(label: &str, cpus: &At<Vec<u32>>, problems: &mut Problems<'_>) -> Vec<usize> {
    let mut wanted: Vec<usize> = cpus.value.iter().map(|&cpu| cpu as usize).collect();
    wanted.sort_unstable();
    wanted.dedup();
    // A system that does not say which processors there are decides when the worker starts.
    let Ok(usable) = sched_getaffinity(Pid::from_raw(0)) else {
        return wanted;
    };
    let is_usable = |cpu: usize| usable.is_set(cpu).unwrap_or(false);
    if let Some(cpu) = wanted.iter().find(|&&cpu| !is_usable(cpu)) {
        let usable: Vec<_> = (0..CpuSet::count())
            .filter(|&cpu| is_usable(cpu))
            .map(|cpu| cpu.to_string())
            .collect();
        problems.add(
            &cpus.span,
            format!(
                "{label}: cpus names a processor that this process may not use: value={cpu}, usable={}",
                usable.join(",")
            ),
            "name usable ones, or start the bridge with more (taskset, cpuset)",
        );
    }
    if wanted.is_empty() {
        problems.add(
            &cpus.span,
            format!("{label}: cpus is empty"),
            "name at least one processor, or remove the key",
        );
    }
    wanted
}

/// The variables of a file of `NAME=VALUE` lines. What a line holds is in no message: it may be a secret.
fn env_file(
    label: &str,
    file: &At<String>,
    directory: &Path,
    problems: &mut Problems<'_>,
) -> Vec<(String, String)> {
    let path = directory.join(&file.value);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => {
            problems.add(
                &file.span,
                format!(
                    "{label}: cannot read env_file: path={}: {error}",
                    path.display()
                ),
                "it is relative to the directory of the configuration file, and text in UTF-8",
            );
            return Vec::new();
        }
    };
    let mut variables = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_end_matches('\r');
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once('=') {
            Some((name, value)) if super::check::is_legal_variable(name, value) => {
                variables.push((name.to_owned(), value.to_owned()));
            }
            _ => problems.add(
                &file.span,
                format!(
                    "{label}: env_file has a line that is not NAME=VALUE: path={}, line={}",
                    path.display(),
                    number + 1
                ),
                "one variable per line, without quotes and export; lines that begin with # are left out; names that \
                 begin with MYCELIUM_ and belong to the bridge are not allowed",
            ),
        }
    }
    variables
}
