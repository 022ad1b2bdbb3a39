//! One suite for every way that frames can travel: whatever holds over shared memory holds over a stream.

mod server;

use std::io::PipeReader;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use mycelium_messages::Message as _;
use mycelium_messages::bandit::Quote;
use mycelium_messages::control::{Goodbye, Shutdown};
use mycelium_messages::zerocopy::IntoBytes as _;
use shm_transport::channel::{Channel, ConnectOptions, Transport, TransportRequest};
use shm_transport::error::{ChannelError, HandshakeError};
use shm_transport::ring::Frame;
use shm_transport::segment::{Backing, Segment, SegmentOptions};
use shm_transport::socket::Stream;

use server::{Memory, Server, WATCHDOG};

const CAPACITY: usize = 64 * 1024;
const TOPIC: u16 = 1001;

/// How the two sides of a link are connected.
trait LinkFixture {
    /// Whether frames travel through shared memory.
    const SHM: bool = false;
    const FENCED: bool = false;
    /// Whether the shared memory is a file in a directory instead of a sealed memory file.
    const FILE: bool = false;

    /// A connected stream: the bridge's end and the peer's.
    fn streams() -> (Stream, Stream);

    /// A peer in another process that sends back what it gets.
    fn echo() -> (Child, Stream);
}

struct Shm;
struct ShmFenced;
struct ShmFile;
struct ShmFileFenced;
struct Unix;
struct Tcp;
struct Pipes;

/// The peer program. A test run that names its targets does not build examples, so this does.
fn example() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| {
        // In the workspace's folder, so that its dependencies have the features that they have already been built with.
        let mut build = Command::new(env!("CARGO"));
        build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        build.args(["build", "--quiet", "--example", "echo"]);
        // What cargo tells a running test about itself would make build scripts run again.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_MANIFEST_")
                || text.starts_with("CARGO_PKG_")
                || text == "OUT_DIR"
            {
                build.env_remove(name);
            }
        }
        let built = build.status();
        assert!(
            built.expect("cargo").success(),
            "examples/echo does not build"
        );
        let exe = std::env::current_exe().expect("the test itself");
        let folder = exe.ancestors().nth(2).expect("target folder");
        folder.join("examples/echo")
    });
    Command::new(program)
}

