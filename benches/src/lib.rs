//! Measurements with criterion; each file in `benches/` answers one question. Run them with `make bench`.
//!
//! `ring`: what does a frame cost that goes through a ring on one thread, against a copy of its bytes?
//! `link_round_trip`: how long is a round trip over a link, in shared memory against the socket, spinning and parked?
