//! The control socket: one request a line, one JSON answer a line, for the user of the bridge alone.
//!
//! `{"get":"status"}` is answered with a [`Status`](super::Status), `{"tap":"Quote"}` with `{"tap":"Quote"}` and then a line for
//! each message until the connection is closed, anything else with `{"error": "…"}`. A connection may ask as often as it
//! likes; one that is silent for a minute is closed.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::decode::Form;
use super::tap::Tap;
use super::{CONNECTIONS_MAX, Source, note_failed};
use crate::listen::{ListenError, Listener};

/// Longest request, in bytes, with its line end.
const REQUEST_MAX: u64 = 1024;
/// A connection without a request for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// Longest time for an answer to be taken.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What may be asked.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "neither get nor tap", deny_unknown_fields)]
enum Request {
    Get {
        get: Subject,
    },
    Tap {
        tap: String,
        #[serde(default)]
        form: Form,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Subject {
    Status,
}

/// The directory of a control socket, made for the own user if it was not there, and removed again if it is empty then.
#[derive(Debug)]
pub(super) struct OwnDirectory(Option<PathBuf>);

impl OwnDirectory {
    pub(super) fn make(path: &Path) -> Result<Self, ListenError> {
        if path.is_dir() {
            return Ok(Self(None));
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| ListenError::Directory {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self(Some(path.to_owned())))
    }
}

impl Drop for OwnDirectory {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Whatever else has come to lie there stays, and so does the directory.
            let _ = std::fs::remove_dir(path);
        }
    }
}

/// The bound control socket.
#[derive(Debug)]
pub(super) struct Socket {
    socket: UnixListener,
    // Dropped in this order: the file, then its directory.
    _file: Listener,
    _directory: Option<OwnDirectory>,
}

impl Socket {
    pub(super) fn new(
        file: Listener,
        directory: Option<OwnDirectory>,
    ) -> Result<Self, ListenError> {
        let socket = file.try_clone_socket().and_then(UnixListener::from_std);
        let socket = socket.map_err(|source| ListenError::System {
            action: "watch the control socket",
            path: file.path().to_owned(),
            source,
        })?;
        tracing::debug!(path = %file.path().display(), "control socket");
        Ok(Self {
            socket,
            _file: file,
            _directory: directory,
        })
    }

    /// Answers until it is dropped.
    pub(super) async fn serve(self, source: Source) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let stream = match self.socket.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to the control socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            if !is_own_user(&stream) {
                tracing::warn!("another user has connected to the control socket and is refused");
                continue;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::warn!(
                    max = CONNECTIONS_MAX,
                    "too many connections to the control socket; the last one is closed"
                );
                continue;
            };
            let source = source.clone();
            connections.spawn(async move {
                let answered = answer_all(stream, &source, place).await;
                note_failed("a request on the control socket", answered);
            });
        }
    }
}

fn is_own_user(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == own)
}

/// Keeps the place of the connection for as long as it is served, by a tap's thread also.
async fn answer_all(
    stream: UnixStream,
    source: &Source,
    place: OwnedSemaphorePermit,
) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut read).take(REQUEST_MAX);
        let Ok(length) = timeout(IDLE_MAX, limited.read_until(b'\n', &mut line)).await else {
            return Ok(());
        };
        if length? == 0 {
            return Ok(());
        }
        let is_whole = line.ends_with(b"\n");
        let (mut answer, tap) = if is_whole {
            answer(&line, source).await
        } else {
            let text = format!(
                "request is too long or has no line end: length={}, max={REQUEST_MAX} bytes",
                line.len()
            );
            (error(&text), None)
        };
        answer.push('\n');
        timeout(ANSWER_MAX, write.write_all(answer.as_bytes())).await??;
        if let Some(tap) = tap {
            let whole = read.into_inner().reunite(write);
            let stream = whole.map_err(io::Error::other)?.into_std()?;
            let thread = std::thread::Builder::new().name("mycelium-tap".into());
            thread.spawn(move || {
                note_failed("a tap", tap.run(stream));
                drop(place);
            })?;
            return Ok(());
        }
        if !is_whole {
            return Ok(());
        }
    }
}

async fn answer(line: &[u8], source: &Source) -> (String, Option<Tap>) {
    match serde_json::from_slice::<Request>(line) {
        Ok(Request::Get {
            get: Subject::Status,
        }) => {
            let status = source.status().await;
            let text = serde_json::to_string(&status);
            (
                text.unwrap_or_else(|failed| error(&failed.to_string())),
                None,
            )
        }
        Ok(Request::Tap { tap, form }) => match Tap::open(source, &tap, form) {
            Ok(opened) => (serde_json::json!({ "tap": tap }).to_string(), Some(opened)),
            Err(answer) => (answer.to_string(), None),
        },
        Err(problem) => {
            let text = format!(
                "request is not understood: {problem}; write {{\"get\":\"status\"}} or {{\"tap\":\"MESSAGE\"}}"
            );
            (error(&text), None)
        }
    }
}

fn error(text: &str) -> String {
    serde_json::json!({ "error": text }).to_string()
}
