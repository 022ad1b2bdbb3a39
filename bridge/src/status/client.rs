//! Asks a running bridge over its control socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::Status;

/// Longest time for an answer; the bridge gives its data plane two seconds of it.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Longest answer, in bytes: some thousand links with a dozen topics each.
const ANSWER_LEN_MAX: u64 = 64 << 20;

/// Why a bridge gave no status.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens on the socket.
    #[error("no bridge answers: control={}: {source}", path.display())]
    NoBridge {
        /// The control socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The conversation broke off.
    #[error("bridge gave no answer: control={}: {source}", path.display())]
    Io {
        /// The control socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The contracts of the bridge have no such message.
    #[error("no such message: name={name}, known={}", known.join(","))]
    NoMessage {
        /// The name that was asked for.
        name: String,
        /// The names that there are, those that are most like it first.
        known: Vec<String>,
    },
    /// The answer is an error, or none that this program understands.
    #[error("bridge gave another answer than was asked for: control={}: {text}", path.display())]
    Answer {
        /// The control socket.
        path: PathBuf,
        /// The error, or what is wrong with the answer.
        text: String,
    },
}

impl AskError {
    /// What to do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoBridge { .. } => {
                "start it with mycelium-bridge run, or name the control socket of another one with --control PATH"
            }
            Self::Io { .. } => "is the bridge stopped, or of another user?",
            Self::NoMessage { .. } => "mycelium-bridge check shows the contracts file",
            Self::Answer { .. } => "use the program of the same version as the bridge",
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Answer {
    Error {
        error: String,
        #[serde(default)]
        known: Vec<String>,
    },
    Status(Box<Status>),
}

/// A connection to the control socket of a bridge.
#[derive(Debug)]
pub struct ControlClient {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl ControlClient {
    /// Connects.
    ///
    /// # Errors
    ///
    /// [`AskError::NoBridge`], and [`AskError::Io`] for the socket of another user.
    pub fn connect(path: &Path) -> Result<Self, AskError> {
        let stream = UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(ANSWER_MAX))?;
            stream.set_write_timeout(Some(ANSWER_MAX))?;
            Ok(stream)
        });
        let stream = stream.map_err(|source| {
            let path = path.to_owned();
            match source.kind() {
                // Somebody else's socket, whether a bridge listens there or not.
                io::ErrorKind::PermissionDenied => AskError::Io { path, source },
                _ => AskError::NoBridge { path, source },
            }
        })?;
        Ok(Self {
            path: path.to_owned(),
            stream: BufReader::new(stream),
        })
    }

    /// The control socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks for the status; waits up to five seconds for it.
    ///
    /// # Errors
    ///
    /// [`AskError`]; the connection is of no use then.
    pub fn status(&mut self) -> Result<Status, AskError> {
        let io = |source| AskError::Io {
            path: self.path.clone(),
            source: clear(source),
        };
        let request = self.stream.get_mut().write_all(b"{\"get\":\"status\"}\n");
        request.map_err(io)?;
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(ANSWER_LEN_MAX);
        limited.read_until(b'\n', &mut line).map_err(io)?;
        if !line.ends_with(b"\n") {
            return Err(io(io::ErrorKind::UnexpectedEof.into()));
        }
        let text = match serde_json::from_slice(&line) {
            Ok(Answer::Status(status)) => return Ok(*status),
            Ok(Answer::Error { error, .. }) => error,
            Err(error) => error.to_string(),
        };
        Err(AskError::Answer {
            path: self.path.clone(),
            text,
        })
    }

    /// Gives the messages of a topic to `each`, a line for each, until it returns `false` or the bridge stops. As text, lines
    /// that begin with `-- ` say what was left out. `begun` is called once frames wait for it.
    ///
    /// # Errors
    ///
    /// [`AskError`]; [`AskError::NoMessage`] if the contracts of the bridge have no such message.
    pub fn tap(
        mut self,
        message: &str,
        json: bool,
        begun: impl FnOnce(),
        mut each: impl FnMut(&str) -> bool,
    ) -> Result<(), AskError> {
        let path = self.path;
        let io = |source| AskError::Io {
            path: path.clone(),
            source: clear(source),
        };
        let form = if json { "json" } else { "text" };
        let request = serde_json::json!({ "tap": message, "form": form });
        let stream = self.stream.get_mut();
        stream
            .write_all(format!("{request}\n").as_bytes())
            .map_err(io)?;
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(io)?;
        if let Ok(Answer::Error { error, known }) = serde_json::from_str(&line) {
            return Err(match known.is_empty() {
                true => AskError::Answer { path, text: error },
                false => AskError::NoMessage {
                    name: message.to_owned(),
                    known,
                },
            });
        }
        begun();
        // The next message may be long in coming.
        self.stream.get_ref().set_read_timeout(None).map_err(io)?;
        loop {
            line.clear();
            if self.stream.read_line(&mut line).map_err(io)? == 0 {
                return Ok(());
            }
            if !each(line.trim_end_matches('\n')) {
                return Ok(());
            }
        }
    }
}

/// A time limit that is over reads like a mistake of this program where the system says it.
fn clear(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::WouldBlock {
        return error;
    }
    let seconds = ANSWER_MAX.as_secs();
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("none within {seconds} s; its control plane stands still"),
    )
}