fn unix_echo() -> (Child, Stream) {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("bridge.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    let child = example()
        .arg(format!("unix:{}", path.display()))
        .spawn()
        .expect("examples/echo");
    (child, listener.accept().expect("connection").0.into())
}

macro_rules! shared_memory {
    ($fixture:ident, fenced: $fenced:literal, file: $file:literal) => {
        impl LinkFixture for $fixture {
            const SHM: bool = true;
            const FENCED: bool = $fenced;
            const FILE: bool = $file;

            fn streams() -> (Stream, Stream) {
                Unix::streams()
            }

            fn echo() -> (Child, Stream) {
                unix_echo()
            }
        }
    };
}

shared_memory!(Shm, fenced: false, file: false);
shared_memory!(ShmFenced, fenced: true, file: false);
shared_memory!(ShmFile, fenced: false, file: true);
shared_memory!(ShmFileFenced, fenced: true, file: true);

impl LinkFixture for Unix {
    fn streams() -> (Stream, Stream) {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        (ours.into(), theirs.into())
    }

    fn echo() -> (Child, Stream) {
        unix_echo()
    }
}

impl LinkFixture for Tcp {
    fn streams() -> (Stream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("address");
        let theirs = TcpStream::connect(address).expect("connect");
        (
            listener.accept().expect("connection").0.into(),
            theirs.into(),
        )
    }

    fn echo() -> (Child, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("address").port();
        let child = example()
            .arg(format!("tcp:localhost:{port}"))
            .spawn()
            .expect("examples/echo");
        (child, listener.accept().expect("connection").0.into())
    }
}

impl LinkFixture for Pipes {
    fn streams() -> (Stream, Stream) {
        let ((from_theirs, to_ours), (from_ours, to_theirs)) = (
            std::io::pipe().expect("pipe"),
            std::io::pipe().expect("pipe"),
        );
        let stream = |input: PipeReader, output: OwnedFd| {
            Stream::from_pipes(input.into(), output).expect("non-blocking")
        };
        (
            stream(from_theirs, to_theirs.into()),
            stream(from_ours, to_ours.into()),
        )
    }

    fn echo() -> (Child, Stream) {
        let mut child = example()
            .arg("stdio:")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("examples/echo");
        let (input, output) = (child.stdout.take(), child.stdin.take());
        let stream =
            Stream::from_pipes(input.expect("piped").into(), output.expect("piped").into());
        (child, stream.expect("non-blocking"))
    }
}

fn memory<F: LinkFixture>() -> Memory {
    let segment = F::SHM.then(|| {
        let folder = tempfile::tempdir().expect("folder");
        let mut options = SegmentOptions::new(CAPACITY);
        if F::FILE {
            let directory = folder.path().to_owned();
            options.backing = Backing::File { directory };
        }
        let segment = Segment::create(&options).expect("segment");
        let degraded = segment.degraded();
        assert!(
            !degraded.iter().any(|it| it.option == "backing"),
            "{degraded:?}"
        );
        segment
    });
    Memory::new(segment, CAPACITY)
}

fn accept<F: LinkFixture>(stream: Stream, memory: Memory) -> Server {
    Server::accept(stream, memory, F::FENCED)
}

fn join<F: LinkFixture>(memory: Memory) -> (Channel, Server) {
    let (ours, theirs) = F::streams();
    let server = thread::spawn(move || accept::<F>(ours, memory));
    let channel = Channel::from_stream(theirs, &ConnectOptions::default()).expect("handshake");
    let expected = if F::SHM {
        Transport::Shm
    } else {
        Transport::Socket
    };
    assert_eq!(channel.transport(), expected);
    (channel, server.join().expect("server"))
}

fn link<F: LinkFixture>() -> (Channel, Server) {
    join::<F>(memory::<F>())
}

fn payload(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 131 + at * 7) as u8).collect()
}

fn send(
    channel: &mut Channel,
    payload: &[u8],
    timeout: Option<Duration>,
) -> Result<(), ChannelError> {
    channel.publish_frame(&Frame::new(TOPIC, payload), timeout)
}

fn sizes() -> Vec<usize> {
    let max = CAPACITY / 4 - 8;
    let mut sizes: Vec<usize> = (0..100).collect();
    sizes.extend([1000, 4095, 4096, 4097, max - 9, max - 8, max - 1, max]);
    sizes.extend((0..300).map(|number| (number * 7919) % 3000));
    sizes
}

fn every_size_arrives_in_order_with_its_content<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    let peer = thread::spawn(move || {
        for (number, len) in sizes().into_iter().enumerate() {
            send(&mut channel, &payload(number, len), Some(WATCHDOG)).expect("room");
        }
        for (number, len) in sizes().into_iter().enumerate() {
            let frame = channel.recv(Some(WATCHDOG)).expect("frame");
            assert!(
                frame.to_vec() == payload(number, len),
                "to the peer: number={number}"
            );
        }
        channel
    });
    for (number, len) in sizes().into_iter().enumerate() {
        let got = server.recv().expect("frame");
        assert!(
            got == payload(number, len),
            "from the peer: number={number} len={len}"
        );
    }
    for (number, len) in sizes().into_iter().enumerate() {
        server.publish(TOPIC, &payload(number, len));
    }
    server.until("the peer has everything", |_| peer.is_finished());
    let statistics = peer.join().expect("peer").statistics();
    let count = sizes().len() as u64;
    assert_eq!(
        (statistics.frames_in, statistics.frames_out),
        (count, count)
    );
}

