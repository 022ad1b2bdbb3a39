//! What this program can measure by itself: the forms of the transport, and the floors under them.
//!
//! | carrier | what |
//! |---|---|
//! | `ring` | a segment and its doorbells between two processes; waiting as the case says |
//! | `channel` | the same, with [`Channel`](shm_transport::channel::Channel) on the measuring side |
//! | `fallback`, `fallback-tcp` | frames over a UNIX or TCP socket, batched |
//! | `channel-socket`, `channel-tcp` | `Channel` over a UNIX or TCP socket on the measuring side |
//! | `cacheline` | floor: a cache line each way, written by one thread and polled by the other |
//! | `cacheline-one` | one cache line that two threads write in turn |
//! | `memcpy` | floor: bytes copied into and out of memory of the ring's size, on one core |
//! | `memcpy-hot` | the same through one buffer of the message's size |

pub mod bridge;
mod channel;
mod fallback;
mod floors;
mod ring;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use mycelium_bench_harness::{CaseArgs, Failure, PeerProcess, Sample};
use shm_transport::channel::TransportRequest;
use shm_transport::socket::Stream;

/// The topic of messages that are byte strings.
pub const TOPIC: u16 = 1001;

/// Which sockets a stream runs over.
#[derive(Debug, Clone, Copy)]
enum Family {
    Unix,
    /// The loopback interface, as the library sets it up: without waiting for more to send.
    Tcp,
}

impl Family {
    /// Two ends of a connection.
    fn pair(self) -> Result<[OwnedFd; 2], Failure> {
        match self {
            Self::Unix => {
                let (one, other) = UnixStream::pair().map_err(Failure::carrier("socketpair"))?;
                Ok([one.into(), other.into()])
            }
            Self::Tcp => {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                    .map_err(Failure::carrier("listen"))?;
                let address = listener.local_addr().map_err(Failure::carrier("listen"))?;
                let one = TcpStream::connect(address).map_err(Failure::carrier("connect"))?;
                let (other, _) = listener.accept().map_err(Failure::carrier("accept"))?;
                Ok([one.into(), other.into()])
            }
        }
    }
}

fn stream(fd: OwnedFd) -> Result<Stream, Failure> {
    Stream::from_socket(fd).map_err(Failure::carrier("stream"))
}

/// Measures a case.
///
/// # Errors
///
/// If there is no such carrier, or it fails or garbles a message.
pub fn measure(args: &CaseArgs) -> Result<Sample, Failure> {
    match args.carrier.as_str() {
        "ring" => ring::near(args),
        "channel" => channel::near(args, TransportRequest::Shm, Family::Unix),
        "channel-socket" => channel::near(args, TransportRequest::Socket, Family::Unix),
        "channel-tcp" => channel::near(args, TransportRequest::Socket, Family::Tcp),
        "fallback" => fallback::near(args, Family::Unix),
        "fallback-tcp" => fallback::near(args, Family::Tcp),
        "cacheline" => floors::cache_line(args, 2),
        "cacheline-one" => floors::cache_line(args, 1),
        "memcpy" => floors::memcpy(args, mycelium_bench_harness::link::RING_BYTES),
        "memcpy-hot" => floors::memcpy(args, args.payload),
        other => Err(Failure::Unknown(other.to_owned())),
    }
}

/// Runs the other side of a case, in the process that was started for it.
///
/// # Errors
///
/// As [`measure`].
pub fn answer(args: &CaseArgs) -> Result<(), Failure> {
    PeerProcess::begin()?;
    match args.carrier.as_str() {
        "ring" => ring::far(args),
        "channel" | "channel-socket" | "channel-tcp" => channel::far(args),
        "fallback" | "fallback-tcp" => fallback::far(args),
        other => Err(Failure::Unknown(other.to_owned())),
    }
}
