//! The guests there are, and what each is compiled for.

/// A guest: a package of this workspace that becomes a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guest {
    /// The name of the package and of its component.
    pub(crate) name: &'static str,
    /// What it needs of the standard library.
    pub(crate) base: Base,
}

/// How a guest reaches its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    /// Through bindings alone. `std` has no files, clocks or output here, and the component imports
    /// nothing that the guest does not call.
    Bare,
    /// Through `std` on WASI 0.1 and an adapter, as a library whose exports are called.
    Reactor,
    /// Through `std` on WASI 0.1 and an adapter, as a program with a `main`.
    Command,
    /// Through `std` on WASI 0.2, which has sockets, as a library whose exports are called: the linker
    /// makes the component.
    Library,
    /// Through `std` on WASI 0.2, as a program with a `main`: the linker makes the component.
    Program,
}

impl Base {
    /// The target that `rustc` compiles for.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::Bare => "wasm32-unknown-unknown",
            Self::Reactor | Self::Command => "wasm32-wasip1",
            Self::Library | Self::Program => "wasm32-wasip2",
        }
    }
}

/// All guests, in the order in which they are built.
pub(crate) const ALL: &[Guest] = &[
    Guest {
        name: "hello",
        base: Base::Bare,
    },
    Guest {
        name: "echo",
        base: Base::Bare,
    },
    Guest {
        name: "counter",
        base: Base::Bare,
    },
    Guest {
        name: "slow",
        base: Base::Bare,
    },
    Guest {
        name: "hostile",
        base: Base::Bare,
    },
    Guest {
        name: "caller",
        base: Base::Library,
    },
    Guest {
        name: "chain",
        base: Base::Bare,
    },
    Guest {
        name: "deadlock-self",
        base: Base::Bare,
    },
    Guest {
        name: "deadlock-self-p3",
        base: Base::Bare,
    },
    Guest {
        name: "slow-but-live",
        base: Base::Bare,
    },
    Guest {
        name: "slow-but-live-p3",
        base: Base::Bare,
    },
    Guest {
        name: "flaky-ready",
        base: Base::Bare,
    },
    Guest {
        name: "slow-start",
        base: Base::Bare,
    },
    Guest {
        name: "crash-loop",
        base: Base::Bare,
    },
    Guest {
        name: "leaky",
        base: Base::Bare,
    },
    Guest {
        name: "health",
        base: Base::Bare,
    },
    Guest {
        name: "health-p3",
        base: Base::Bare,
    },
    Guest {
        name: "hello-p3",
        base: Base::Library,
    },
    Guest {
        name: "stream-p3",
        base: Base::Bare,
    },
    Guest {
        name: "sockets-p3",
        base: Base::Bare,
    },
    Guest {
        name: "trespasser",
        base: Base::Bare,
    },
    Guest {
        name: "trespasser-p3",
        base: Base::Bare,
    },
    Guest {
        name: "visits",
        base: Base::Bare,
    },
    Guest {
        name: "visits-p3",
        base: Base::Bare,
    },
    Guest {
        name: "worker",
        base: Base::Bare,
    },
    Guest {
        name: "command-p3",
        base: Base::Bare,
    },
    Guest {
        name: "database",
        base: Base::Library,
    },
    Guest {
        name: "sqlite",
        base: Base::Reactor,
    },
    Guest {
        name: "env-and-files",
        base: Base::Reactor,
    },
    Guest {
        name: "command",
        base: Base::Command,
    },
    Guest {
        name: "shop-api",
        base: Base::Library,
    },
    Guest {
        name: "shop-web",
        base: Base::Library,
    },
    Guest {
        name: "shop-ledger",
        base: Base::Program,
    },
    Guest {
        name: "shop-migrate",
        base: Base::Program,
    },
    Guest {
        name: "shop-report",
        base: Base::Program,
    },
    Guest {
        name: "shop-worker",
        base: Base::Program,
    },
];
