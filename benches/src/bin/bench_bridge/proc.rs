//! What the kernel knows of a process.

use std::fs;

/// Processor time of all threads of a process, in nanoseconds.
///
/// # Errors
///
/// If the kernel does not tell.
pub(crate) fn cpu_ns(pid: u32) -> Result<u64, String> {
    let folder = format!("/proc/{pid}/task");
    let failed = |error| format!("{folder}: {error}");
    let mut sum = 0;
    for task in fs::read_dir(&folder).map_err(failed)? {
        let path = task.map_err(failed)?.path().join("schedstat");
        // A thread that has just ended has no file any more.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        sum += first_number(&text).ok_or_else(|| format!("{}: {text:?}", path.display()))?;
    }
    if sum == 0 {
        return Err(format!(
            "{folder}/*/schedstat: the kernel does not account time"
        ));
    }
    Ok(sum)
}

/// Memory of a process that is in use, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Its own.
    pub(crate) own: u64,
    /// Of memory files, such as rings.
    pub(crate) shared: u64,
}

/// Memory that a process has in use.
///
/// # Errors
///
/// If the kernel does not tell.
pub(crate) fn memory(pid: u32) -> Result<Memory, String> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        let kibibytes = line.and_then(first_number);
        kibibytes
            .map(|it| it * 1024)
            .ok_or_else(|| format!("{path}: no {key}"))
    };
    Ok(Memory {
        own: bytes("RssAnon:")?,
        shared: bytes("RssShmem:")?,
    })
}

/// Whether a process stands still because of a signal.
pub(crate) fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the command name, which is in parentheses and may hold anything.
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_some_and(|state| state.starts_with('T'))
}

fn first_number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_time_and_memory_and_is_not_stopped() {
        let pid = std::process::id();
        assert!(cpu_ns(pid).expect("accounted") > 0);
        assert!(memory(pid).expect("accounted").own > 0);
        assert!(!is_stopped(pid));
        assert!(cpu_ns(u32::MAX).is_err() && memory(u32::MAX).is_err());
    }
}
