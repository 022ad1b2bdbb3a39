//! One suite for every way that frames can travel: whatever holds over shared memory holds over a stream.

#[path = "../../../tests/src/cargo.rs"]
mod cargo;
mod fixture;
mod frames;
mod life;
mod server;

use shm_transport::channel::{Channel, ConnectOptions, TransportRequest};
use shm_transport::error::HandshakeError;

use fixture::{LinkFixture as _, Pipes, Tcp, Unix, link};

macro_rules! suite {
    ($($about:ident::$case:ident)*; $($module:ident: $fixture:ident)*) => {
        suite!(@ [$($about::$case)*] $($module: $fixture)*);
    };
    (@ $cases:tt $($module:ident: $fixture:ident)*) => {
        $(suite!(@@ $cases $module: $fixture);)*
    };
    (@@ [$($about:ident::$case:ident)*] $module:ident: $fixture:ident) => {
        mod $module {
            $(
                #[test]
                fn $case() {
                    crate::$about::$case::<crate::fixture::$fixture>();
                }
            )*
        }
    };
}

suite! {
    frames::every_size_arrives_in_order_with_its_content
    frames::back_pressure_loses_nothing
    life::what_was_sent_before_a_clean_close_is_read
    life::what_a_killed_process_had_sent_is_read
    frames::a_payload_over_the_limit_is_refused_before_anything_is_written
    life::a_successor_gets_what_was_not_acknowledged
    life::requests_are_answered_while_application_frames_wait_for_room
    life::an_idle_side_sleeps
    life::a_shutdown_comes_behind_what_was_sent
    frames::a_full_stream_takes_far_fewer_calls_than_messages
    frames::a_burst_is_one_send_or_at_most_one_wakeup
    frames::a_burst_that_ends_early_says_how_many_went_out;
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
