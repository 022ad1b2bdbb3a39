//! The shared memory file of a link: both rings and the header that describes them.
//!
//! The bridge creates it with `memfd_create`, sizes it with `fallocate` (so that a lack of memory is an error here and
//! not a SIGBUS later), and seals it against shrinking and growing. Nothing is left on disk, and the kernel frees it
//! with the last process that has it. Whoever opens one checks every field first and never reads the header again.
//!
//! [`SegmentOptions`] has the choices: a file in a directory instead of a memory file, and what the pages get.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use nix::sys::stat::fstat;

use crate::disable::is_disabled;
use crate::error::{CreateError, OpenError};
use crate::layout::{
    PAGE_LEN, RING_CAPACITY_MAX, RING_CAPACITY_MIN, RING_CAPACITY_OFFSET, RING_CONTROL_LEN,
    RING_CONTROL_OFFSET_OFFSET, RING_COUNT, RING_DATA_OFFSET_OFFSET, RING_DESCRIPTOR_LEN,
    SEGMENT_EPOCH_OFFSET, SEGMENT_HEADER_LEN, SEGMENT_LAYOUT_VERSION, SEGMENT_MAGIC,
    SEGMENT_MAGIC_OFFSET, SEGMENT_RING_COUNT_OFFSET, SEGMENT_RINGS_OFFSET,
    SEGMENT_SCHEMA_DIGEST_OFFSET, SEGMENT_TOTAL_LEN_OFFSET, SEGMENT_VERSION_OFFSET,
};
use crate::ring::{Claims, RingMemory};

mod backing;
mod locks;
mod options;

use locks::EndLocks;
pub use options::{Backing, Degraded, MemoryOptions, SegmentOptions};

/// How long an opener waits for an end that a predecessor still has: the kernel may be ending that process at this very
/// moment.
const OPENER_PATIENCE: Duration = Duration::from_millis(500);

/// The same for the creator, the bridge, which does not let a peer hold it up.
const CREATOR_PATIENCE: Duration = Duration::from_millis(20);

/// A mapped segment.
///
/// ```
/// use shm_transport::layout::RING_TO_PEER;
/// use shm_transport::segment::{Segment, SegmentOptions};
///
/// let ours = Segment::create(&SegmentOptions::new(64 << 10))?;
/// // The peer gets the descriptor over a socket, or inherits it.
/// let theirs = Segment::open(ours.fd().try_clone_to_owned()?)?;
/// assert_eq!((theirs.len(), theirs.is_sealed()), (ours.len(), true));
/// assert_eq!(theirs.ring(RING_TO_PEER).capacity(), 64 << 10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Segment {
    fd: OwnedFd,
    mapping: Arc<MmapRaw>,
    rings: [RingMemory; RING_COUNT],
    /// The epoch as of creation, opening or the last `set_epoch`; never read back from the mapping.
    epoch: AtomicU64,
    schema_digest: [u8; 32],
    is_sealed: bool,
    degraded: Vec<Degraded>,
}

/// Where one ring lies in a segment, checked.
#[derive(Debug, Clone, Copy)]
struct RingPlace {
    control: usize,
    data: usize,
    capacity: usize,
}

