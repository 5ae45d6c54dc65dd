# What CI checks, and nothing else: all of it, or some stages: just verify fmt clippy test
verify *stages:
    .ci/run {{stages}}

# Mends what a program can mend.
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty
    cargo fmt --all

# The warehouse that survives.
demo:
    cargo run --release -- testnet demo

# What is handed out: the program, with a list of its crates in it (cargo-auditable, which cargo-audit and others read), and the
# same list beside it as CycloneDX (cargo-sbom). Both tools come from crates.io: cargo install --locked cargo-auditable cargo-sbom
dist:
    cargo auditable build --package skep --profile dist --locked
    cargo sbom --cargo-package skep --output-format cyclone_dx_json_1_4 > target/dist/skep.cdx.json

# More of what CI does a little of: whole sites and real Raft in virtual time, chaos and power cuts on real processes.
prove:
    cargo run --package skep-tests --release --bin sim -- --seeds 20000
    cargo run --package skep-tests --release --bin sim -- --hosts 200 --seeds 50
    cargo run --package skep-tests --release --bin sim -- --lies robot --seeds 2000
    cargo run --package skep-tests --release --bin sim -- --lies voter --seeds 2000
    SKEP_SIM_SEEDS=2000 cargo test --package skep-consensus --release --lib simulation
    cargo run --release -- testnet chaos --minutes 30
    cargo run --release -- testnet chaos --links mixed --minutes 30
    cargo run --release -- testnet chaos --faults disks --minutes 60
    cargo build --package skep-tests --release --bin rogue
    cargo run --release -- testnet chaos --minutes 60 --bad-robot target/release/rogue
    cargo run --release -- bench links --one-way 0,35,140,300
    SKEP_MANY=57 cargo test --package skep-tests --release --test many -- --nocapture
    cargo run --release -- bench failover --others 57
    cargo run --release -- testnet power --cuts 50
    cargo run --package skep-tests --bin mutants
