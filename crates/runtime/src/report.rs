//! What is reported of instances: how they ended, and why.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use sampan_core::name::PodName;

/// Members of a deadlock that a text names.
const MAX_SHOWN: usize = 10;
/// Characters of a request that a report keeps.
const MAX_REQUEST_CHARACTERS: usize = 200;

/// Keeps what is shown of a request short.
pub(crate) fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_REQUEST_CHARACTERS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// One instance of a deadlock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its pod.
    pub pod: PodName,
    /// The request it answers: `GET /path`, if it is one.
    pub request: Option<String>,
    /// The id of that request.
    pub request_id: Option<Arc<str>>,
    /// The host function it waits in.
    pub function: &'static str,
    /// For what.
    pub waits_for: String,
    /// For how long already.
    pub since: Duration,
}

/// A proven deadlock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deadlock {
    /// When it was proven.
    pub at: SystemTime,
    /// Everybody in it.
    pub members: Vec<Member>,
    /// Which of them was made to fail so that the others can go on.
    pub victim: usize,
    /// Whether a call of the victim failed, or the victim itself.
    pub failed_call: bool,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.pod)?;
        if let Some(request) = &self.request {
            write!(f, " ({request})")?;
        }
        let Self {
            function,
            waits_for,
            since,
            ..
        } = self;
        write!(
            f,
            " waits in `{function}` for {waits_for}, since {} ms",
            since.as_millis()
        )
    }
}

impl fmt::Display for Deadlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("proven deadlock: ")?;
        for (n, member) in self.members.iter().take(MAX_SHOWN).enumerate() {
            let separator = if n == 0 { "" } else { "; " };
            write!(f, "{separator}{member}")?;
        }
        if self.members.len() > MAX_SHOWN {
            write!(f, "; and {} more", self.members.len() - MAX_SHOWN)?;
        }
        let victim = &self.members[self.victim];
        match self.failed_call {
            true => write!(f, "; the call of `{}` fails", victim.pod),
            false => write!(f, "; `{}` is stopped", victim.pod),
        }
    }
}
