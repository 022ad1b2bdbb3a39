//! The rings and doorbells of one link, kept by the bridge for as long as the link exists: across peers, and whatever
//! transport the peer of the moment uses.

use std::collections::BTreeMap;
use std::io;

use mycelium_messages::control::FallbackCode;
use shm_transport::channel::{Fallback, LinkEnds, Transport};
use shm_transport::error::{AttachError, Corrupt, CreateError};
use shm_transport::layout::{RING_COUNT, RING_TO_BRIDGE, RING_TO_PEER};
use shm_transport::ring::{Fencing, RingMemory};
use shm_transport::segment::{Segment, SegmentOptions};
use shm_transport::wakeup::Doorbell;

use crate::config::MemoryConfig;
use crate::worker::stall::Progress;

/// Both rings of a link with their doorbells. In shared memory if that is to be had; otherwise on the heap, for a pump
/// that carries the frames over a socket.
#[derive(Debug)]
pub(crate) struct LinkMemory {
    rings: [RingMemory; RING_COUNT],
    segment: Result<Segment, Fallback>,
    bridge_doorbell: Doorbell,
    /// The part of the peer's doorbell that the bridge rings, and the part that the peer waits on.
    peer_doorbell: [Doorbell; 2],
}

/// Why a link could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LinkSetupError {
    /// Not even the heap has room for its rings, or the capacity is wrong.
    #[error("link could not be set up: {0}")]
    Rings(#[from] CreateError),
    /// No file descriptors for its doorbells.
    #[error(
        "link could not be set up: no doorbell: {0}; raise the limit of open files (ulimit -n)"
    )]
    Doorbell(#[from] io::Error),
    /// A ring of a fresh link cannot be attached.
    #[error("link could not be set up: {0}")]
    Attach(#[from] AttachError),
    /// The data plane has stopped.
    #[error("link could not be set up: {0}")]
    Stopped(#[from] crate::data_plane::Stopped),
    /// Another link has the name.
    #[error("link could not be set up: {0}")]
    NameTaken(#[from] super::registry::NameTaken),
}

impl LinkMemory {
    /// Rings in a new segment, or on the heap with the reason.
    pub(crate) fn create(
        ring_capacity: usize,
        schema_digest: [u8; 32],
        memory: &MemoryConfig,
    ) -> Result<Self, LinkSetupError> {
        let options = SegmentOptions {
            ring_capacity: [ring_capacity; RING_COUNT],
            schema_digest,
            backing: memory.backing.clone(),
            memory: memory.options,
        };
        match Segment::create(&options) {
            Ok(segment) => {
                let rings = [segment.ring(RING_TO_PEER), segment.ring(RING_TO_BRIDGE)];
                Self::over(rings, Ok(segment))
            }
            Err(error @ CreateError::Capacity { .. }) => Err(error.into()),
            Err(error) => Self::on_heap(ring_capacity, Fallback::from(&error)),
        }
    }

    /// Rings on the heap, for a link that is not to use shared memory.
    pub(crate) fn on_heap(ring_capacity: usize, reason: Fallback) -> Result<Self, LinkSetupError> {
        let rings = [
            RingMemory::heap(ring_capacity)?,
            RingMemory::heap(ring_capacity)?,
        ];
        Self::over(rings, Err(reason))
    }

    /// Rings on the heap, for an actor in this process.
    pub(crate) fn local(ring_capacity: usize) -> Result<Self, LinkSetupError> {
        Self::on_heap(
            ring_capacity,
            Fallback::new(FallbackCode::NONE, "both ends are in one process"),
        )
    }

    fn over(
        rings: [RingMemory; RING_COUNT],
        segment: Result<Segment, Fallback>,
    ) -> Result<Self, LinkSetupError> {
        let peer_doorbell = if segment.is_ok() {
            // The other process must not be able to make the data plane wait in a notify.
            Doorbell::pair()?.into()
        } else {
            let shared = Doorbell::new()?;
            [shared.try_clone()?, shared]
        };
        Ok(Self {
            rings,
            segment,
            bridge_doorbell: Doorbell::new()?,
            peer_doorbell,
        })
    }

    /// The side that the router drives.
    pub(crate) fn bridge_side(&self, fencing: Fencing) -> Result<LinkEnds, LinkSetupError> {
        let [to_peer, to_bridge] = self.rings.clone();
        let (own, peer) = (
            self.bridge_doorbell.try_clone()?,
            self.peer_doorbell[0].try_clone()?,
        );
        Ok(LinkEnds::attach(to_bridge, to_peer, own, peer, fencing)?)
    }

    /// The peer's side, for a pump or an actor in this process. Goes on where a predecessor stopped.
    pub(crate) fn peer_side(&self, fencing: Fencing) -> Result<LinkEnds, LinkSetupError> {
        let [to_peer, to_bridge] = self.rings.clone();
        let (own, peer) = (
            self.peer_doorbell[1].try_clone()?,
            self.bridge_doorbell.try_clone()?,
        );
        Ok(LinkEnds::attach(to_peer, to_bridge, own, peer, fencing)?)
    }

    /// The segment, or why there is none.
    pub(crate) fn segment(&self) -> Result<&Segment, &Fallback> {
        self.segment.as_ref()
    }

    /// Options of the configuration that the segment does without, and why.
    pub(crate) fn degraded(&self) -> Vec<String> {
        let segment = self.segment.as_ref().ok();
        segment.map_or_else(Vec::new, |segment| {
            segment.degraded().iter().map(ToString::to_string).collect()
        })
    }

    /// Bytes of each ring.
    pub(crate) fn capacity(&self) -> usize {
        self.rings[RING_TO_PEER].capacity()
    }

    /// What the peer gets: the doorbell that it rings, and the one that it waits on.
    pub(crate) fn doorbells(&self) -> (&Doorbell, &Doorbell) {
        (&self.bridge_doorbell, &self.peer_doorbell[1])
    }

    /// Makes the doorbell that the last peer rang work for the next one. Whoever slept must be woken afterwards, because what
    /// was rung by then is forgotten.
    pub(crate) fn reset_doorbell(&self) -> io::Result<()> {
        self.bridge_doorbell.reset()
    }

    pub(crate) fn max_payload(&self) -> usize {
        self.rings[RING_TO_PEER].max_payload()
    }

    /// Whether a predecessor left the rings so that a successor can go on with them.
    pub(crate) fn check(&self) -> Result<(), Corrupt> {
        self.rings.iter().try_for_each(RingMemory::check_positions)
    }

    /// How far a predecessor has published: what comes behind this position is the next peer's.
    pub(crate) fn published(&self) -> Result<u64, Corrupt> {
        self.rings[RING_TO_BRIDGE].committed_end()
    }

    /// What shows whether the peer is alive.
    pub(crate) fn progress(&self, transport: Option<Transport>) -> Progress {
        let to_peer = self.rings[RING_TO_PEER].glance();
        let to_bridge = self.rings[RING_TO_BRIDGE].glance();
        Progress {
            unacknowledged: self.unacknowledged(),
            acknowledged: to_peer.head,
            published: to_bridge.tail,
            // Over a socket it is the pump that sleeps.
            asleep: to_peer.consumer_parked && transport == Some(Transport::Shm),
            held_up: self.rings[RING_TO_BRIDGE].occupancy() > 0,
        }
    }

    /// How many frames of each topic the peer has not acknowledged.
    pub(crate) fn unacknowledged_frames(&self) -> Result<BTreeMap<u16, u64>, Corrupt> {
        let mut topics = BTreeMap::new();
        self.rings[RING_TO_PEER]
            .unreleased(|header| *topics.entry(header.topic_id).or_default() += 1)?;
        Ok(topics)
    }

    /// Bytes of records that the peer has not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.rings[RING_TO_PEER].occupancy()
    }
}
