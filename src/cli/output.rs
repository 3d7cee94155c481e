//! Everything the program prints. No other file prints.
//!
//! Nothing that a guest, a file or another user wrote is obeyed by a terminal, or looks like a line
//! of its own in a pipe: all text is escaped here, but for pictures of `top` and styles.
//!
//! Data goes to standard output, talk to standard error. Colour is only for a terminal, and never
//! the only carrier of a meaning.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal as _, Write as _},
    sync::{Arc, OnceLock},
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use sampan_core::{escape, spec::Problems, time::Took};
use serde::Serialize;

use super::End;

const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Colours of service names, in turn.
const NAMES: [AnsiColor; 6] = [
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
];
/// Time between two pictures of a spinner.
const SPINNER_TICK: Duration = Duration::from_millis(100);
/// Parts of a bar's length.
const BAR_LENGTH: u64 = 1000;

/// How large a terminal is, in letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// Where a line goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// Standard output: the data that was asked for.
    Out,
    /// Standard error: what the program says besides.
    Err,
}

/// The two channels, and the progress bars between their lines.
#[derive(Clone)]
pub(super) struct Output {
    bars: Arc<MultiProgress>,
    /// Whether standard output and standard error are terminals.
    terminals: [bool; 2],
    /// Why data was lost, when it was.
    lost: Arc<OnceLock<io::Error>>,
}

impl Output {
    pub(super) fn new() -> Self {
        Self {
            bars: Arc::default(),
            terminals: [io::stdout().is_terminal(), io::stderr().is_terminal()],
            lost: Arc::default(),
        }
    }

    /// Fails if data could not be written, unless the reader has closed the pipe.
    pub(super) fn whole(&self) -> End {
        match self.lost.get() {
            None => Ok(()),
            Some(error) => {
                Err(anyhow::anyhow!("cannot write all of standard output: {error}").into())
            }
        }
    }

    /// Prints lines of data. What else than lines a part of them could be has to be made
    /// [`one_line`] before.
    pub(super) fn data(&self, text: &str) {
        self.write(Channel::Out, &escape::lines(text));
    }

    /// Prints data as JSON.
    pub(super) fn json(&self, value: &impl Serialize) -> End {
        self.json_text(&serde_json::to_string_pretty(value)?);
        Ok(())
    }

