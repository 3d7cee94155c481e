//! Where a line that a pod has printed comes from: as it is kept, and as it is shown.

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineKind {
    /// The guest's standard output.
    Stdout,
    /// The guest's standard error.
    Stderr,
    /// The host, about the guest.
    Host,
    /// The guest through `wasi:logging`, at a level.
    Trace,
    /// The same.
    Debug,
    /// The same.
    Info,
    /// The same.
    Warn,
    /// The same.
    Error,
    /// The same.
    Critical,
}

/// All of them, each at the place of the number that it is kept as.
const ALL: [LineKind; 9] = [
    LineKind::Stdout,
    LineKind::Stderr,
    LineKind::Host,
    LineKind::Trace,
    LineKind::Debug,
    LineKind::Info,
    LineKind::Warn,
    LineKind::Error,
    LineKind::Critical,
];

impl LineKind {
    /// The number that it is kept as.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The one that is kept as this number. What a later version has written is the host's.
    pub fn of(code: u8) -> Self {
        ALL.get(usize::from(code)).copied().unwrap_or(Self::Host)
    }

    /// What `stream` of a line says.
    pub fn stream(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Host => "host",
            Self::Trace | Self::Debug | Self::Info | Self::Warn | Self::Error | Self::Critical => {
                "log"
            }
        }
    }

    /// What `level` of a line says.
    pub fn level(self) -> Option<&'static str> {
        match self {
            Self::Stdout | Self::Stderr | Self::Host => None,
            Self::Trace => Some("trace"),
            Self::Debug => Some("debug"),
            Self::Info => Some("info"),
            Self::Warn => Some("warn"),
            Self::Error => Some("error"),
            Self::Critical => Some("critical"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_read_as_what_it_was_written() {
        for kind in ALL {
            assert_eq!(LineKind::of(kind.code()), kind);
            assert_eq!(kind.level().is_some(), kind.stream() == "log");
        }
        assert_eq!(LineKind::of(200), LineKind::Host);
    }
}
