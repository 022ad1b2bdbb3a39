//! Writes a message and reads it back, with a type whose code is committed.

mod contracts;

use contracts::{Reading, ReadingFields};
use mycelium_messages::Message;
use zerocopy::IntoBytes;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let reading = Reading::new(ReadingFields {
        time_ns: 1_700_000_000_000_000_000,
        celsius: 21.5,
        sensor: "roof",
    })?;
    let bytes = reading.as_bytes();
    let read: &Reading = bytes.try_into()?;
    println!(
        "{} bytes on topic {} '{}': sensor={} celsius={}",
        bytes.len(),
        Reading::TOPIC_ID,
        Reading::TOPIC,
        read.sensor()?,
        read.celsius
    );
    Ok(())
}
