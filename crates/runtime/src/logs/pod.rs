//! What one pod may print, and what is said about it.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Instant, SystemTime},
};

use parking_lot::Mutex;
use sampan_core::{escape, name::PodName, quantity::ByteSize};

use super::{
    bucket::TokenBucket,
    hidden::Hidden,
    ring::{LINE_OVERHEAD_BYTES, Line, MAX_LINE_BYTES, Ring, Stream},
};
use crate::meter::PodMeter;

/// What a line of the greatest length counts.
const LONGEST_BYTES: u64 = (MAX_LINE_BYTES + LINE_OVERHEAD_BYTES) as u64;
/// Lines a second that the host writes about a pod, of each kind.
pub const MAX_NOTES_A_SECOND: u64 = 1;
/// Lines at once that the host writes about a pod, of each kind.
pub const MAX_BURST_NOTES: u64 = 20;

/// What a line of the host is about. A flood of one kind hides none of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// An instance failed.
    Failure,
    /// The guest was denied something.
    Denial,
}

/// One pod's way to the ring.
#[derive(Debug)]
pub(crate) struct PodLog {
    ring: Arc<Ring>,
    pod: Arc<PodName>,
    meter: Arc<PodMeter>,
    /// What no line of it shows.
    pub(super) hidden: Arc<Hidden>,
    /// Bytes it may print a second, and at once; what comes faster is dropped, and counted.
    rate: u64,
    printed: Mutex<Rationed>,
    failures: Mutex<Rationed>,
    denials: Mutex<Rationed>,
}

#[derive(Debug)]
struct Rationed {
    bucket: TokenBucket,
    /// What has to be there before a line is taken again after some were left out. Without it a flood
    /// would get one line through at a time, each with two that say how many were left out.
    resume: u64,
    /// Lines left out since the last one that was not.
    dropped: u64,
}

impl Rationed {
    fn new(burst: u64, a_second: u64, resume: u64) -> Mutex<Self> {
        Mutex::new(Self {
            bucket: TokenBucket::new(burst, a_second),
            resume,
            dropped: 0,
        })
    }

    /// How many lines were left out before this one, unless it is left out too.
    fn take(&mut self, now: Instant, amount: u64) -> Option<u64> {
        let goes_on = self.dropped == 0 || self.bucket.holds(now, self.resume);
        if goes_on && self.bucket.take(now, amount) {
            return Some(std::mem::take(&mut self.dropped));
        }
        self.dropped += 1;
        None
    }
}

impl PodLog {
    pub(crate) fn new(
        ring: &Arc<Ring>,
        pod: PodName,
        meter: &Arc<PodMeter>,
        rate: u64,
        hidden: &Arc<Hidden>,
    ) -> Arc<Self> {
        // A whole line must fit, however low the rate is.
        let burst = rate.max(LONGEST_BYTES);
        let notes = || Rationed::new(MAX_BURST_NOTES, MAX_NOTES_A_SECOND, 0);
        Arc::new(Self {
            ring: Arc::clone(ring),
            pod: Arc::new(pod),
            meter: Arc::clone(meter),
            rate,
            hidden: Arc::clone(hidden),
            printed: Rationed::new(burst, rate, burst / 4),
            failures: notes(),
            denials: notes(),
        })
    }

    /// Says that the pod begins, whatever ran under its name before.
    pub(crate) fn begin(&self) {
        self.ring.begin(&self.pod);
    }

    pub(crate) fn pod(&self) -> &PodName {
        &self.pod
    }

    /// The last lines that the pod's guests printed, together at most so many bytes. Of a last
    /// line that is longer it is the end, after how much of it is missing.
    pub(crate) fn tail(&self, bytes: usize) -> Vec<String> {
        // What the host says of it is in the reports anyway.
        let lines = self.ring.tail(&self.pod, bytes).into_iter();
        let own = lines.filter(|line| line.stream != Stream::Host);
        own.map(|line| line.text).collect()
    }

