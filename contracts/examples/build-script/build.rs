//! Generates the messages of `contracts.yaml` into the folder that cargo gives to build scripts.

fn main() {
    mycelium_contracts::Build::new("contracts.yaml")
        .rust()
        .run();
}