fn back_pressure_loses_nothing<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    // The bridge's side does not read, so ring and stream fill up.
    let mut sent = 0;
    loop {
        match send(&mut channel, &payload(sent, 5000), Some(Duration::ZERO)) {
            Ok(()) => sent += 1,
            Err(ChannelError::Full { payload_len, .. }) => break assert_eq!(payload_len, 5000),
            Err(error) => panic!("{error}"),
        }
    }
    // A pipe holds 64 KiB, the others more.
    assert!(sent >= 8, "sent={sent}");
    // One more that waits wakes up once there is room.
    let waiting = thread::spawn(move || {
        send(&mut channel, &payload(sent, 5000), Some(WATCHDOG)).expect("room comes");
        channel
    });
    for number in 0..=sent {
        assert!(
            server.recv().expect("frame") == payload(number, 5000),
            "number={number}"
        );
    }
    let mut channel = waiting.join().expect("it woke up");
    // And the other way round.
    let mut published = 0;
    while server.try_publish(TOPIC, &payload(published, 5000)) {
        published += 1;
        assert!(published < 10_000, "nothing holds the publisher up");
    }
    for number in 0..published {
        while {
            server.turn();
            let frame = channel.try_recv().expect("open");
            frame
                .map(|frame| assert!(frame.to_vec() == payload(number, 5000)))
                .is_none()
        } {}
    }
}

fn what_was_sent_before_a_clean_close_is_read<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    for number in 0..10 {
        send(&mut channel, &payload(number, 100), Some(WATCHDOG)).expect("room");
    }
    channel.close().expect("goodbye");
    for number in 0..10 {
        assert_eq!(server.recv(), Some(payload(number, 100)));
    }
    assert_eq!(server.recv(), None);
    let (header, _) = server.control.pop_front().expect("a word of goodbye");
    assert_eq!(
        (header.topic_id, server.ended),
        (Goodbye::TOPIC_ID, Some(0))
    );
}

fn what_a_killed_process_had_sent_is_read<F: LinkFixture>() {
    let (mut child, stream) = F::echo();
    let mut server = accept::<F>(stream, memory::<F>());
    for number in 0..50 {
        server.publish(TOPIC, &payload(number, 200));
    }
    // Each is acknowledged after its echo was published.
    server.until("everything is acknowledged", |server| {
        server.unacknowledged() == 0
    });
    child.kill().expect("SIGKILL");
    child.wait().expect("its end");
    for number in 0..50 {
        assert_eq!(server.recv(), Some(payload(number, 200)), "number={number}");
    }
    assert_eq!(server.recv(), None);
    assert!(server.control.is_empty(), "no goodbye");
}

fn a_payload_over_the_limit_is_refused_before_anything_is_written<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    let max = CAPACITY / 4 - 8;
    match send(&mut channel, &payload(0, max + 1), None) {
        Err(ChannelError::TooLarge {
            payload_len,
            max_payload,
        }) => {
            assert_eq!((payload_len, max_payload), (max + 1, max));
        }
        other => panic!("{other:?}"),
    }
    send(&mut channel, &payload(1, 10), None).expect("room");
    assert_eq!(server.recv(), Some(payload(1, 10)));
}

fn a_successor_gets_what_was_not_acknowledged<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    assert_eq!(channel.epoch(), 1);
    for number in 0..20 {
        server.publish(TOPIC, &payload(number, 300));
    }
    for number in 0..5 {
        server.turn();
        let frame = channel.recv(Some(WATCHDOG)).expect("frame");
        assert_eq!(frame.to_vec(), payload(number, 300));
    }
    // Without a goodbye: a crash.
    drop(channel);
    server.until("it is noticed", |server| server.ended.is_some());
    let memory = server.into_memory();
    let (mut channel, mut server) = join::<F>(memory);
    assert_eq!(channel.epoch(), 2);
    server.turn();
    let first = channel.recv(Some(WATCHDOG)).expect("frame").to_vec();
    let from = (0..20).position(|number| payload(number, 300) == first);
    let from = from.expect("one of the frames");
    assert!(
        from <= 4,
        "a frame in hand counts as not acknowledged: from={from}"
    );
    for number in from + 1..20 {
        server.turn();
        let frame = channel.recv(Some(WATCHDOG)).expect("frame");
        assert_eq!(frame.to_vec(), payload(number, 300), "number={number}");
    }
    channel.close().expect("goodbye");
    server.until("all is acknowledged", |server| server.ended.is_some());
    assert_eq!(server.unacknowledged(), 0);
}

