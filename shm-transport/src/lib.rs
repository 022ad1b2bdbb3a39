//! Duplex links between processes of one host: two single-producer single-consumer rings in one shared memory file,
//! a UNIX socket for the handshake, control frames and the peer's death, and one doorbell per side for wakeups. Where
//! shared memory is not to be had, the same frames go over a byte stream behind the same API.
//!
//! It is not a queue for many producers or consumers, and it makes no promise beyond at-least-once. Fan-out by topic
//! is the business of the bridge.
//!
//! ```
//! use shm_transport::frame::FrameHeader;
//! use shm_transport::ring::{Consumer, Producer, RingMemory};
//!
//! let memory = RingMemory::heap(4096)?;
//! let mut producer = Producer::attach(memory.clone())?;
//! let mut consumer = Consumer::attach(memory)?;
//!
//! let mut reservation = producer.try_reserve(FrameHeader::new(1001, 5))?;
//! reservation.copy_from_slice(b"hello");
//! reservation.commit();
//!
//! let guard = consumer.try_read()?.expect("a frame was committed");
//! assert_eq!(guard.frame().to_vec(), b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! | feature | default | what |
//! |---|---|---|
//! | `json` | yes | values of dynamic messages in JSON |
//! | `msgpack` | no | values of dynamic messages in MessagePack |
//! | `tls` | no | `tls:` addresses; needs a C compiler to build |
//! | `tokio` | no | `channel::AsyncChannel`: the waits as futures, and a stream of frames |
//!
//! # Modules
//!
//! | module | what | may use |
//! |---|---|---|
//! | [`frame`] | the frame header: bytes in, value out | `layout` |
//! | [`layout`] | every offset, with the picture | |
//! | [`ring`] | the ring over any memory; no system calls | `frame`, `layout` |
//! | [`segment`] | the shared memory file | `ring` for its memory handle |
//! | [`wakeup`] | doorbell, heavy fence, wait strategy | |
//! | [`socket`] | byte streams of every kind, frames over them | `frame`, `ring` for its frame and slices |
//! | [`pump`] | moves frames between rings and a stream | `ring`, `socket`, `wakeup` |
//! | [`channel`] | handshake, and all of the above put together | all |
//!
//! # Safety model
//!
//! Shared memory is the world's data. Words that the peer can write are loaded once, range-checked, and used from the
//! local copy; payloads are copied out. A peer that breaks the rules garbles its own messages and gets an
//! [`error::Corrupt`] that names the field, its value and the legal range. `unsafe` is confined to `ring`, `segment`,
//! `socket`, `wakeup` and one function of `channel::AsyncChannel`.
//!
//! A memory file is sealed, so its length is what it was when it was mapped. One in a directory
//! ([`segment::Backing::File`]) cannot be sealed, and is taken from the own user and from root only.

#![deny(unsafe_code)]
// Under the model checker only the ring is built, and nobody uses the rest of what it stands on.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

#[cfg(not(loom))]
pub mod channel;
pub mod disable;
pub mod error;
pub mod frame;
pub mod layout;
pub mod payload;
#[cfg(not(loom))]
pub mod pump;
#[allow(unsafe_code)]
pub mod ring;
#[cfg(not(loom))]
#[allow(unsafe_code)]
pub mod segment;
#[cfg(not(loom))]
#[allow(unsafe_code)]
pub mod socket;
mod sync;
#[cfg(not(loom))]
#[allow(unsafe_code)]
pub mod wakeup;
