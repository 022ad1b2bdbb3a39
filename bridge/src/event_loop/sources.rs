//! Where events come from: the clock, the listening socket and signals. Each waits for ever where it is not configured.

use std::future::{pending, poll_fn};
use std::io;
use std::task::Poll;
use std::time::Instant;

use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

use super::Event;
use crate::listen::Listening;

pub(super) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}

/// The next connection to any endpoint. `first` is the endpoint that is looked at first, and moves on with each
/// connection, so that a flood at one endpoint does not keep the others waiting.
pub(super) async fn accept(
    endpoints: &[Listening],
    first: &mut usize,
    not_before: Option<Instant>,
) -> Event {
    if not_before.is_some() {
        sleep_until(not_before).await;
    }
    let accepted = poll_fn(|context| {
        for offset in 0..endpoints.len() {
            let index = (*first + offset) % endpoints.len();
            if let Poll::Ready(accepted) = endpoints[index].poll_accept(context) {
                *first = index + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    });
    match accepted.await {
        Ok(client) => Event::ClientConnected { client },
        Err(error) => Event::AcceptFailed { error },
    }
}

/// The signals that the program reacts to.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: SignalStream,
    terminate: SignalStream,
    hang_up: SignalStream,
}

impl Signals {
    pub(super) fn install() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }
}

pub(super) async fn next_signal(signals: &mut Option<Signals>) -> Event {
    let Some(signals) = signals else {
        return pending().await;
    };
    tokio::select! {
        Some(()) = signals.interrupt.recv() => Event::ShutdownRequested { reason: "SIGINT".to_owned() },
        Some(()) = signals.terminate.recv() => Event::ShutdownRequested { reason: "SIGTERM".to_owned() },
        Some(()) = signals.hang_up.recv() => Event::ReloadRequested,
        else => pending().await,
    }
}
