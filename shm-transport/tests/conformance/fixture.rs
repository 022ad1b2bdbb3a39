//! How the two sides of a link are connected, and what every case begins with.

use std::io::PipeReader;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use shm_transport::channel::{Channel, ConnectOptions, Transport};
use shm_transport::error::ChannelError;
use shm_transport::ring::Frame;
use shm_transport::segment::{Backing, Segment, SegmentOptions};
use shm_transport::socket::Stream;

use crate::cargo::cargo;
use crate::server::{Memory, Server};

pub(crate) const CAPACITY: usize = 64 * 1024;
pub(crate) const TOPIC: u16 = 1001;

/// How the two sides of a link are connected.
pub(crate) trait LinkFixture {
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

pub(crate) struct Shm;
pub(crate) struct ShmFenced;
pub(crate) struct ShmFile;
pub(crate) struct ShmFileFenced;
pub(crate) struct Unix;
pub(crate) struct Tcp;
pub(crate) struct Pipes;

/// The peer program. A test run that names its targets does not build examples, so this does.
fn example() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| {
        // In the workspace's folder, so that its dependencies have the features that they have already been built with.
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let built = cargo(&workspace)
            .args(["build", "--quiet", "--example", "echo"])
            .status();
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

pub(crate) fn memory<F: LinkFixture>() -> Memory {
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

pub(crate) fn accept<F: LinkFixture>(stream: Stream, memory: Memory) -> Server {
    Server::accept(stream, memory, F::FENCED)
}

pub(crate) fn join<F: LinkFixture>(memory: Memory) -> (Channel, Server) {
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

pub(crate) fn link<F: LinkFixture>() -> (Channel, Server) {
    join::<F>(memory::<F>())
}

pub(crate) fn payload(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 131 + at * 7) as u8).collect()
}

pub(crate) fn send(
    channel: &mut Channel,
    payload: &[u8],
    timeout: Option<Duration>,
) -> Result<(), ChannelError> {
    channel.publish_frame(&Frame::new(TOPIC, payload), timeout)
}
