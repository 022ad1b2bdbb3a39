//! Where a running bridge can be looked at: the control socket and the `[metrics]` table.

use std::ops::Range;
use std::path::{Path, PathBuf};

use shm_transport::socket::Address;
use toml::de::DeValue;

use super::ListenConfig;
use super::check::join;
use super::endpoint::is_loopback;
use super::problem::Problems;
use super::section::{At, Section};
use crate::listen;

/// Name of the control socket in the state directory, and what is put behind the path of the listening socket.
const CONTROL: &str = "control";

/// The control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlConfig {
    /// Where it is.
    pub path: PathBuf,
    /// Whether the configuration names it. One that nobody chose and that cannot be bound is done without.
    pub is_named: bool,
    /// The directory that is made for it where it is in the state directory.
    pub made_in: Option<PathBuf>,
}

/// The `[metrics]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Host to listen on.
    pub host: String,
    /// Port; 0 lets the system choose.
    pub port: u16,
}

/// The `[metrics]` table as written.
#[derive(Debug)]
pub(super) struct Written {
    span: Range<usize>,
    listen: Option<At<String>>,
    allow_remote: bool,
}

pub(super) fn read(top: &mut Section<'_, '_>, problems: &mut Problems<'_>) -> Option<Written> {
    let (span, value) = top.take("metrics")?;
    let DeValue::Table(table) = value else {
        problems.add(
            &span,
            "metrics must be a table",
            "write [metrics] on a line of its own, with listen = \"127.0.0.1:9464\"",
        );
        return None;
    };
    let mut section = Section::new("[metrics]", table, span.clone());
    let written = Written {
        span,
        listen: section.string("listen", problems),
        allow_remote: section.boolean("allow_remote", problems).unwrap_or(false),
    };
    section.finish(problems);
    Some(written)
}

pub(super) fn metrics(
    written: Option<Written>,
    problems: &mut Problems<'_>,
) -> Option<MetricsConfig> {
    let written = written?;
    let Some(at) = written.listen else {
        problems.add(
            &written.span,
            "[metrics]: missing key 'listen'",
            "add listen = \"127.0.0.1:9464\"",
        );
        return None;
    };
    let address = Address::parse_listening(&format!("tcp:{}", at.value));
    let Ok(Address::Tcp { host, port }) = address else {
        problems.add(
            &at.span,
            format!(
                "[metrics]: listen is no host and port: value='{}'",
                at.value
            ),
            "write listen = \"127.0.0.1:9464\"; an IPv6 address takes brackets",
        );
        return None;
    };
    if !is_loopback(&host) && !written.allow_remote {
        problems.add(
            &at.span,
            format!(
                "[metrics]: other hosts could read names and counts of everything: host={host}"
            ),
            "listen on 127.0.0.1, or add allow_remote = true where the network is trusted",
        );
    }
    Some(MetricsConfig { host, port })
}

/// The control socket: as written, else beside the listening socket, else in the state directory.
pub(super) fn control(
    written: Option<&At<String>>,
    listen: Option<&ListenConfig>,
    state_dir: &Path,
    directory: &Path,
    problems: &mut Problems<'_>,
) -> ControlConfig {
    if let Some(at) = written {
        let path = join(directory, &at.value);
        if let Err(error) = listen::check_path(&path) {
            problems.add(
                &at.span,
                format!("[bridge]: control: {error}"),
                "choose a shorter path",
            );
        }
        if let Some(ListenConfig {
            address: Address::Unix(other),
            ..
        }) = listen
            && *other == path
        {
            problems.add(
                &at.span,
                format!(
                    "[bridge]: control and listen are the same path: path={}",
                    path.display()
                ),
                "choose another path for control",
            );
        }
        return ControlConfig {
            path,
            is_named: true,
            made_in: None,
        };
    }
    let beside = match listen.map(|listen| &listen.address) {
        Some(Address::Unix(path)) => {
            let mut name = path.as_os_str().to_owned();
            name.push(".");
            name.push(CONTROL);
            Some(PathBuf::from(name))
        }
        _ => None,
    };
    ControlConfig {
        made_in: beside.is_none().then(|| state_dir.to_owned()),
        path: beside.unwrap_or_else(|| state_dir.join(CONTROL)),
        is_named: false,
    }
}
