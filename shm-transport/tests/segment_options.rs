//! Options of a segment: each where it works, and each where it cannot be had.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::process::Command;

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Uid, geteuid, setuid};
use shm_transport::error::{CreateError, OpenError};
use shm_transport::frame::FrameHeader;
use shm_transport::layout::RING_TO_PEER;
use shm_transport::ring::{Consumer, Producer};
use shm_transport::segment::{Backing, MemoryOptions, Segment, SegmentOptions};

/// A user that owns nothing here.
const NOBODY: u32 = 65_534;
/// Set in a process that a test has started to run itself in.
const INSIDE: &str = "SEGMENT_OPTIONS_INSIDE";

fn with(capacity: usize, memory: MemoryOptions) -> SegmentOptions {
    let mut options = SegmentOptions::new(capacity);
    options.memory = memory;
    options
}

fn in_directory(directory: &Path, capacity: usize) -> SegmentOptions {
    let mut options = SegmentOptions::new(capacity);
    options.backing = Backing::File {
        directory: directory.to_owned(),
    };
    options
}

fn duplicate(segment: &Segment) -> OwnedFd {
    segment.fd().try_clone_to_owned().expect("dup")
}

/// A frame goes from one mapping to the other.
fn is_usable(ours: &Segment, theirs: &Segment) {
    let mut producer = Producer::attach(ours.ring(RING_TO_PEER)).expect("producer");
    let mut consumer = Consumer::attach(theirs.ring(RING_TO_PEER)).expect("consumer");
    producer
        .try_push(FrameHeader::new(1001, 3), b"abc")
        .expect("room");
    let guard = consumer.try_read().expect("sound").expect("a frame");
    assert_eq!(guard.frame().to_vec(), b"abc");
}

fn reason(segment: &Segment, option: &str) -> String {
    let [degraded] = segment.degraded() else {
        panic!("one option was to be given up: {:?}", segment.degraded())
    };
    assert_eq!(degraded.option, option);
    degraded.reason.clone()
}

/// Bytes of the pages that a mapping of this process has in memory.
fn resident(segment: &Segment) -> usize {
    let start = Producer::attach(segment.ring(RING_TO_PEER));
    drop(start);
    let inode = File::from(duplicate(segment))
        .metadata()
        .expect("fstat")
        .ino();
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
    let mut lines = maps
        .lines()
        .skip_while(|line| line.split_whitespace().nth(4) != Some(&inode.to_string()));
    let rss = lines.find(|line| line.starts_with("Rss:")).expect("Rss");
    let kib: usize = rss
        .split_whitespace()
        .nth(1)
        .expect("kB")
        .parse()
        .expect("number");
    kib << 10
}

#[test]
fn pages_are_present_at_once_on_both_sides_unless_that_is_switched_off() {
    let lazy = MemoryOptions {
        prefault: false,
        ..MemoryOptions::default()
    };
    let ours = Segment::create(&with(1 << 20, MemoryOptions::default())).expect("create");
    assert_eq!(resident(&ours), ours.len());
    drop(ours);
    let ours = Segment::create(&with(1 << 20, lazy)).expect("create");
    assert!(resident(&ours) < ours.len() / 4);
    let fd = duplicate(&ours);
    drop(ours);
    let theirs = Segment::open(fd).expect("open");
    assert_eq!(
        (resident(&theirs), theirs.degraded()),
        (theirs.len(), &[][..])
    );
}

#[test]
fn a_locked_segment_is_locked() {
    let options = MemoryOptions {
        lock: true,
        require: true,
        ..MemoryOptions::default()
    };
    let ours =
        Segment::create(&with(4096, options)).expect("20 KiB may be locked nearly everywhere");
    let locked = || {
        let status = std::fs::read_to_string("/proc/self/status").expect("status");
        let line = status
            .lines()
            .find(|line| line.starts_with("VmLck:"))
            .expect("VmLck");
        let kib: usize = line
            .split_whitespace()
            .nth(1)
            .expect("kB")
            .parse()
            .expect("number");
        kib << 10
    };
    assert!(locked() >= ours.len());
    let theirs = Segment::open_with(duplicate(&ours), &options).expect("open");
    assert!(locked() >= 2 * ours.len());
    is_usable(&ours, &theirs);
}