    /// Takes a line that the guest printed, or the part of one that fits.
    pub(super) fn print(
        &self,
        stream: Stream,
        request: Option<Arc<str>>,
        text: &[u8],
        partial: bool,
    ) {
        let amount = (text.len() + LINE_OVERHEAD_BYTES) as u64;
        let mut printed = self.printed.lock();
        let Some(dropped) = printed.take(Instant::now(), amount) else {
            // Nothing may follow that could say so.
            if printed.dropped == 1 {
                self.note_dropped("lines are dropped from here on");
            }
            return self.meter.count_dropped_line();
        };
        if dropped > 0 {
            self.note_dropped(&format!("{dropped} lines dropped"));
        }
        let text = &*self.hidden.in_line(text);
        // Under the lock, so that what is said of a line stands beside it.
        self.push(stream, request, escape::bytes(text), partial);
    }

    fn note_dropped(&self, what: &str) {
        let limit = ByteSize(self.rate);
        let text = format!("{what}: it prints more than {limit} a second");
        self.push(Stream::Host, None, text, false);
    }

    /// Writes a line about the guest. `text` is made only if there is room for it.
    pub(crate) fn note(
        &self,
        kind: Note,
        request: Option<Arc<str>>,
        text: impl FnOnce() -> String,
    ) {
        let rationed = match kind {
            Note::Failure => &self.failures,
            Note::Denial => &self.denials,
        };
        let Some(dropped) = rationed.lock().take(Instant::now(), 1) else {
            return self.meter.count_dropped_line();
        };
        let text = match dropped {
            0 => text(),
            _ => format!("{} (and {dropped} more before it)", text()),
        };
        // A guest may choose what it is denied.
        let text = match self.hidden.in_line(text.as_bytes()) {
            Cow::Borrowed(_) => text,
            Cow::Owned(hidden) => String::from_utf8_lossy(&hidden).into_owned(),
        };
        self.push(Stream::Host, request, text, false);
    }

    fn push(&self, stream: Stream, request: Option<Arc<str>>, text: String, partial: bool) {
        self.ring.push(Line {
            time: SystemTime::now(),
            pod: Arc::clone(&self.pod),
            stream,
            request,
            text,
            partial,
        });
    }
}

impl Drop for PodLog {
    fn drop(&mut self) {
        let dropped = self.printed.lock().dropped;
        if dropped > 0 {
            self.note_dropped(&format!("{dropped} lines dropped at its end"));
        }
    }
}

#[cfg(test)]
mod tests {
    use sampan_core::name::ServiceKey;

    use super::*;

    const RATE: u64 = 1 << 20;

    fn log(ring: &Arc<Ring>, meter: &Arc<PodMeter>) -> Arc<PodLog> {
        let name = ServiceKey::parse("shop/web").expect("a key");
        PodLog::new(
            ring,
            PodName::new(&name, 1, 0),
            meter,
            RATE,
            &Arc::default(),
        )
    }

    /// Lines that guests printed.
    fn own(ring: &Ring) -> usize {
        let lines = ring.read(0, usize::MAX).lines;
        let own = lines.iter().filter(|line| line.stream != Stream::Host);
        own.count()
    }

    #[test]
    fn a_flood_is_cut_and_counted_for_one_pod_only() {
        let (ring, meter) = (Arc::default(), Arc::default());
        let (flood, other) = (log(&ring, &meter), log(&ring, &Arc::default()));
        let line = vec![b'x'; 1024];
        for _ in 0..10_000 {
            flood.print(Stream::Stdout, None, &line, false);
        }
        other.print(Stream::Stdout, None, b"still heard", false);
        let kept = ring.read(0, usize::MAX).lines;
        let bytes: usize = kept.iter().map(|line| line.text.len()).sum();
        let most = 2 * RATE as usize;
        assert!(bytes > 512 << 10 && bytes < most, "{bytes}");
        assert_eq!(kept.last().expect("a line").text, "still heard");
        let dropped = meter.usage().log_lines_dropped;
        let told = |line: &&Line| line.stream == Stream::Host;
        let notes = kept.iter().filter(told).count() as u64;
        assert_eq!(kept.len() as u64 - 1 - notes + dropped, 10_000);
    }

