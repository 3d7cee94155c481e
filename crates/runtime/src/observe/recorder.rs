//! The flight recorder of an instance: the last host calls it made.

use std::time::Instant;

/// Calls that are kept.
pub(crate) const KEPT: usize = 32;

/// The last calls of an instance into the host.
///
/// Calls that only look something up are counted, not recorded: a clock is read for each one that
/// is.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    calls: [Option<(&'static str, Instant)>; KEPT],
    made: usize,
    counted: usize,
}

impl Recorder {
    pub(crate) fn note(&mut self, function: &'static str) {
        self.calls[self.made % KEPT] = Some((function, Instant::now()));
        self.made += 1;
    }

    /// Counts a call that only looks something up.
    pub(crate) fn count(&mut self) {
        self.counted += 1;
    }

    /// Calls since the instance was made.
    pub(crate) fn made(&self) -> usize {
        self.made + self.counted
    }

    /// The last calls, the oldest first.
    pub(crate) fn last(&self) -> impl Iterator<Item = (&'static str, Instant)> {
        let start = self.made % KEPT;
        let (newer, older) = self.calls.split_at(start);
        older.iter().chain(newer).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_calls_are_kept_in_order() {
        let names: Vec<&'static str> = (0..KEPT * 2 + 5)
            .map(|n| &*Box::leak(n.to_string().into_boxed_str()))
            .collect();
        let mut recorder = Recorder::default();
        for (count, name) in (1..).zip(&names) {
            recorder.note(name);
            let kept: Vec<_> = recorder.last().map(|(name, _)| name).collect();
            assert_eq!(kept, names[count - count.min(KEPT)..count]);
        }
        assert_eq!(recorder.made(), names.len());
    }
}
