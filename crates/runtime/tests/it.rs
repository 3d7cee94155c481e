//! The runtime with real guests: those of `workloads/`, and hostile ones written as text.

mod it {
    //! In a module of its own, so that the files lie in a directory of their own.

    mod admission;
    mod answers;
    mod cache;
    mod commands;
    mod compiling;
    mod coredumps;
    mod cpu;
    mod denied;
    mod explained;
    mod files;
    mod giving_up;
    mod grants;
    mod handover;
    mod keyvalue;
    mod lasting;
    mod logs;
    mod maps;
    mod memory;
    mod node_limits;
    mod outbound;
    mod probes;
    mod remains;
    mod renewal;
    mod rig;
    mod secrets;
    mod slots;
    mod sockets;
    mod streams;
    mod templates;
    mod text;
    mod volumes;
    mod waits;
    mod watchdog;
}

/// Not a test: what this binary runs when it starts itself as the compiling process.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the exit code is what the parent reads, and the test harness has its own"
)]
fn compile_child() {
    use sampan_runtime::artifact::compile::child;
    if child::is_wanted() {
        std::process::exit(child::run());
    }
}