fn requests_are_answered_while_application_frames_wait_for_room<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    for number in 0..40 {
        let outcome = send(&mut channel, &payload(number, 5000), Some(Duration::ZERO));
        assert!(matches!(outcome, Ok(()) | Err(ChannelError::Full { .. })));
    }
    for number in 0..3 {
        server.publish(TOPIC, &payload(number, 100));
    }
    let peer = thread::spawn(move || {
        channel.subscribe::<Quote>().expect("an answer");
        channel
    });
    // Nothing is read from the ring.
    server.until("the request is answered", |_| peer.is_finished());
    assert_eq!(server.requests, 1);
    let mut channel = peer.join().expect("it was answered");
    for number in 0..3 {
        let frame = channel.recv(Some(WATCHDOG)).expect("kept");
        assert_eq!(frame.to_vec(), payload(number, 100));
    }
}

fn an_idle_side_sleeps<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    let before = channel.statistics().parks;
    let outcome = channel.recv(Some(Duration::from_millis(30)));
    assert!(matches!(outcome, Err(ChannelError::TimedOut { .. })));
    let parks = channel.statistics().parks - before;
    assert!((1..=100).contains(&parks), "parks={parks}");
    server.publish(TOPIC, b"wake up");
    server.turn();
    assert_eq!(
        channel.recv(Some(WATCHDOG)).expect("frame").to_vec(),
        b"wake up"
    );
}

fn a_shutdown_comes_behind_what_was_sent<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    server.publish(TOPIC, b"last");
    server.turn();
    server.send_control(&Shutdown {
        deadline_ms: 1000,
        ..Shutdown::default()
    });
    server.turn();
    assert_eq!(
        channel.recv(Some(WATCHDOG)).expect("frame").to_vec(),
        b"last"
    );
    let end = channel.recv(Some(WATCHDOG));
    assert!(matches!(end, Err(ChannelError::Closed { .. })), "{end:?}");
}

fn a_full_stream_takes_far_fewer_calls_than_messages<F: LinkFixture>() {
    const COUNT: usize = 20_000;
    let (mut channel, mut server) = link::<F>();
    let before = server.traffic();
    let peer = thread::spawn(move || {
        for number in 0..COUNT {
            let frame = channel.recv(Some(WATCHDOG)).expect("frame");
            assert_eq!(frame.payload_len(), 64, "number={number}");
        }
        channel
    });
    for number in 0..COUNT {
        if !server.try_publish(TOPIC, &payload(number, 64)) {
            server.publish(TOPIC, &payload(number, 64));
        }
    }
    server.until("the peer has everything", |_| peer.is_finished());
    drop(peer.join().expect("peer"));
    let sends = server.traffic().sends - before.sends;
    assert!(
        sends < COUNT as u64 / 10,
        "sends={sends} of {COUNT} messages"
    );
}

fn a_burst_is_one_send_or_at_most_one_wakeup<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    let quotes: Vec<Quote> = (0..200)
        .map(|number| Quote {
            bid: f64::from(number),
            ..Quote::default()
        })
        .collect();
    let before = channel.statistics();
    let published = channel.publish_all(&quotes, Some(WATCHDOG)).expect("room");
    let after = channel.statistics();
    assert_eq!(
        (published, after.frames_out - before.frames_out),
        (200, 200)
    );
    assert_eq!(after.sends - before.sends, u64::from(!F::SHM));
    assert!(after.wakeups_sent - before.wakeups_sent <= 1);
    for quote in &quotes {
        assert_eq!(server.recv().expect("a quote"), quote.as_bytes());
    }
    let nothing: [Quote; 0] = [];
    assert_eq!(channel.publish_all(&nothing, None).expect("no work"), 0);
}

