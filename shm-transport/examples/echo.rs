//! A peer that sends back every frame that it gets: `echo ADDRESS`, for example `echo tcp:127.0.0.1:7001`, or `echo stdio:`
//! as the child of a program that holds the other ends of its standard input and output.

use std::process::ExitCode;

use shm_transport::channel::{Channel, ConnectOptions};
use shm_transport::error::ChannelError;
use shm_transport::ring::Frame;

fn main() -> ExitCode {
    let Some(address) = std::env::args().nth(1) else {
        return fail("no address; use echo ADDRESS");
    };
    match echo(&address) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn echo(address: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut channel = Channel::connect(address, &ConnectOptions::default().named("echo"))?;
    loop {
        let (topic_id, payload) = match channel.recv(None) {
            Ok(frame) => (frame.topic_id(), frame.to_vec()),
            Err(ChannelError::Closed { .. }) => return Ok(channel.close()?),
            Err(error) => return Err(error.into()),
        };
        channel.publish_frame(&Frame::new(topic_id, &payload), None)?;
    }
}

#[allow(clippy::print_stderr)]
fn fail(why: &str) -> ExitCode {
    eprintln!("echo: {why}");
    ExitCode::FAILURE
}
