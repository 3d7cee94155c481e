//! Whether a build that has ended is to run again, because its sources changed while it ran.
//!
//! A user who saves a file during a build wants one more build. A build that writes its own sources,
//! as a generator of code with a time stamp does, wants none: it would run for ever.

use std::{collections::BTreeSet, path::PathBuf};

/// Builds in a row that only what the build itself may have written has asked for. After so many it
/// is taken for sure.
const MAX_OWN: u32 = 2;

/// What is known of a build's habits.
#[derive(Debug, Default)]
pub(super) struct Again {
    /// What the build that runs, or ran last, was begun for.
    cause: BTreeSet<PathBuf>,
    /// Whether the cause is what had changed during the build before.
    follows: bool,
    /// How often in a row the same files changed in each build that they were the cause of.
    repeats: u32,
    /// Files that the build writes itself.
    own: BTreeSet<PathBuf>,
}

/// What to do about what changed during a build.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: nothing changed that the build does not write itself.
    Rest,
    /// Another build.
    Build,
    /// Nothing, and the user is to know that the build writes these files.
    Own(BTreeSet<PathBuf>),
}

impl Again {
    /// A build begins, because these files have changed.
    pub(super) fn begin(&mut self, cause: BTreeSet<PathBuf>) {
        self.cause = cause;
    }

    /// A build has ended, and these files changed while it ran.
    pub(super) fn ended(&mut self, during: BTreeSet<PathBuf>) -> Verdict {
        let during: BTreeSet<_> = during.difference(&self.own).cloned().collect();
        if during.is_empty() {
            (self.follows, self.repeats) = (false, 0);
            return Verdict::Rest;
        }
        self.repeats = match self.follows && during.is_subset(&self.cause) {
            true => self.repeats + 1,
            false => 0,
        };
        if self.repeats < MAX_OWN {
            self.follows = true;
            return Verdict::Build;
        }
        (self.follows, self.repeats) = (false, 0);
        self.own.extend(during.iter().cloned());
        Verdict::Own(during)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(paths: &[&str]) -> BTreeSet<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    /// Each build: its cause, what changes during it, and what comes of it.
    fn builds(again: &mut Again, builds: &[(&[&str], &[&str], Verdict)]) {
        for (number, (cause, during, wanted)) in builds.iter().enumerate() {
            again.begin(set(cause));
            assert_eq!(again.ended(set(during)), *wanted, "build {number}");
        }
    }

    #[test]
    fn a_save_during_a_build_is_one_more_build() {
        let mut again = Again::default();
        let saved: &[(&[&str], &[&str], Verdict)] = &[
            (&["main"], &["main"], Verdict::Build),
            (&["main"], &[], Verdict::Rest),
            (&["main"], &["main", "lib"], Verdict::Build),
            (&["main", "lib"], &["lib"], Verdict::Build),
            (&["lib"], &["other"], Verdict::Build),
            (&["other"], &["other"], Verdict::Build),
            (&["other"], &[], Verdict::Rest),
        ];
        builds(&mut again, saved);
        builds(&mut again, saved);
    }

    #[test]
    fn a_build_that_writes_its_sources_comes_to_an_end() {
        let mut again = Again::default();
        builds(
            &mut again,
            &[
                (&["main"], &["gen"], Verdict::Build),
                (&["gen"], &["gen"], Verdict::Build),
                (&["gen"], &["gen"], Verdict::Own(set(&["gen"]))),
                // From now on it is known.
                (&["main"], &["gen"], Verdict::Rest),
                (&["main"], &["gen", "main"], Verdict::Build),
                (&["main"], &["gen"], Verdict::Rest),
                // A user who changes such a file between two builds is heard.
                (&["gen"], &["gen"], Verdict::Rest),
            ],
        );
    }
}
