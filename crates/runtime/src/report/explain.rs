//! The end of an instance in words: for a person who did not write the guest.

use std::{
    fmt::{self, Write as _},
    sync::Arc,
    time::Duration,
};

use sampan_core::{escape, fault::Fault, quantity::ByteSize};

use super::{Coredump, Evidence, Frame, Termination};

/// Frames of a sample that are shown: where it was, and what called that.
const SAMPLE_FRAMES: usize = 3;
/// Column at which what is said begins.
const INDENT: usize = 14;

impl Termination {
    /// What happened and why, in several lines: the verdict, the request, where in the guest, what
    /// it waited for, what it had used, its last calls into the host, the end of its log.
    pub fn explain(&self) -> String {
        self.explain_with(&[])
    }

    /// The same with the source lines of its stack, as far as they are known.
    pub(crate) fn explain_with(&self, lines: &[Option<Arc<str>>]) -> String {
        let mut text = format!("{}\n", escape::line(&self.to_string()));
        if let Some(evidence) = &self.evidence {
            // Writing to a string cannot fail.
            let _ = evidence.write(self.verdict, lines, &mut text);
        } else {
            text.push_str("  no more is known: too many of the pod's instances end so\n");
        }
        text
    }
}

impl Evidence {
    fn write(&self, verdict: Fault, lines: &[Option<Arc<str>>], to: &mut String) -> fmt::Result {
        for request in &self.requests {
            let id = request.id.as_ref().map(|id| format!(" (request {id})"));
            let (line, since) = (&request.line, Short(request.since));
            field(
                to,
                "request",
                format_args!("{line}{}, asked {since} before", id.unwrap_or_default()),
            )?;
        }
        if verdict == Fault::Spinning {
            let is_burst = self.cpu_since_wait > self.cpu_budget;
            let how = match (self.is_busy_polling(), is_burst) {
                (true, true) => "busy-polling: it kept calling the host without a wait",
                (true, false) => "it kept calling the host, and waited too little",
                (false, true) => "it computed; no call into the host was seen",
                (false, false) => "it computed, and waited too little",
            };
            let late = self
                .late
                .map(|late| format!("; stopped {} after its budget was spent", Short(late)));
            field(
                to,
                "while",
                format_args!("{how}{}", late.unwrap_or_default()),
            )?;
        }
        for wait in &self.waits {
            let (function, on, since) = (wait.function, &wait.on, Short(wait.since));
            field(
                to,
                "waiting",
                format_args!("in `{function}` for {on}, since {since}"),
            )?;
        }
        if let Some(deadlock) = &self.deadlock {
            for (n, member) in deadlock.members.iter().enumerate() {
                let victim = if n == deadlock.victim {
                    "  <- the victim"
                } else {
                    ""
                };
                field(
                    to,
                    if n == 0 { "deadlock" } else { "" },
                    format_args!("{member}{victim}"),
                )?;
            }
        }
        self.write_stack(lines, to)?;
        self.write_use(to)?;
        self.write_calls(to)?;
        match self.coredump.as_ref().map(Coredump::outcome) {
            Some(Some(Ok(path))) => field(to, "core dump", format_args!("`{}`", path.display()))?,
            Some(Some(Err(reason))) => field(to, "core dump", format_args!("none: {reason}"))?,
            Some(None) => field(to, "core dump", format_args!("is being written"))?,
            None => {}
        }
        for (n, line) in self.log.iter().enumerate() {
            field(to, if n == 0 { "log" } else { "" }, format_args!("{line}"))?;
        }
        Ok(())
    }

    fn write_stack(&self, lines: &[Option<Arc<str>>], to: &mut String) -> fmt::Result {
        for (n, frame) in self.backtrace.iter().enumerate() {
            let line = lines.get(n).cloned().flatten();
            let line = line.map(|line| format!("  {line}")).unwrap_or_default();
            field(
                to,
                if n == 0 { "backtrace" } else { "" },
                format_args!("{n:2}  {frame}{line}"),
            )?;
        }
        for (n, sample) in self.samples.iter().enumerate() {
            let stack = sample.backtrace.iter().take(SAMPLE_FRAMES);
            let stack = stack
                .map(|frame| frame.function.as_str())
                .collect::<Vec<_>>();
            let (cpu, calls) = (Short(sample.cpu), sample.host_calls);
            let stack = stack.join(" < ");
            field(
                to,
                if n == 0 { "seen before" } else { "" },
                format_args!("after {cpu} of CPU and {calls} host calls in {stack}"),
            )?;
        }
        Ok(())
    }

