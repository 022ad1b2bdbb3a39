//! Where events come from: the clock, the listening socket and signals. Each waits for ever where it is not configured.

use std::future::pending;
use std::io;
use std::time::Instant;

use tokio::net::UnixListener;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

use super::Event;
use crate::listen::PeerCredentials;

pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

pub(super) async fn accept(listener: Option<&UnixListener>, not_before: Option<Instant>) -> Event {
    let Some(listener) = listener else {
        return pending().await;
    };
    if not_before.is_some() {
        sleep_until(not_before).await;
    }
    let accepted = async {
        let stream = listener.accept().await?.0.into_std()?;
        stream.set_nonblocking(false)?;
        let credentials = PeerCredentials::of(&stream)?;
        Ok((stream, credentials))
    };
    match accepted.await {
        Ok((stream, credentials)) => Event::ClientConnected {
            stream,
            credentials,
        },
        Err(error) => Event::AcceptFailed { error },
    }
}

/// The signals that stop the program.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: SignalStream,
    terminate: SignalStream,
}

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

pub(super) async fn next_signal(signals: &mut Option<Signals>) -> String {
    let Some(signals) = signals else {
        return pending().await;
    };
    tokio::select! {
        Some(()) = signals.interrupt.recv() => "SIGINT".to_owned(),
        Some(()) = signals.terminate.recv() => "SIGTERM".to_owned(),
        else => pending().await,
    }
}
