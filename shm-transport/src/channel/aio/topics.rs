//! What an asynchronous channel asks of the bridge about topics.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use mycelium_messages::Message;
use mycelium_messages::message::Delivery;

use super::{AsyncChannel, io_error};
use crate::channel::core::Core;
use crate::channel::topics::Asked;
use crate::channel::{Data, Rejected};
use crate::error::ChannelError;
use crate::socket::FillOutcome;

impl AsyncChannel {
    /// Asks for every frame of a topic and waits for the bridge's word. Frames that arrive meanwhile are kept.
    ///
    /// # Errors
    ///
    /// As [`Channel::subscribe`](crate::channel::Channel::subscribe); there is no time limit.
    pub async fn subscribe<M: Message>(&mut self) -> Result<(), ChannelError> {
        let asked = Asked::of::<M>();
        self.request(asked, &asked.subscribe(None)).await.map(drop)
    }

    /// As [`AsyncChannel::subscribe`], and chooses what happens to a frame for which this side has no room; returns the
    /// policy in effect. See [`Channel::subscribe_with`](crate::channel::Channel::subscribe_with).
    ///
    /// # Errors
    ///
    /// As [`Channel::subscribe_with`](crate::channel::Channel::subscribe_with); there is no time limit.
    pub async fn subscribe_with<M: Message>(
        &mut self,
        delivery: Delivery,
    ) -> Result<Delivery, ChannelError> {
        let asked = Asked::of::<M>();
        let request = asked.subscribe(Some(delivery));
        let in_effect = self.request(asked, &request).await?;
        Ok(in_effect.unwrap_or(delivery))
    }

    /// Wants no further frames of a topic. Frames that were routed before still arrive.
    ///
    /// # Errors
    ///
    /// As [`AsyncChannel::subscribe`].
    pub async fn unsubscribe<M: Message>(&mut self) -> Result<(), ChannelError> {
        let asked = Asked::of::<M>();
        self.request(asked, &asked.unsubscribe()).await.map(drop)
    }

    /// Announces that this side will publish a topic, so that a mismatch shows now and not as a dropped frame.
    ///
    /// # Errors
    ///
    /// As [`AsyncChannel::subscribe`].
    pub async fn advertise<M: Message>(&mut self) -> Result<(), ChannelError> {
        let asked = Asked::of::<M>();
        self.request(asked, &asked.advertise()).await.map(drop)
    }

    /// As [`Channel::take_rejected`](crate::channel::Channel::take_rejected).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn take_rejected(&mut self) -> Result<Vec<Rejected>, ChannelError> {
        self.channel.take_rejected()
    }

    async fn request<R: Message>(
        &mut self,
        asked: Asked,
        request: &R,
    ) -> Result<Option<Delivery>, ChannelError> {
        self.channel.core.ask(asked.topic_id, request);
        poll_fn(|cx| self.poll_flush(cx)).await?;
        poll_fn(|cx| self.poll_outcome(cx, R::TOPIC_ID, asked)).await
    }

    fn poll_outcome(
        &mut self,
        cx: &mut Context<'_>,
        request: u16,
        asked: Asked,
    ) -> Poll<Result<Option<Delivery>, ChannelError>> {
        loop {
            read_replies(&mut self.channel.core, &self.channel.data)?;
            if let Some(outcome) = self.channel.take_outcome(request, asked) {
                return Poll::Ready(outcome);
            }
            if let Some(end) = &self.channel.core.end {
                return Poll::Ready(Err(end.to_error()));
            }
            ready!(self.socket.poll_read_ready(cx))
                .map_err(io_error)?
                .clear_ready();
        }
    }
}

/// Reads everything that the socket has, and picks the control frames out.
fn read_replies(core: &mut Core, data: &Data) -> Result<(), ChannelError> {
    if matches!(data, Data::Shm(_)) {
        return core.read_control();
    }
    while core.end.is_none() {
        core.take_buffered_replies()?;
        match core.fill()? {
            FillOutcome::Data(_) => {}
            FillOutcome::WouldBlock => break,
            FillOutcome::HangUp => core.hang_up(),
        }
    }
    Ok(())
}
