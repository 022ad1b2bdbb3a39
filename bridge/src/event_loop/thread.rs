//! A dedicated thread for the control loop, for hosts that embed the bridge.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::{ControlHandle, ControlOptions, ControlPlane, Links};
use crate::config::Config;
use crate::listen::Listener;
use crate::shutdown::Summary;

/// The control loop on a thread of its own, which ends when the bridge has stopped and not before: workers die with it.
///
/// Dropping it stops the bridge and waits for that.
#[derive(Debug)]
pub struct ControlThread {
    handle: ControlHandle,
    thread: Option<JoinHandle<io::Result<Summary>>>,
}

impl ControlThread {
    /// Starts the thread and in it all workers; see [`ControlPlane::new`] for the arguments.
    ///
    /// # Errors
    /// When the thread, its runtime or its signal handlers cannot be set up.
    pub fn spawn<L: Links + Send + 'static>(
        config: Config,
        listener: Option<Listener>,
        links: L,
        options: ControlOptions,
    ) -> io::Result<Self> {
        let (sender, receiver) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("mycelium-control".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(async {
                    let plane = ControlPlane::new(config, listener, links, options)?;
                    // The receiver waits for exactly this, or for the error above.
                    let _ = sender.send(plane.handle());
                    plane.run().await
                })
            })?;
        match receiver.recv() {
            Ok(handle) => Ok(Self {
                handle,
                thread: Some(thread),
            }),
            // The sender was dropped without a word: the thread has ended, and its result says why.
            Err(mpsc::RecvError) => Err(result(thread)
                .err()
                .unwrap_or_else(|| io::Error::other("control thread ended before it began"))),
        }
    }

    /// A handle for reports and for stopping the bridge.
    pub fn handle(&self) -> ControlHandle {
        self.handle.clone()
    }

    /// Waits until the bridge has stopped. Does not ask it to stop.
    ///
    /// # Errors
    /// What made the control loop fail, a panic included.
    pub fn join(mut self) -> io::Result<Summary> {
        match self.thread.take() {
            Some(thread) => result(thread),
            None => Err(io::Error::other("control thread was joined before")),
        }
    }
}

impl Drop for ControlThread {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle
                .shut_down("the host of the bridge is done with it");
            if let Err(error) = result(thread) {
                tracing::error!(%error, "control loop failed");
            }
        }
    }
}

fn result(thread: JoinHandle<io::Result<Summary>>) -> io::Result<Summary> {
    thread.join().unwrap_or_else(|_| {
        Err(io::Error::other(
            "control thread panicked; its message is on standard error",
        ))
    })
}
