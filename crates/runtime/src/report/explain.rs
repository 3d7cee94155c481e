//! The end of an instance in words: for a person who did not write the guest.

use std::{
    fmt::{self, Display, Write as _},
    sync::Arc,
};

use sampan_core::{escape, fault::Fault, quantity::ByteSize, time::Took};

use super::{Coredump, Evidence, Frame, HostCall, Sample, Termination};

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
        let mut text = Text(format!("{}\n", escape::line(&self.to_string())));
        match &self.evidence {
            Some(evidence) => evidence.write(self.verdict, lines, &mut text),
            None => text.line("  no more is known: too many of the pod's instances end so"),
        }
        text.0
    }
}

/// The lines of an explanation.
struct Text(String);

impl Text {
    fn line(&mut self, line: impl Display) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn field(&mut self, name: &str, value: impl Display) {
        // Much of this comes from the guest: names of its functions, what it asked for and printed.
        let value = value.to_string();
        self.line(format_args!("  {name:INDENT$}{}", escape::line(&value)));
    }

    /// A field for each value, of which the first one is named.
    fn fields(&mut self, name: &str, values: impl IntoIterator<Item = impl Display>) {
        let names = [name].into_iter().chain(std::iter::repeat(""));
        for (name, value) in names.zip(values) {
            self.field(name, value);
        }
    }
}

impl Evidence {
    fn write(&self, verdict: Fault, lines: &[Option<Arc<str>>], to: &mut Text) {
        for request in &self.requests {
            let id = request.id.as_ref().map(|id| format!(" (request {id})"));
            let (id, since) = (id.unwrap_or_default(), Took(request.since));
            let line = &request.line;
            to.field("request", format_args!("{line}{id}, asked {since} before"));
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
                .map(|late| format!("; stopped {} after its budget was spent", Took(late)));
            to.field("while", format_args!("{how}{}", late.unwrap_or_default()));
        }
        for wait in &self.waits {
            let (function, on, since) = (wait.function, &wait.on, Took(wait.since));
            to.field(
                "waiting",
                format_args!("in `{function}` for {on}, since {since}"),
            );
        }
        if let Some(deadlock) = &self.deadlock {
            let members = deadlock.members.iter().enumerate();
            let member = |(n, member)| match n == deadlock.victim {
                true => format!("{member}  <- the victim"),
                false => format!("{member}"),
            };
            to.fields("deadlock", members.map(member));
        }
        self.write_stack(lines, to);
        self.write_use(to);
        self.write_calls(to);
        match self.coredump.as_ref().map(Coredump::outcome) {
            Some(Some(Ok(path))) => to.field("core dump", format_args!("`{}`", path.display())),
            Some(Some(Err(reason))) => to.field("core dump", format_args!("none: {reason}")),
            Some(None) => to.field("core dump", "is being written"),
            None => {}
        }
        to.fields("log", &self.log);
    }

    fn write_stack(&self, lines: &[Option<Arc<str>>], to: &mut Text) {
        let frame = |(n, frame): (usize, &Frame)| {
            let line = lines.get(n).cloned().flatten();
            let line = line.map(|line| format!("  {line}")).unwrap_or_default();
            format!("{n:2}  {frame}{line}")
        };
        to.fields("backtrace", self.backtrace.iter().enumerate().map(frame));
        let sample = |sample: &Sample| {
            let stack = sample.backtrace.iter().take(SAMPLE_FRAMES);
            let stack: Vec<_> = stack.map(|frame| frame.function.as_str()).collect();
            let (cpu, calls) = (Took(sample.cpu), sample.host_calls);
            let stack = stack.join(" < ");
            format!("after {cpu} of CPU and {calls} host calls in {stack}")
        };
        to.fields("seen before", self.samples.iter().map(sample));
    }

    fn write_use(&self, to: &mut Text) {
        let (used, all) = (Took(self.cpu), Took(self.cpu_budget));
        let since = Took(self.cpu_since_wait);
        let cpu = match (self.waits_ended, self.cpu_budget.is_zero()) {
            (0, true) => format!("{used}"),
            (0, false) => format!("{used} of {all}"),
            (_, true) => format!("{used}, {since} since it last waited"),
            (_, false) => format!("{used}, {since} of {all} since it last waited"),
        };
        // Of one that had no store nothing is known.
        if !(self.waits_ended == 0 && self.cpu_budget.is_zero() && self.cpu.is_zero()) {
            to.field("guest CPU", cpu);
        }
        let waited = Took(self.waited);
        match self.waits_ended {
            0 => {}
            1 => to.field("waited", format_args!("once, {waited}")),
            times => to.field("waited", format_args!("{times} times, {waited} in all")),
        }
        if let Some((used, all)) = self.fuel {
            to.field("fuel", format_args!("{used} of {all}"));
        }
        if self.memory_limit_bytes > 0 {
            let (now, limit) = (Size(self.memory_bytes), Size(self.memory_limit_bytes));
            let refused = self
                .memory_refused_bytes
                .map(|more| format!("; {} more were refused", Size(more)));
            let refused = refused.unwrap_or_default();
            to.field("memory", format_args!("{now} of {limit}{refused}"));
        }
    }

    fn write_calls(&self, to: &mut Text) {
        let shown = self.last_host_calls.len();
        let mut name = "host calls";
        if shown > 0 && shown < self.host_calls {
            // Too long to stand before the first one.
            to.line(format_args!(
                "  last {shown} of {} host calls",
                self.host_calls
            ));
            name = "";
        }
        let calls = self.last_host_calls.iter();
        let call = |call: &HostCall| format!("{} before  {}", Took(call.before), call.function);
        to.fields(name, calls.map(call));
    }
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
