# `just` lists what there is; `.ci/run` is what must pass before a merge.

set shell := ["bash", "-euo", "pipefail", "-c"]

_list:
    @just --list --unsorted

# Does it compile? The fastest answer.
check:
    cargo check --workspace --all-targets --locked

# All tests, or those whose names contain FILTER.
test *FILTER:
    cargo test --workspace --locked {{ FILTER }}

# The tables of benches/README.md for this machine and day; WASMTIME and SPIN name peers.
figures PROFILE="dist":
    cargo bench --profile {{ PROFILE }} --locked --bench gateway
    python3 benches/peers/run.py --sampan target/{{ PROFILE }}/sampan

# Three nodes and three members of etcd under load, while they die, hang and drain.
cluster-faults:
    SAMPAN_FAULTS=1 cargo test --profile dist --locked --test it cluster::faults -- --nocapture

# The structural rules alone, in two seconds.
tidy: _tidy
    target/ci/tidy --quiet

_tidy:
    mkdir -p target/ci
    rustc --edition 2024 --test tests/tidy.rs -o target/ci/tidy

# Which file of a crate names what of which other, from the ground up.
modules: _tidy
    target/ci/tidy --ignored --nocapture print_the_modules

# Writes the table of layers in ARCHITECTURE.md.
layers: _tidy
    target/ci/tidy --ignored --quiet write_the_layers

# Every warning is an error.
lint:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Formats the daemon, the guests and the fuzz targets.
fmt:
    cargo fmt --all
    cargo fmt --all --manifest-path workloads/Cargo.toml
    cargo fmt --all --manifest-path fuzz/Cargo.toml

# The documentation of the code; a broken link in it is an error.
docs:
    RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --locked

# The binary to package or to measure, optimised across crates: target/dist/sampan.
dist:
    cargo build --profile dist --locked

# The benchmarks, or those whose names contain a word of ARGS, optimised like a packaged binary.
bench *ARGS:
    cargo bench --profile dist --workspace --locked {{ ARGS }}

# Runs the app of a spec file until Ctrl-C.
up SPEC="sampan.toml" *ARGS:
    cargo run --release --locked -- up -f {{ SPEC }} {{ ARGS }}

# Builds the guests, or those named, into workloads/dist/.
guests *NAMES:
    cd workloads && cargo run --locked -p xtask -- build {{ NAMES }}

# Throws random input at what strangers may write, each target for SECONDS (needs cargo-fuzz and a
# C++ compiler). Without a sanitizer, which only nightly compilers have: there is no unsafe code to find.
fuzz SECONDS="60":
    mkdir -p target/fuzz/{spec,filter,route}
    cd fuzz && cargo fuzz run -s none spec ../target/fuzz/spec ../tests/ui/spec -- -max_total_time={{ SECONDS }} -timeout=5 -artifact_prefix=../target/fuzz/
    cd fuzz && cargo fuzz run -s none filter ../target/fuzz/filter seeds/filter -- -max_total_time={{ SECONDS }} -timeout=5 -artifact_prefix=../target/fuzz/
    cd fuzz && cargo fuzz run -s none route ../target/fuzz/route seeds/route -- -max_total_time={{ SECONDS }} -timeout=5 -artifact_prefix=../target/fuzz/

# Licences, sources, banned crates and known vulnerabilities of the dependencies (needs cargo-deny).
deny:
    cargo deny --locked check

# All that must pass before a merge.
ci:
    .ci/run