    /// Prints data as JSON if that is asked for, and else as `text` puts it.
    pub(super) fn answer(
        &self,
        json: bool,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> End {
        match json {
            true => return self.json(value),
            false => self.data(&text()),
        }
        Ok(())
    }

    /// Prints data that is JSON. It means the same afterwards.
    pub(super) fn json_text(&self, json: &str) {
        self.write(Channel::Out, &format!("{}\n", escape::json(json)));
    }

    /// Prints talk as JSON in one line.
    pub(super) fn json_line(&self, value: &impl Serialize) {
        let text = serde_json::to_string(value).expect("every value here has text for keys");
        self.write(Channel::Err, &format!("{}\n", escape::json(&text)));
    }

    /// Prints a line of talk.
    pub(super) fn talk(&self, line: &str) {
        self.write(Channel::Err, &format!("{}\n", escape::lines(line)));
    }

    /// Prints why the program ends.
    pub(super) fn error(&self, reason: &anyhow::Error) {
        let reason = format!("{reason:#}");
        // Problems of a spec that a node has found begin with the word.
        let reason = reason.strip_prefix("error: ").unwrap_or(&reason);
        let line = format!("{ERROR}error{ERROR:#}: {}\n", escape::lines(reason));
        self.write(Channel::Err, &line);
    }

    /// Prints everything that is wrong with a spec.
    pub(super) fn problems(&self, problems: &Problems) {
        self.write(Channel::Err, &problems.to_coloured());
    }

    /// Prints a line of a pod: its name in the colour of its service, then the text.
    pub(super) fn pod_line(&self, channel: Channel, prefix: &Prefix, text: &str) {
        let mut line = String::with_capacity(prefix.text.len() + text.len() + 16);
        let style = prefix.style;
        // Writing to a string cannot fail.
        let _ = match self.terminals[usize::from(channel == Channel::Err)] {
            true => write!(line, "{style}{}{style:#}", prefix.text),
            false => write!(line, "{}", prefix.text),
        };
        line.push_str(&escape::line(text));
        line.push('\n');
        self.write(channel, &line);
    }

    /// Whether there is a terminal for lines that change.
    pub(super) fn is_live(&self) -> bool {
        self.terminals[1]
    }

    /// How large the terminal is on which data can be drawn again in place, if there is one.
    pub(super) fn screen(&self) -> Option<Size> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if !self.terminals[0] || is_dumb {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        Some(match (size.ws_col, size.ws_row) {
            // One that does not say has what every terminal has.
            (0, _) | (_, 0) => Size {
                columns: 80,
                rows: 24,
            },
            (columns, rows) => Size {
                columns: columns.into(),
                rows: rows.into(),
            },
        })
    }

    /// Writes data as it is, but for styles where they are not wanted: in a pipe, or with `NO_COLOR`.
    pub(super) fn draw(&self, text: &str) {
        let mut out = io::stdout().lock();
        let text = match anstream::AutoStream::choice(&out) {
            anstream::ColorChoice::Never => without_styles(text),
            _ => text.to_owned(),
        };
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        self.note(written);
    }

    /// Writes data as it is, whatever it is.
    pub(super) fn bytes(&self, bytes: &[u8]) {
        let mut out = io::stdout().lock();
        self.note(out.write_all(bytes).and_then(|()| out.flush()));
    }

    /// A bar for something whose length is not known. It is shown on a terminal only.
    pub(super) fn spinner(&self, text: String) -> ProgressBar {
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
            .expect("the template is a constant");
        let bar = self.bars.add(
            ProgressBar::new_spinner()
                .with_style(style)
                .with_message(text),
        );
        // The ticks come from a thread, and where none can be started the bar's library panics.
        if !bar.is_hidden() && super::process::may_start_thread() {
            bar.enable_steady_tick(SPINNER_TICK);
        }
        bar
    }

    /// A bar for something of which it is known how far it has come: of [`BAR_LENGTH`] parts. It is
    /// shown on a terminal only.
    pub(super) fn bar(&self, text: String) -> ProgressBar {
        let style = ProgressStyle::with_template("{wide_bar} {percent:>3} % {msg} ({elapsed})")
            .expect("the template is a constant");
        let bar = self.bars.add(
            ProgressBar::new(BAR_LENGTH)
                .with_style(style)
                .with_message(text),
        );
        if !bar.is_hidden() && super::process::may_start_thread() {
            bar.enable_steady_tick(SPINNER_TICK);
        }
        bar
    }

    fn write(&self, channel: Channel, text: &str) {
        let written = self.bars.suspend(|| match channel {
            Channel::Out => {
                let mut out = anstream::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
            Channel::Err => anstream::stderr().lock().write_all(text.as_bytes()),
        });
        // When talk cannot be written there is no way to say so.
        if channel == Channel::Out {
            self.note(written);
        }
    }

    /// Takes note of what came of writing data.
    fn note(&self, written: io::Result<()>) {
        // A reader that has gone away, as `head` does, is no failure of this program, and neither is
        // a terminal that has.
        if let Err(error) = written
            && error.kind() != io::ErrorKind::BrokenPipe
            && !(self.terminals[0]
                && error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()))
        {
            // The first reason is the one to tell.
            let _ = self.lost.set(error);
        }
    }
}

/// What stands before each line of a pod.
#[derive(Clone)]
pub(super) struct Prefix {
    text: String,
    style: Style,
}

impl Prefix {
    /// A prefix of `width` characters for the service or job with this number.
    pub(super) fn new(name: &str, width: usize, number: usize) -> Self {
        let style = NAMES[number % NAMES.len()].on_default();
        Self {
            text: format!("{name:width$} | "),
            style,
        }
    }

    /// No prefix.
    pub(super) fn none() -> Self {
        Self {
            text: String::new(),
            style: Style::new(),
        }
    }
}

/// The text without styles, and with all other control sequences.
fn without_styles(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|it: char| it.is_ascii_alphabetic());
        match end {
            Some(end) if part[end..].starts_with('m') => plain.push_str(&part[end + 1..]),
            _ => {
                plain.push_str("\x1b[");
                plain.push_str(part);
            }
        }
    }
    plain
}

/// The text as a part of a line: what comes from a guest cannot look like a line of its own.
pub(super) fn one_line(text: &str) -> String {
    escape::word(text).into_owned()
}

/// `1 service`, `2 services`.
pub(super) fn count(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// A length of time with three digits: `12.3 ms`.
pub(super) fn time(duration: Duration) -> String {
    Took(duration).to_string()
}

/// A number of bytes with its largest fitting unit: `1.5 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let times = [
            (42, "42 µs"),
            (1_234, "1.23 ms"),
            (98_700, "98.7 ms"),
            (350_000, "350 ms"),
        ];
        for (micros, text) in times {
            assert_eq!(time(Duration::from_micros(micros)), text);
        }
        assert_eq!(time(Duration::from_secs(3)), "3.00 s");
        assert_eq!(time(Duration::from_secs(125)), "2 min 05 s");
        assert_eq!(
            [size(900), size(1536), size(64 << 20)],
            ["900 B", "1.5 KiB", "64.0 MiB"]
        );
        assert_eq!([count(1, "job"), count(0, "job")], ["1 job", "0 jobs"]);
    }

    #[test]
    fn without_colours_a_table_is_still_drawn() {
        let bold = Style::new().bold();
        let drawn = format!("\x1b[?2026h\x1b[3A\r{bold}cpu{bold:#} \x1b[33m93%\x1b[0m\x1b[K\n");
        let plain = "\x1b[?2026h\x1b[3A\rcpu 93%\x1b[K\n";
        assert_eq!(without_styles(&drawn), plain);
    }
}
