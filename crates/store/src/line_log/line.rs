//! A line as it is kept, and how it is counted.

use std::sync::Arc;

/// The `pod` of a line about all of them.
pub(super) const NO_POD: i64 = 0;
/// What a line takes besides its text.
const LINE_BYTES: u64 = 64;
/// The same as SQL, for a line that is there.
pub(super) const SIZE: &str = "octet_length(text) + ifnull(octet_length(request), 0) + 64";
/// The pod that a line is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogSource {
    /// Its app.
    pub app: String,
    /// Its service or job.
    pub service: String,
    /// Its name.
    pub pod: String,
}

/// A line as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedLine {
    /// Its number. Each later line of the node has a higher one.
    pub seq: u64,
    /// When it was printed, in milliseconds since the beginning of 1970.
    pub time_ms: u64,
    /// The pod that printed it; `None` for what the node says of all of them.
    pub source: Option<Arc<LogSource>>,
    /// Where it comes from, as a number of the caller.
    pub kind: u8,
    /// The request that was being answered.
    pub request: Option<String>,
    /// The text.
    pub text: String,
    /// Whether the pod's next line goes on with it.
    pub partial: bool,
}

impl LoggedLine {
    /// What it counts.
    pub(super) fn bytes(&self) -> u64 {
        let request = self.request.as_ref().map_or(0, String::len);
        LINE_BYTES + (self.text.len() + request) as u64
    }
}

/// Where an incarnation of a pod begins: the number of the first line that could be of it.
pub type LogBegin = (u64, Arc<LogSource>);

/// Numbers beyond what SQLite can hold are the largest that it can.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