impl Segment {
    /// Creates, sizes, maps and seals a segment. Costs four system calls and the zeroing of its pages.
    ///
    /// # Errors
    ///
    /// [`CreateError`] says which step failed; [`CreateError::fallback`](crate::channel::Fallback) turns it into the
    /// reason that a handshake gives.
    pub fn create(options: &SegmentOptions) -> Result<Self, CreateError> {
        if is_disabled("shm") {
            return Err(CreateError::Disabled);
        }
        for capacity in options.ring_capacity {
            crate::ring::check_capacity(capacity)?;
        }
        let [to_peer, to_bridge] = options.ring_capacity;
        let first = RingPlace {
            control: SEGMENT_HEADER_LEN,
            data: SEGMENT_HEADER_LEN + RING_CONTROL_LEN,
            capacity: to_peer,
        };
        let second_control = first.data + to_peer;
        let second = RingPlace {
            control: second_control,
            data: second_control + RING_CONTROL_LEN,
            capacity: to_bridge,
        };
        let total_len = second.data + to_bridge;

        let backing::NewFile {
            fd,
            can_be_sealed,
            degraded,
        } = backing::create(&options.backing, total_len)?;
        let prepare = |step| {
            move |source: io::Error| CreateError::Prepare {
                step,
                len: total_len,
                source,
            }
        };
        let mapping = map(&fd, total_len).map_err(prepare("map"))?;

        write_header(&mapping, total_len, [first, second], &options.schema_digest);
        if can_be_sealed {
            backing::seal(&fd).map_err(|errno| prepare("seal")(errno.into()))?;
        }
        let degraded = options::apply(&mapping, &options.memory, degraded.into_iter().collect())?;
        let mapping = Arc::new(mapping);
        let rings = rings_at(&fd, &mapping, [first, second], CREATOR_PATIENCE);
        Ok(Self {
            fd,
            mapping,
            rings,
            epoch: AtomicU64::new(0),
            schema_digest: options.schema_digest,
            is_sealed: can_be_sealed,
            degraded,
        })
    }

    /// Maps a segment that another process created, and checks every field of its header. Its pages are prefaulted.
    ///
    /// # Errors
    ///
    /// As [`Segment::open_with`].
    pub fn open(fd: OwnedFd) -> Result<Self, OpenError> {
        Self::open_with(fd, &MemoryOptions::default())
    }

    /// Maps a segment that another process created, checks every field of its header, and gives its pages what is asked
    /// for.
    ///
    /// # Errors
    ///
    /// [`OpenError::Invalid`] names the first field that is wrong, its value and what would be right. A file that is
    /// not sealed is taken from the own user and from root only, see [`Backing::File`]. [`OpenError::Required`] if a
    /// required option is not to be had.
    pub fn open_with(fd: OwnedFd, memory: &MemoryOptions) -> Result<Self, OpenError> {
        if is_disabled("map") || is_disabled("shm") {
            return Err(OpenError::Disabled);
        }
        let io_error = |step| {
            move |errno: nix::Error| OpenError::Io {
                step,
                source: errno.into(),
            }
        };
        let file_len = fstat(&fd).map_err(io_error("fstat"))?.st_size as u64;
        let is_sealed = backing::check_seals(&fd)?;
        let len_min = SEGMENT_HEADER_LEN + RING_COUNT * (RING_CONTROL_LEN + RING_CAPACITY_MIN);
        let len_max = SEGMENT_HEADER_LEN + RING_COUNT * (RING_CONTROL_LEN + RING_CAPACITY_MAX);
        check(
            "file length",
            file_len,
            (len_min as u64..=len_max as u64).contains(&file_len),
            || format!("{len_min}..={len_max}"),
        )?;
        let mapping = map(&fd, file_len as usize).map_err(|source| OpenError::Io {
            step: "map",
            source,
        })?;
        let header = read_header(&mapping);
        let places = check_header(&header, file_len)?;
        let degraded = options::apply(&mapping, memory, Vec::new())
            .map_err(|Degraded { option, reason }| OpenError::Required { option, reason })?;
        let mapping = Arc::new(mapping);
        let rings = rings_at(&fd, &mapping, places, OPENER_PATIENCE);
        Ok(Self {
            fd,
            mapping,
            rings,
            epoch: AtomicU64::new(header.epoch),
            schema_digest: header.schema_digest,
            is_sealed,
            degraded,
        })
    }

    /// Options that this process asked for and does without, with the reasons. Empty if it has everything.
    #[must_use]
    pub fn degraded(&self) -> &[Degraded] {
        &self.degraded
    }

    /// Whether the file keeps its length for good; a [`Backing::File`] cannot be sealed.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// The memory of ring [`RING_TO_PEER`](crate::layout::RING_TO_PEER) or
    /// [`RING_TO_BRIDGE`](crate::layout::RING_TO_BRIDGE).
    ///
    /// # Panics
    ///
    /// If `index` is neither.
    #[must_use]
    pub fn ring(&self, index: usize) -> RingMemory {
        self.rings[index].clone()
    }

