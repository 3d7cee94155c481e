//! Nodes: whether one takes pods, and whether it is done when it is drained.

use std::fmt;

/// How a node is.
///
/// ```text
///            cordon                  drain                 no pods left
///     Ready ◀──────▶ Cordoned   any ───────▶ Draining ──────────────────▶ Drained
///            uncordon                ◀───────────── uncordon ────────────────┘
///
///     any, without a session ──▶ Lost ──▶ what it was, with a session again
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeState {
    /// It takes pods.
    Ready,
    /// It keeps the pods that it has, and takes no others.
    Cordoned,
    /// Its pods are replaced elsewhere.
    Draining,
    /// It was drained and has no pods any more.
    Drained,
    /// It has no session: it has ended, or reaches no member of etcd.
    Lost,
}

impl NodeState {
    /// How a node is that has a session or not, of which this is wanted, and that has so many pods.
    pub fn of(has_session: bool, is_cordoned: bool, is_draining: bool, pods: usize) -> Self {
        match (has_session, is_draining, is_cordoned) {
            (false, _, _) => Self::Lost,
            (true, true, _) if pods == 0 => Self::Drained,
            (true, true, _) => Self::Draining,
            (true, false, true) => Self::Cordoned,
            (true, false, false) => Self::Ready,
        }
    }

    /// Whether it takes pods.
    pub fn takes_pods(self) -> bool {
        match self {
            Self::Ready => true,
            Self::Cordoned | Self::Draining | Self::Drained | Self::Lost => false,
        }
    }

    /// Why its pods are to go, as the end of a sentence about one of them.
    pub fn evicts(self) -> Option<&'static str> {
        match self {
            Self::Ready | Self::Cordoned => None,
            Self::Draining | Self::Drained => Some("is drained"),
            Self::Lost => Some("is lost"),
        }
    }

    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Cordoned => "Cordoned",
            Self::Draining => "Draining",
            Self::Drained => "Drained",
            Self::Lost => "Lost",
        }
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_node_is_follows_from_its_session_what_is_wanted_and_its_pods() {
        use NodeState::{Cordoned, Drained, Draining, Lost, Ready};
        for (session, cordoned, draining, pods, state) in [
            (true, false, false, 0, Ready),
            (true, false, false, 3, Ready),
            (true, true, false, 0, Cordoned),
            (true, true, false, 3, Cordoned),
            (true, false, true, 3, Draining),
            (true, true, true, 1, Draining),
            (true, true, true, 0, Drained),
            (true, false, true, 0, Drained),
            (false, false, false, 3, Lost),
            (false, true, false, 3, Lost),
            (false, true, true, 0, Lost),
        ] {
            let found = NodeState::of(session, cordoned, draining, pods);
            assert_eq!(found, state, "{session} {cordoned} {draining} {pods}");
            assert_eq!(found.takes_pods(), state == Ready);
            let evicts = !matches!(state, Ready | Cordoned);
            assert_eq!(found.evicts().is_some(), evicts, "{state}");
        }
    }
}
