//! What a segment is made of, and what its pages get beyond that. Every wish that cannot be met is given up with a
//! reason that the program sees.

use std::fmt;
use std::io;
use std::path::PathBuf;

use memmap2::{Advice, MmapRaw};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};

use crate::error::CreateError;
use crate::layout::RING_COUNT;

/// Bytes of a huge page where the kernel does not say.
const HUGE_PAGE_LEN_DEFAULT: usize = 2 << 20;
const HUGE_PAGE_LEN_FILE: &str = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";

/// What a new segment is to be.
///
/// ```
/// use shm_transport::segment::{MemoryOptions, Segment, SegmentOptions};
///
/// let mut options = SegmentOptions::new(64 << 10);
/// options.memory = MemoryOptions { lock: true, ..MemoryOptions::default() };
/// let segment = Segment::create(&options)?;
/// for degraded in segment.degraded() {
///     println!("{degraded}"); // for example: lock was given up: … limit=0 …
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SegmentOptions {
    /// Bytes of each ring: to the peer, to the bridge. Powers of two.
    pub ring_capacity: [usize; RING_COUNT],
    /// Digest of the application contracts, for whoever looks at the segment.
    pub schema_digest: [u8; 32],
    /// Where the memory comes from.
    pub backing: Backing,
    /// What the pages get in this process.
    pub memory: MemoryOptions,
}

impl SegmentOptions {
    /// A sealed memory file with two rings of this many bytes, prefaulted, without a digest.
    #[must_use]
    pub fn new(ring_capacity: usize) -> Self {
        Self {
            ring_capacity: [ring_capacity; RING_COUNT],
            schema_digest: [0; 32],
            backing: Backing::Memfd,
            memory: MemoryOptions::default(),
        }
    }
}

/// Where the memory of a segment comes from.
///
/// ```
/// # use shm_transport::segment::{Backing, Segment, SegmentOptions};
/// let mut options = SegmentOptions::new(4096);
/// options.backing = Backing::File { directory: std::env::temp_dir() };
/// let segment = Segment::create(&options)?;
/// assert!(!segment.is_sealed());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Backing {
    /// A memory file (`memfd_create`) that is sealed against shrinking and growing.
    #[default]
    Memfd,
    /// A file in a directory, best one in a `tmpfs`, for hosts that forbid `memfd_create` or account memory per mount.
    ///
    /// It has mode 0600 and no name by the time anybody else can see it, so nothing is left behind. It cannot be
    /// sealed: a peer that shortens it makes the next access of the other side end in SIGBUS. So it is shared between
    /// processes of one user only, who could end each other anyway: whoever opens an unsealed segment checks the owner.
    /// If there is no such file to be had, the segment is a memory file, with the reason in
    /// [`Segment::degraded`](super::Segment::degraded). A full file system is an error, as a lack of memory is.
    File {
        /// The directory.
        directory: PathBuf,
    },
}

/// What the pages of a segment get in one process; each side chooses for itself.
///
/// None of it changes what the segment does. What cannot be had is given up, logged, and told by
/// [`Segment::degraded`](super::Segment::degraded), unless it is required.
///
/// ```
/// use shm_transport::segment::{MemoryOptions, Segment, SegmentOptions};
///
/// // Rings of 4 KiB are far below a huge page, so this wish cannot be met.
/// let mut options = SegmentOptions::new(4096);
/// options.memory = MemoryOptions { huge_pages: true, ..MemoryOptions::default() };
/// assert_eq!(Segment::create(&options)?.degraded()[0].option, "huge_pages");
///
/// options.memory.require = true;
/// let error = Segment::create(&options).unwrap_err();
/// assert!(error.to_string().contains("huge_pages"), "{error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryOptions {
    /// Map every page at once, so that the first pass over a ring takes no page faults. Costs about 0.1 ms per MiB
    /// when the segment is mapped. On by default.
    pub prefault: bool,
    /// Keep the pages out of the swap (`mlock`). Counts against RLIMIT_MEMLOCK.
    pub lock: bool,
    /// Back the segment with huge pages (`madvise`), which saves TLB misses in rings of several MiB.
    pub huge_pages: bool,
    /// Fail rather than do without: also without the chosen [`Backing`].
    pub require: bool,
}

impl Default for MemoryOptions {
    /// Prefaulted, and nothing else.
    fn default() -> Self {
        Self {
            prefault: true,
            lock: false,
            huge_pages: false,
            require: false,
        }
    }
}

