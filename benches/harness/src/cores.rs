//! Which two cores a pair runs on.

use std::fmt;
use std::str::FromStr;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The cores of a pair: of the side that measures, and of its peer. Equal on a machine with one core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cores(pub usize, pub usize);

impl Cores {
    /// Two cores that this process may use: the first one, and the next that shares no execution units with it if there
    /// is one.
    #[must_use]
    pub fn choose() -> Self {
        let allowed = allowed();
        let Some(&first) = allowed.first() else {
            return Self(0, 0);
        };
        let siblings = siblings(first);
        let second = allowed[1..]
            .iter()
            .find(|core| !siblings.contains(core))
            .or(allowed.get(1))
            .unwrap_or(&first);
        Self(first, *second)
    }

    /// Whether both sides can run at the same time.
    #[must_use]
    pub fn are_two(self) -> bool {
        self.0 != self.1
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.0, self.1)
    }
}

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("two core numbers are wanted, such as 0,1: value={text}");
        let (first, second) = text.split_once(',').ok_or_else(wrong)?;
        let number = |text: &str| text.trim().parse().map_err(|_| wrong());
        Ok(Self(number(first)?, number(second)?))
    }
}

/// Numbers of the cores that this process may use.
#[must_use]
pub fn allowed() -> Vec<usize> {
    sched_getaffinity(Pid::from_raw(0)).map_or_else(
        |_| vec![],
        |set| {
            (0..CpuSet::count())
                .filter(|&core| set.is_set(core).unwrap_or(false))
                .collect()
        },
    )
}

/// The hardware threads of the same physical core, this one included; empty where the kernel does not tell.
fn siblings(core: usize) -> Vec<usize> {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    std::fs::read_to_string(path).map_or_else(|_| vec![], |list| parse_list(&list))
}

/// Reads a list as the kernel writes it: `0,4` or `0-1`.
fn parse_list(list: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    let parts = list.trim().split(',').filter_map(range);
    parts.flatten().collect()
}

/// Keeps the calling thread on a core; says whether that worked.
pub fn pin(core: usize) -> bool {
    let mut set = CpuSet::new();
    set.set(core).is_ok() && sched_setaffinity(Pid::from_raw(0), &set).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_cores_are_allowed_and_differ_where_there_are_two() {
        let (allowed, cores) = (allowed(), Cores::choose());
        assert!(allowed.contains(&cores.0) && allowed.contains(&cores.1));
        assert_eq!(cores.are_two(), allowed.len() > 1);
    }

    #[test]
    fn core_lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_list("0,4\n"), [0, 4]);
        assert_eq!(parse_list("2-4,9"), [2, 3, 4, 9]);
        assert_eq!("3,7".parse(), Ok(Cores(3, 7)));
        assert!(
            "3".parse::<Cores>()
                .is_err_and(|error| error.contains("value=3"))
        );
    }
}
