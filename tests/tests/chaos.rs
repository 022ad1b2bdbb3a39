//! Random faults from one seed: kills, stops, full rings, dropped clients, reloads. Nothing that a policy promises to keep is
//! lost, and nobody else is disturbed. `make chaos` runs many of them, this is the short form.

use mycelium_tests::chaos;

/// A number in the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|error| panic!("{name}={text}: {error}; a number is needed")),
        Err(_) => otherwise,
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "a long run says how far it is")]
fn faults_lose_nothing_that_was_promised() {
    let seed = number("CHAOS_SEED", 1);
    let count = number("CHAOS_FAULTS", 150);
    let rust = env!("CARGO_BIN_EXE_chaos-peer").into();
    chaos::run(seed, count, rust, |line| println!("{line}"));
}