    /// The memory file, for passing it to the peer.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Bytes of the segment.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a segment is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// How often the segment has been handed to a peer, as of creation or opening.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// Digest of the application contracts, as of creation or opening.
    #[must_use]
    pub fn schema_digest(&self) -> [u8; 32] {
        self.schema_digest
    }

    /// Writes the epoch before the segment is handed to the next peer. For the bridge only.
    pub fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
        // SAFETY: the offset is inside the header page and 8-byte aligned; the mapping lives as long as `self`. Others
        // may access the word at the same time, which an atomic allows.
        let word = unsafe {
            AtomicU64::from_ptr(self.mapping.as_mut_ptr().add(SEGMENT_EPOCH_OFFSET).cast())
        };
        word.store(epoch, Ordering::Release);
    }
}

fn map(fd: &OwnedFd, len: usize) -> io::Result<MmapRaw> {
    MmapOptions::new().len(len).map_raw(fd.as_raw_fd())
}

fn rings_at(
    fd: &OwnedFd,
    mapping: &Arc<MmapRaw>,
    places: [RingPlace; RING_COUNT],
    patience: Duration,
) -> [RingMemory; RING_COUNT] {
    let locks = EndLocks::open(fd.as_fd())
        .inspect_err(|error| {
            tracing::warn!(%error, "a second process on one end of a ring will not be noticed: the segment cannot be locked");
        })
        .ok()
        .map(Arc::new);
    std::array::from_fn(|number| {
        let claims = locks.clone().map(|locks| locks.of_ring(number, patience));
        ring_at(mapping, places[number], claims)
    })
}

fn ring_at(
    mapping: &Arc<MmapRaw>,
    place: RingPlace,
    claims: Option<Box<dyn Claims>>,
) -> RingMemory {
    let start = mapping.as_mut_ptr();
    let at = |offset| {
        // SAFETY: `place` was computed by `create` or checked by `check_header`: the offset lies inside the mapping.
        NonNull::new(unsafe { start.add(offset) }).expect("a mapping does not start at address 0")
    };
    let owner = Arc::clone(mapping);
    // SAFETY: control block and data are page-aligned, inside the mapping and apart from each other (computed or
    // checked, as above); the mapping lives as long as `owner`. The capacity was checked. This module makes no
    // references into the mapping. The peer may write there at any time, which `RingMemory` expects.
    unsafe {
        RingMemory::from_raw(
            at(place.control),
            at(place.data),
            place.capacity,
            owner,
            claims,
        )
    }
}

