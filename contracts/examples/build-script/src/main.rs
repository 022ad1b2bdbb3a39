//! Writes a message and reads it back, with a type that the build script generated.

#[allow(
    dead_code,
    reason = "generated for every use, and this program has one"
)]
mod contracts {
    include!(concat!(env!("OUT_DIR"), "/contracts.rs"));
}

use contracts::Reading;
use mycelium_messages::{InlineString, Message};
use zerocopy::{FromBytes, IntoBytes};

fn main() -> Result<(), mycelium_messages::ValidationError> {
    let reading = Reading {
        time_ns: 1_700_000_000_000_000_000,
        celsius: 21.5,
        sensor: InlineString::new("roof")?,
    };
    reading.validate()?;
    let bytes = reading.as_bytes();
    let read = Reading::read_from_bytes(bytes).expect("the bytes of a Reading");
    read.validate()?;
    println!(
        "{} bytes on topic {} '{}': sensor={} celsius={}",
        bytes.len(),
        Reading::TOPIC_ID,
        Reading::TOPIC,
        read.sensor.as_str().expect("validated"),
        read.celsius
    );
    Ok(())
}