fn a_burst_that_ends_early_says_how_many_went_out<F: LinkFixture>() {
    let (mut channel, mut server) = link::<F>();
    // More than the buffers of any stream take.
    let payloads: Vec<_> = (0..61).map(|number| payload(number, 16_000)).collect();
    let frames = payloads.iter().cycle().take(4000);
    let error = channel
        .publish_frames(
            frames.clone().map(|it| Frame::new(TOPIC, it)),
            Some(Duration::ZERO),
        )
        .expect_err("nobody reads");
    assert!(matches!(error.source, ChannelError::Full { .. }), "{error}");
    let published = error.published;
    assert!(published > 0 && published < 4000, "{error}");
    assert_eq!(channel.statistics().frames_out, published as u64);
    let peer = thread::spawn(move || {
        let huge = vec![0; CAPACITY];
        let bad = [Frame::new(TOPIC, b"one"), Frame::new(TOPIC, &huge)];
        let error = channel.publish_frames(bad, Some(WATCHDOG));
        let error = error.expect_err("never fits");
        assert!(
            matches!(error.source, ChannelError::TooLarge { .. }),
            "{error}"
        );
        assert_eq!(error.published, 1);
        let bad = [Frame::new(TOPIC, b"two"), Frame::new(1, b"")];
        let error = channel.publish_frames(bad, Some(WATCHDOG));
        let text = error.expect_err("reserved").to_string();
        assert!(
            text.contains("published=1: topic_id=1 is reserved"),
            "{text}"
        );
        channel
    });
    for expected in frames.take(published) {
        assert!(server.recv().expect("a frame") == *expected);
    }
    for expected in [b"one", b"two"] {
        assert_eq!(server.recv().expect("a frame"), expected);
    }
    peer.join().expect("peer");
}

macro_rules! suite {
    ($($case:ident)*; $($module:ident: $fixture:ident)*) => {
        suite!(@ [$($case)*] $($module: $fixture)*);
    };
    (@ $cases:tt $($module:ident: $fixture:ident)*) => {
        $(suite!(@@ $cases $module: $fixture);)*
    };
    (@@ [$($case:ident)*] $module:ident: $fixture:ident) => {
        mod $module {
            $(
                #[test]
                fn $case() {
                    super::$case::<super::$fixture>();
                }
            )*
        }
    };
}

suite! {
    every_size_arrives_in_order_with_its_content
    back_pressure_loses_nothing
    what_was_sent_before_a_clean_close_is_read
    what_a_killed_process_had_sent_is_read
    a_payload_over_the_limit_is_refused_before_anything_is_written
    a_successor_gets_what_was_not_acknowledged
    requests_are_answered_while_application_frames_wait_for_room
    an_idle_side_sleeps
    a_shutdown_comes_behind_what_was_sent
    a_full_stream_takes_far_fewer_calls_than_messages
    a_burst_is_one_send_or_at_most_one_wakeup
    a_burst_that_ends_early_says_how_many_went_out;
    shm: Shm
    shm_fenced: ShmFenced
    shm_file: ShmFile
    shm_file_fenced: ShmFileFenced
    unix: Unix
    tcp: Tcp
    pipes: Pipes
}

#[test]
fn shared_memory_over_a_stream_without_descriptors_is_refused_with_the_reason() {
    for (theirs, kind) in [(Tcp::streams(), "tcp"), (Pipes::streams(), "pipes")] {
        let options = ConnectOptions::default().over(TransportRequest::Shm);
        let error = Channel::from_stream(theirs.1, &options).expect_err("impossible");
        assert!(matches!(error, HandshakeError::ShmRequired { .. }));
        let text = error.to_string();
        assert!(text.contains(kind) && text.contains("REMOTE"), "{text}");
    }
}

#[test]
fn a_link_without_shared_memory_knows_why() {
    let (tcp, _server) = link::<Tcp>();
    assert_eq!(tcp.fallback().expect("a reason").code_name(), "REMOTE");
    let (unix, _server) = link::<Unix>();
    assert_eq!(unix.fallback().expect("a reason").code_name(), "REQUESTED");
}