/// Runs one test of this file in a process of its own, which may give up rights.
fn in_a_process_of_its_own(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let output = Command::new(std::env::current_exe().expect("path"))
        .args(["--exact", test, "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("start");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
fn a_segment_that_may_not_be_locked_says_so_and_works() {
    in_a_process_of_its_own("a_segment_that_may_not_be_locked_says_so_and_works", || {
        setrlimit(Resource::RLIMIT_MEMLOCK, 0, 0).expect("setrlimit");
        if geteuid().is_root() {
            // Root may lock what it likes.
            setuid(Uid::from_raw(NOBODY)).expect("setuid");
        }
        let mut options = MemoryOptions {
            lock: true,
            ..MemoryOptions::default()
        };
        let ours = Segment::create(&with(4096, options)).expect("create");
        let text = reason(&ours, "lock");
        assert!(
            text.contains(&format!("len={} limit=0", ours.len())),
            "{text}"
        );
        let theirs = Segment::open_with(duplicate(&ours), &options).expect("open");
        assert!(reason(&theirs, "lock").contains("ulimit -l"));
        is_usable(&ours, &theirs);
        options.require = true;
        let error = Segment::create(&with(4096, options)).expect_err("required");
        assert!(
            matches!(error, CreateError::Required { option: "lock", .. }),
            "{error}"
        );
        let error = Segment::open_with(duplicate(&ours), &options).expect_err("required");
        assert!(
            matches!(error, OpenError::Required { option: "lock", .. }),
            "{error}"
        );
    });
}

#[test]
fn huge_pages_are_had_or_given_up_with_a_reason() {
    let options = MemoryOptions {
        huge_pages: true,
        ..MemoryOptions::default()
    };
    let small = Segment::create(&with(4096, options)).expect("create");
    let text = reason(&small, "huge_pages");
    assert!(
        text.contains(&format!(
            "smaller than a huge page: len={} page=",
            small.len()
        )),
        "{text}"
    );
    let large = Segment::create(&with(8 << 20, options)).expect("create");
    if let [degraded] = large.degraded() {
        assert_eq!(degraded.option, "huge_pages");
        assert!(degraded.reason.contains("madvise("), "{degraded}");
    } else {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
        let has_some = |line: &str| line.starts_with("ShmemPmdMapped:") && !line.ends_with(" 0 kB");
        assert!(maps.lines().any(has_some), "no huge page is mapped");
    }
    is_usable(&large, &Segment::open(duplicate(&large)).expect("open"));
}

#[test]
fn a_file_in_a_directory_has_no_name_and_nobody_else_may_open_it() {
    for directory in [std::env::temp_dir(), "/dev/shm".into()] {
        let place = tempfile::tempdir_in(&directory).expect("directory");
        let ours = Segment::create(&in_directory(place.path(), 8192)).expect("create");
        assert_eq!((ours.is_sealed(), ours.degraded()), (false, &[][..]));
        let metadata = File::from(duplicate(&ours)).metadata().expect("fstat");
        assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o600, 0));
        assert_eq!(std::fs::read_dir(place.path()).expect("list").count(), 0);
        let theirs = Segment::open(duplicate(&ours)).expect("open");
        assert!(!theirs.is_sealed());
        is_usable(&ours, &theirs);
    }
}

#[test]
fn a_directory_that_cannot_be_used_leads_to_a_memory_file() {
    let place = tempfile::tempdir().expect("directory");
    for directory in ["missing", "file"].map(|name| place.path().join(name)) {
        if directory.ends_with("file") {
            std::fs::write(&directory, "").expect("write");
        }
        let mut options = in_directory(&directory, 4096);
        let ours = Segment::create(&options).expect("create");
        assert!(ours.is_sealed());
        let text = reason(&ours, "backing");
        assert!(
            text.contains(&format!("directory={}", directory.display())),
            "{text}"
        );
        options.memory.require = true;
        let error = Segment::create(&options).expect_err("required");
        assert!(
            matches!(
                error,
                CreateError::Required {
                    option: "backing",
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn a_directory_that_is_not_writable_leads_to_a_memory_file() {
    in_a_process_of_its_own(
        "a_directory_that_is_not_writable_leads_to_a_memory_file",
        || {
            if geteuid().is_root() {
                setuid(Uid::from_raw(NOBODY)).expect("setuid");
            }
            let ours = Segment::create(&in_directory(Path::new("/"), 4096)).expect("create");
            let text = reason(&ours, "backing");
            assert!(
                text.contains("Permission denied") || text.contains("Read-only"),
                "{text}"
            );
        },
    );
}

#[test]
fn a_lack_of_space_is_an_error_with_the_numbers() {
    in_a_process_of_its_own("a_lack_of_space_is_an_error_with_the_numbers", || {
        // Beyond the limit of a file's size the kernel also sends a signal, which would end the process.
        // SAFETY: ignoring a signal runs no code of ours.
        unsafe { nix::libc::signal(nix::libc::SIGXFSZ, nix::libc::SIG_IGN) };
        setrlimit(Resource::RLIMIT_FSIZE, 8192, 8192).expect("setrlimit");
        let place = std::env::temp_dir();
        let error = Segment::create(&in_directory(&place, 4096)).expect_err("too large");
        let text = error.to_string();
        assert!(
            text.contains("len=20480") && text.contains(&format!("place={}", place.display())),
            "{text}"
        );
    });
}

#[test]
fn a_file_of_another_user_is_refused_unless_it_is_sealed() {
    if !geteuid().is_root() {
        // Only root can give a file away.
        return;
    }
    let place = tempfile::tempdir().expect("directory");
    let ours = Segment::create(&in_directory(place.path(), 4096)).expect("create");
    let sealed = Segment::create(&SegmentOptions::new(4096)).expect("create");
    for segment in [&ours, &sealed] {
        let fd = duplicate(segment);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        chown(path, Some(NOBODY), None).expect("chown");
    }
    let error = Segment::open(duplicate(&ours)).expect_err("not sealed");
    assert!(
        matches!(error, OpenError::Invalid { field: "owner", value, .. } if value == u64::from(NOBODY)),
        "{error}"
    );
    Segment::open(duplicate(&sealed)).expect("the seals are enough");
}