/// An option that a segment does without, and why.
///
/// ```
/// # use shm_transport::segment::Degraded;
/// let degraded = Degraded { option: "lock", reason: "no permission".into() };
/// assert_eq!(degraded.to_string(), "lock was given up: no permission");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Degraded {
    /// `prefault`, `lock`, `huge_pages` or `backing`.
    pub option: &'static str,
    /// What stood against it, with the numbers and what to change.
    pub reason: String,
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was given up: {}", self.option, self.reason)
    }
}

/// Gives the pages what is asked for. What is given up is logged; if it is required, it is the error.
pub(super) fn apply(
    mapping: &MmapRaw,
    options: &MemoryOptions,
    mut degraded: Vec<Degraded>,
) -> Result<Vec<Degraded>, Degraded> {
    let mut attempt =
        |option: &'static str, wanted: bool, outcome: &dyn Fn() -> Result<(), String>| {
            if wanted && let Err(reason) = outcome() {
                degraded.push(Degraded { option, reason });
            }
        };
    // Huge pages first: populating and locking bring in pages of the size that is advised then.
    attempt("huge_pages", options.huge_pages, &|| advise_huge(mapping));
    attempt("prefault", options.prefault, &|| populate(mapping));
    attempt("lock", options.lock, &|| lock(mapping));
    if options.require && !degraded.is_empty() {
        return Err(degraded.swap_remove(0));
    }
    for Degraded { option, reason } in &degraded {
        tracing::warn!(option, %reason, len = mapping.len(), "segment does without an option");
    }
    Ok(degraded)
}

impl From<Degraded> for CreateError {
    fn from(Degraded { option, reason }: Degraded) -> Self {
        Self::Required { option, reason }
    }
}

fn populate(mapping: &MmapRaw) -> Result<(), String> {
    // Shared pages are mapped writable at once only by this; `MAP_POPULATE` maps them for reading, and the first write
    // to each takes a fault all the same on file systems that keep account of dirty pages.
    mapping.advise(Advice::PopulateWrite).map_err(|error| {
        format!(
            "len={}: {error}; the kernel is older than 5.14 or memory is short",
            mapping.len()
        )
    })
}

fn lock(mapping: &MmapRaw) -> Result<(), String> {
    mapping.lock().map_err(|error| {
        let limit = getrlimit(Resource::RLIMIT_MEMLOCK)
            .map_or_else(|_| "unknown".to_owned(), |(soft, _)| soft.to_string());
        format!(
            "mlock failed: len={} limit={limit}: {error}; raise the limit of locked memory (ulimit -l)",
            mapping.len()
        )
    })
}

fn advise_huge(mapping: &MmapRaw) -> Result<(), String> {
    let page = std::fs::read_to_string(HUGE_PAGE_LEN_FILE)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(HUGE_PAGE_LEN_DEFAULT);
    let len = mapping.len();
    if len < page {
        return Err(format!(
            "segment is smaller than a huge page: len={len} page={page}; use larger rings"
        ));
    }
    mapping
        .advise(Advice::HugePage)
        .map_err(|error| format!("madvise(MADV_HUGEPAGE) failed: {error}"))?;
    // Advice alone does nothing where the mount or the system forbids huge pages for shared memory, and nothing for
    // pages that exist already. Collapsing says what became of it. Only whole huge pages can be collapsed.
    let start = mapping.as_mut_ptr() as usize;
    let first = start.next_multiple_of(page);
    let whole = (start + len).saturating_sub(first) / page * page;
    if whole == 0 {
        return Err(format!(
            "no whole huge page lies in the mapping: len={len} page={page}; use larger rings"
        ));
    }
    // SAFETY: the range lies inside the mapping; collapsing moves its pages and changes none of their bytes.
    let outcome = unsafe {
        libc::madvise(
            mapping.as_mut_ptr().add(first - start).cast(),
            whole,
            libc::MADV_COLLAPSE,
        )
    };
    Errno::result(outcome).map(drop).map_err(|errno| {
        let error = io::Error::from(errno);
        format!(
            "madvise(MADV_COLLAPSE) failed: len={whole} page={page}: {error}; the kernel is older than 6.1, or \
             /sys/kernel/mm/transparent_hugepage/shmem_enabled forbids it, or no huge page is free"
        )
    })
}
