//! A dedicated thread for the control loop, for hosts that embed the bridge.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

use shm_transport::socket::Address;

use super::{ControlHandle, ControlOptions, ControlPlane, Links, StartError};
use crate::config::Config;
use crate::shutdown::Summary;

/// The control loop on a thread of its own, which ends when the bridge has stopped and not before: workers die with it.
///
/// Dropping it stops the bridge and waits for that.
#[derive(Debug)]
pub struct ControlThread {
    handle: ControlHandle,
    addresses: Vec<Address>,
    thread: Option<JoinHandle<Option<Summary>>>,
}

impl ControlThread {
    /// Starts the thread and in it all workers; see [`ControlPlane::new`].
    ///
    /// # Errors
    /// [`StartError`]; nothing has been started then.
    pub fn spawn<L: Links + Send + 'static>(
        config: &Config,
        links: L,
        options: ControlOptions,
    ) -> Result<Self, StartError> {
        let system = |action| move |source| StartError::System { action, source };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(system("set up the control runtime"))?;
        let config = config.clone();
        let (sender, receiver) = mpsc::sync_channel(1);
        let control = move || {
            runtime.block_on(async {
                // In both cases the caller waits for exactly this message.
                match ControlPlane::new(&config, links, options) {
                    Ok(plane) => {
                        let _ = sender.send(Ok((plane.handle(), plane.addresses())));
                        Some(plane.run().await)
                    }
                    Err(error) => {
                        let _ = sender.send(Err(error));
                        None
                    }
                }
            })
        };
        let thread = std::thread::Builder::new()
            .name("mycelium-control".into())
            .spawn(control);
        let thread = thread.map_err(system("start the control thread"))?;
        let (handle, addresses) = receiver.recv().unwrap_or(Err(StartError::Panicked))?;
        Ok(Self {
            handle,
            addresses,
            thread: Some(thread),
        })
    }

    /// A handle for reports and for stopping the bridge.
    pub fn handle(&self) -> ControlHandle {
        self.handle.clone()
    }

    /// Where clients can connect, with the ports that are bound.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Whether the bridge has stopped, so that [`ControlThread::join`] returns at once.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until the bridge has stopped. Does not ask it to stop.
    ///
    /// # Errors
    /// When the control thread panicked; its workers are dead then.
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

fn result(thread: JoinHandle<Option<Summary>>) -> io::Result<Summary> {
    let ended = thread.join().ok().flatten();
    ended.ok_or_else(|| {
        io::Error::other("control thread panicked; its message is on standard error")
    })
}
