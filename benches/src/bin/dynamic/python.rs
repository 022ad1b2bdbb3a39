//! The other process: Python at one end of a link whose other end sends everything back.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use mycelium_benches::carriers::bridge::{Accepted, accept};
use mycelium_benches::runner::root;
use shm_transport::channel::{LinkEnds, WaitFor, Waited};
use shm_transport::ring::Frame;
use shm_transport::socket::FrameStream;
use shm_transport::wakeup::{SpinBudget, WaitStrategy};

use crate::Rounds;
use crate::encodings::ENCODINGS;

pub(crate) fn measure(python: &Path, rounds: usize, messages: usize) -> Result<Rounds, String> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
    let echo = std::thread::spawn(move || match accept(ours, 4096) {
        Ok(Accepted::Rings(ends, stream)) => send_back(*ends, &stream),
        Ok(Accepted::Stream(_)) => Err("Python came over the socket".to_owned()),
        Err(error) => Err(error.to_string()),
    });
    // The file of the interpreter may be a link that says where its packages are: it is not to be resolved.
    let python = root().join(python);
    let output = Command::new(&python)
        .arg(root().join("benches/python/dynamic.py"))
        .args([rounds.to_string(), messages.to_string()])
        .env("PYTHONPATH", root().join("tests/contracts"))
        .env("MYCELIUM_FD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("{}: {error}; make .venv/.dev", python.display()))?;
    let echoed = echo.join().map_err(|_| "the echo panicked".to_owned())?;
    if !output.status.success() {
        let why = echoed.err().unwrap_or_default();
        return Err(format!("Python ended with {}; {why}", output.status));
    }
    let mut measured = Rounds::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let round: BTreeMap<String, f64> =
            serde_json::from_str(line).map_err(|error| format!("Python said {line}: {error}"))?;
        for (name, _) in ENCODINGS {
            let figure = round
                .get(*name)
                .ok_or_else(|| format!("no {name}: {line}"))?;
            measured.entry(name).or_default().push(*figure);
        }
    }
    Ok(measured)
}

/// Sends back every frame as it is, until the peer hangs up.
fn send_back(mut ends: LinkEnds, control: &FrameStream) -> Result<(), String> {
    let mut spin = SpinBudget::new(WaitStrategy::Hybrid { spin_us: 1000 });
    let mut payload = Vec::new();
    loop {
        let waited = ends.wait(&mut spin, WaitFor::Frame, None, Some(control.as_fd()));
        if waited.map_err(|error| error.to_string())? != Waited::Ready {
            return Ok(());
        }
        while let Some(frame) = ends.peek().map_err(|error| error.to_string())? {
            payload.clear();
            frame.append_to(&mut payload);
            let (topic_id, encoding) = (frame.topic_id(), frame.header().encoding());
            let frame = Frame::new(topic_id, &payload).with_encoding(encoding);
            ends.try_publish(&frame)
                .map_err(|error| error.to_string())?;
            ends.advance();
        }
    }
}