    #[test]
    fn a_long_line_gets_through_however_low_the_rate_is() {
        let (ring, meter) = (Arc::default(), Arc::default());
        let name = ServiceKey::parse("shop/web").expect("a key");
        let log = PodLog::new(&ring, PodName::new(&name, 1, 0), &meter, 1, &Arc::default());
        log.print(Stream::Stdout, None, &[b'x'; MAX_LINE_BYTES], false);
        log.print(Stream::Stdout, None, b"one more", false);
        assert_eq!(own(&ring), 1);
        assert_eq!(meter.usage().log_lines_dropped, 1);
    }

    #[test]
    fn what_was_dropped_is_said_with_the_next_line() {
        let (ring, meter) = (Arc::default(), Arc::default());
        let log = log(&ring, &meter);
        log.printed.lock().dropped = 7;
        log.print(Stream::Stdout, None, b"next", false);
        let lines = ring.read(0, 10).lines;
        assert_eq!(
            lines[0].text,
            "7 lines dropped: it prints more than 1MiB a second"
        );
        assert_eq!(
            (lines[0].stream, lines[1].text.as_str()),
            (Stream::Host, "next")
        );
    }

    /// However long a flood lasts, few lines say so.
    #[test]
    fn a_flood_resumes_a_few_times_a_second() {
        let printed = Rationed::new(1000, 1000, 250);
        let start = Instant::now();
        let (mut taken, mut told) = (0, 0);
        for millis in 0..10_000 {
            let now = start + std::time::Duration::from_millis(millis);
            for _ in 0..10 {
                match printed.lock().take(now, 10) {
                    Some(0) => taken += 1,
                    Some(_) => (taken, told) = (taken + 1, told + 1),
                    None => {}
                }
            }
        }
        assert!((30..=40).contains(&told), "{told}");
        // All that the rate allows gets through all the same.
        assert!((1050..=1100).contains(&taken), "{taken}");
    }

    #[test]
    fn lines_are_never_dropped_in_silence() {
        let (ring, meter) = (Arc::default(), Arc::default());
        let name = ServiceKey::parse("shop/web").expect("a key");
        let log = PodLog::new(&ring, PodName::new(&name, 1, 0), &meter, 1, &Arc::default());
        log.print(Stream::Stdout, None, &[b'x'; MAX_LINE_BYTES], false);
        let last = || ring.read(0, 10).lines.pop().expect("a line").text;
        for _ in 0..3 {
            log.print(Stream::Stdout, None, b"more", false);
            let said = "lines are dropped from here on: it prints more than 1B a second";
            assert_eq!(last(), said);
        }
        drop(log);
        let said = "3 lines dropped at its end: it prints more than 1B a second";
        assert_eq!(last(), said);
        assert_eq!(ring.read(0, 10).lines.len(), 3);
    }

    #[test]
    fn a_tail_has_the_end_of_a_long_line() {
        let (ring, meter) = (Arc::default(), Arc::default());
        let log = log(&ring, &meter);
        log.print(Stream::Stdout, None, b"before", false);
        let long = "ä".repeat(3000) + "the end";
        log.print(Stream::Stdout, None, long.as_bytes(), false);
        let tail = log.tail(100);
        assert_eq!(tail.len(), 1);
        assert!(
            tail[0].starts_with("(5908 bytes before this) ä"),
            "{tail:?}"
        );
        assert!(tail[0].ends_with("äthe end"), "{tail:?}");
        assert_eq!(log.tail(10_000).len(), 2);
    }

    #[test]
    fn a_storm_of_failures_hides_no_denial() {
        let (ring, meter) = (Arc::default(), Arc::default());
        let log = log(&ring, &meter);
        for number in 0..1000 {
            log.note(Note::Failure, None, || format!("trap {number}"));
        }
        log.note(Note::Denial, None, || "denied".to_owned());
        let lines = ring.read(0, usize::MAX).lines;
        let most = MAX_BURST_NOTES as usize + 2;
        assert!(lines.len() <= most, "{} lines", lines.len());
        assert_eq!(lines.last().expect("a line").text, "denied");
        assert_eq!(lines.len() as u64 + meter.usage().log_lines_dropped, 1001);
        log.failures.lock().bucket = TokenBucket::new(1, 1);
        let before = log.failures.lock().dropped;
        log.note(Note::Failure, None, || "trap".to_owned());
        let last = ring.read(0, usize::MAX).lines.pop().expect("a line");
        assert_eq!(last.text, format!("trap (and {before} more before it)"));
    }
}