    fn write_use(&self, to: &mut String) -> fmt::Result {
        let (used, all) = (Short(self.cpu), Short(self.cpu_budget));
        let since = Short(self.cpu_since_wait);
        match (self.waits_ended, self.cpu_budget.is_zero()) {
            // Of one that had no store nothing is known.
            (0, true) if self.cpu.is_zero() => {}
            (0, true) => field(to, "guest CPU", format_args!("{used}"))?,
            (0, false) => field(to, "guest CPU", format_args!("{used} of {all}"))?,
            (_, true) => field(
                to,
                "guest CPU",
                format_args!("{used}, {since} since it last waited"),
            )?,
            (_, false) => field(
                to,
                "guest CPU",
                format_args!("{used}, {since} of {all} since it last waited"),
            )?,
        }
        let waited = Short(self.waited);
        match self.waits_ended {
            0 => {}
            1 => field(to, "waited", format_args!("once, {waited}"))?,
            times => field(to, "waited", format_args!("{times} times, {waited} in all"))?,
        }
        if let Some((used, all)) = self.fuel {
            field(to, "fuel", format_args!("{used} of {all}"))?;
        }
        if self.memory_limit_bytes > 0 {
            let (now, limit) = (Size(self.memory_bytes), Size(self.memory_limit_bytes));
            let refused = self
                .memory_refused_bytes
                .map(|more| format!("; {} more were refused", Size(more)));
            field(
                to,
                "memory",
                format_args!("{now} of {limit}{}", refused.unwrap_or_default()),
            )?;
        }
        Ok(())
    }

    fn write_calls(&self, to: &mut String) -> fmt::Result {
        let shown = self.last_host_calls.len();
        for (n, call) in self.last_host_calls.iter().enumerate() {
            let name = match n {
                0 if shown < self.host_calls => {
                    format!("last {shown} of {} host calls", self.host_calls)
                }
                0 => "host calls".to_owned(),
                _ => String::new(),
            };
            if name.len() > INDENT {
                writeln!(to, "  {name}")?;
            }
            let name = if name.len() > INDENT { "" } else { &name };
            field(
                to,
                name,
                format_args!("{} before  {}", Short(call.before), call.function),
            )?;
        }
        Ok(())
    }
}

/// One line; its name only where it begins a group.
fn field(to: &mut String, name: &str, value: fmt::Arguments<'_>) -> fmt::Result {
    // Much of this comes from the guest: names of its functions, what it asked for and printed.
    writeln!(to, "  {name:INDENT$}{}", escape::line(&value.to_string()))
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function)?;
        match (self.component_offset, &self.module) {
            (Some(offset), Some(module)) => write!(f, "  ({offset:#x} in {module})"),
            (Some(offset), None) => write!(f, "  ({offset:#x})"),
            (None, _) => Ok(()),
        }
    }
}

/// A length of time with three digits.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_secs_f64() * 1e6;
        match micros {
            ..1e3 => write!(f, "{micros:.0} µs"),
            ..1e4 => write!(f, "{:.2} ms", micros / 1e3),
            ..1e6 => write!(f, "{:.0} ms", micros / 1e3),
            _ => write!(f, "{:.2} s", micros / 1e6),
        }
    }
}

/// Bytes as people read them.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MIB: f64 = (1_u64 << 20) as f64;
        match self.0 {
            bytes if bytes < 1 << 20 => write!(f, "{} KiB", bytes.div_ceil(1 << 10)),
            bytes if bytes % (1 << 20) == 0 => ByteSize(bytes).fmt(f),
            bytes => write!(f, "{:.1} MiB", bytes as f64 / MIB),
        }
    }
}
