//! The program's own log: what it has to say about itself, apart from what guests print.

use std::io::{self, Write};

use sampan_core::escape;
use tracing_subscriber::{
    filter::LevelFilter,
    fmt::{self, format::FmtSpan},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// The variable that sets the level: `error`, `warn` (the default), `info`, `debug`, `trace`, `off`.
const LEVEL_VARIABLE: &str = "SAMPAN_LOG";

/// Sends the program's log to standard error, unless a log has been set up before.
pub(crate) fn start() {
    let level = std::env::var(LEVEL_VARIABLE)
        .ok()
        .and_then(|level| level.parse().ok());
    let layer = fmt::layer()
        .with_writer(|| Lines(io::stderr()))
        .with_target(false)
        // A request is a span: its line comes with the last byte of its answer.
        .with_span_events(FmtSpan::CLOSE)
        .without_time();
    // Only the first call of a process counts.
    let _ = tracing_subscriber::registry()
        .with(layer)
        .with(level.unwrap_or(LevelFilter::WARN))
        .try_init();
}

/// Writes each piece as one line, in which nothing is obeyed: an error may have text of a guest or
/// of a file in it. The log comes here an event at a time.
struct Lines<W>(W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = escape::bytes(event.strip_suffix(b"\n").unwrap_or(event));
        writeln!(self.0, "{}", escape::line(&text))?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let mut written = Vec::new();
        let event = b"WARN cannot read it error=a\nweb | forged \x1b[2J\xe2\x80\xae \xff\n";
        Lines(&mut written).write_all(event).expect("memory");
        let line = "WARN cannot read it error=a\\nweb | forged \\u{1b}[2J\\u{202e} \\xff\n";
        assert_eq!(String::from_utf8(written).as_deref(), Ok(line));
    }
}
