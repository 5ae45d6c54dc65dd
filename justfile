# The read-only gate: what CI checks.
verify:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo test --workspace --locked
    cargo deny check bans licenses

# Mends what a program can mend.
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty
    cargo fmt --all

# The warehouse that survives.
demo:
    cargo run --release -- testnet demo
