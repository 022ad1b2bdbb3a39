#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    shm_transport_fuzz::pump_stream(bytes);
});
