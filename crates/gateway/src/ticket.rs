//! A place in the line of a service.

/// A place in the line. They are in the order of turns, and of coming in each turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket {
    pub(crate) turn: u64,
    pub(crate) id: u64,
}