fn write_header(
    mapping: &MmapRaw,
    total_len: usize,
    places: [RingPlace; RING_COUNT],
    schema_digest: &[u8; 32],
) {
    let mut header = [0_u8; SEGMENT_HEADER_LEN];
    let mut put =
        |offset: usize, bytes: &[u8]| header[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(SEGMENT_MAGIC_OFFSET, &SEGMENT_MAGIC.to_le_bytes());
    put(
        SEGMENT_VERSION_OFFSET,
        &SEGMENT_LAYOUT_VERSION.to_le_bytes(),
    );
    put(
        SEGMENT_RING_COUNT_OFFSET,
        &(RING_COUNT as u32).to_le_bytes(),
    );
    put(SEGMENT_TOTAL_LEN_OFFSET, &(total_len as u64).to_le_bytes());
    put(SEGMENT_SCHEMA_DIGEST_OFFSET, schema_digest);
    for (number, place) in places.iter().enumerate() {
        let descriptor = SEGMENT_RINGS_OFFSET + number * RING_DESCRIPTOR_LEN;
        put(
            descriptor + RING_CONTROL_OFFSET_OFFSET,
            &(place.control as u64).to_le_bytes(),
        );
        put(
            descriptor + RING_DATA_OFFSET_OFFSET,
            &(place.data as u64).to_le_bytes(),
        );
        put(
            descriptor + RING_CAPACITY_OFFSET,
            &(place.capacity as u64).to_le_bytes(),
        );
    }
    // SAFETY: the mapping is longer than the header, and nobody else has the file yet.
    unsafe { std::ptr::copy_nonoverlapping(header.as_ptr(), mapping.as_mut_ptr(), header.len()) }
}

/// The header as loaded once, unchecked.
struct RawHeader {
    magic: u64,
    version: u32,
    ring_count: u32,
    total_len: u64,
    epoch: u64,
    schema_digest: [u8; 32],
    rings: [[u64; 3]; RING_COUNT],
}

fn read_header(mapping: &MmapRaw) -> RawHeader {
    let mut bytes = [0_u8; SEGMENT_HEADER_LEN];
    // SAFETY: the mapping is longer than the header (the file length was checked, and the seals keep it). The file may
    // be written meanwhile; then the copy holds some mix of bytes, all of which are checked as a copy.
    unsafe { std::ptr::copy_nonoverlapping(mapping.as_ptr(), bytes.as_mut_ptr(), bytes.len()) }
    let u64_at = |offset: usize| {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
    };
    let u32_at = |offset: usize| {
        u32::from_le_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
    };
    RawHeader {
        magic: u64_at(SEGMENT_MAGIC_OFFSET),
        version: u32_at(SEGMENT_VERSION_OFFSET),
        ring_count: u32_at(SEGMENT_RING_COUNT_OFFSET),
        total_len: u64_at(SEGMENT_TOTAL_LEN_OFFSET),
        epoch: u64_at(SEGMENT_EPOCH_OFFSET),
        schema_digest: bytes[SEGMENT_SCHEMA_DIGEST_OFFSET..SEGMENT_SCHEMA_DIGEST_OFFSET + 32]
            .try_into()
            .expect("32 bytes"),
        rings: std::array::from_fn(|number| {
            let descriptor = SEGMENT_RINGS_OFFSET + number * RING_DESCRIPTOR_LEN;
            [
                RING_CONTROL_OFFSET_OFFSET,
                RING_DATA_OFFSET_OFFSET,
                RING_CAPACITY_OFFSET,
            ]
            .map(|offset| u64_at(descriptor + offset))
        }),
    }
}

fn check(
    field: &'static str,
    value: u64,
    legal: bool,
    expected: impl FnOnce() -> String,
) -> Result<(), OpenError> {
    if legal {
        Ok(())
    } else {
        Err(OpenError::Invalid {
            field,
            value,
            expected: expected(),
        })
    }
}

fn check_header(header: &RawHeader, file_len: u64) -> Result<[RingPlace; RING_COUNT], OpenError> {
    let exactly = |field, value: u64, wanted: u64| {
        check(field, value, value == wanted, || format!("{wanted:#x}"))
    };
    exactly("magic", header.magic, SEGMENT_MAGIC)?;
    exactly(
        "version",
        header.version.into(),
        SEGMENT_LAYOUT_VERSION.into(),
    )?;
    exactly("ring_count", header.ring_count.into(), RING_COUNT as u64)?;
    exactly("total_len", header.total_len, file_len)?;
    let mut places = [RingPlace {
        control: 0,
        data: 0,
        capacity: 0,
    }; RING_COUNT];
    // Each area has to start behind the one before, which also rules out overlaps.
    let mut free_from = SEGMENT_HEADER_LEN as u64;
    for (place, [control, data, capacity]) in places.iter_mut().zip(header.rings) {
        let capacity_legal = usize::try_from(capacity).is_ok_and(|bytes| {
            bytes.is_power_of_two() && (RING_CAPACITY_MIN..=RING_CAPACITY_MAX).contains(&bytes)
        });
        check("capacity", capacity, capacity_legal, || {
            format!("a power of two from {RING_CAPACITY_MIN} to {RING_CAPACITY_MAX}")
        })?;
        for (field, offset, len) in [
            ("control_offset", control, RING_CONTROL_LEN as u64),
            ("data_offset", data, capacity),
        ] {
            let last = file_len.saturating_sub(len);
            let legal =
                (free_from..=last).contains(&offset) && offset.is_multiple_of(PAGE_LEN as u64);
            check(field, offset, legal, || {
                format!("{free_from:#x}..={last:#x} in steps of {PAGE_LEN:#x}")
            })?;
            free_from = offset + len;
        }
        *place = RingPlace {
            control: control as usize,
            data: data as usize,
            capacity: capacity as usize,
        };
    }
    Ok(places)
}

#[cfg(test)]
mod tests;
