//! How many requests are in flight over time: exactly, for one addition when a request begins and
//! one when it ends, and read as often as one likes.
//!
//! What is wanted is the mean between two readings, and so the area under the number of requests
//! in flight. A request that began at `s` and ended at `e` has added `e − s` to it; one that began
//! at `s` and goes on has added `T − s` up to `T`. So the area up to `T` is the sum of all ends,
//! minus the sum of all beginnings, plus `T` for each that goes on. Both fit into one word, and no
//! reading can find a request in one part and not in the other.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

/// The low bits of the word, which have the number of requests in flight. More than 2²⁰ − 1 at once
/// count modulo that, until there are fewer again.
const COUNT_BITS: u32 = 20;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
/// The high bits have the area in microseconds times requests, modulo 2⁴⁴.
const AREA: u64 = u64::MAX >> COUNT_BITS;

/// What goes on at one place, as an area and a number.
///
/// Relaxed: each addition is whole in itself, and nothing else is read because of it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Busy {
    /// The sum of ends minus that of beginnings, and the number of requests in flight.
    word: AtomicU64,
    /// How many have begun.
    begun: AtomicU64,
    /// When time begins.
    base: Instant,
}

impl Default for Busy {
    fn default() -> Self {
        Self {
            word: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            base: Instant::now(),
        }
    }
}

impl Busy {
    /// One more is in flight. Each is to be followed by one [`end`](Self::end).
    pub(crate) fn begin(&self, now: Instant) {
        let area = micros(self.base, now).wrapping_neg();
        let change = (area << COUNT_BITS).wrapping_add(1);
        self.word.fetch_add(change, Relaxed);
        self.begun.fetch_add(1, Relaxed);
    }

    /// One less is in flight.
    pub(crate) fn end(&self, now: Instant) {
        let area = micros(self.base, now);
        let change = (area << COUNT_BITS).wrapping_sub(1);
        self.word.fetch_add(change, Relaxed);
    }

    /// Whole microseconds since it was made.
    pub(crate) fn micros(&self, now: Instant) -> u64 {
        micros(self.base, now)
    }

    /// How many have begun so far.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Relaxed)
    }

    /// What the word says at this moment.
    pub(crate) fn read(&self, now: Instant) -> Reading {
        Reading {
            word: self.word.load(Relaxed),
            at: now,
            base: self.base,
        }
    }
}

/// The requests in flight at one moment, and enough to tell their mean since an earlier reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    word: u64,
    at: Instant,
    base: Instant,
}

impl Reading {
    /// Requests in flight at the moment of the reading. Exact below 2²⁰.
    pub fn in_flight(&self) -> u32 {
        (self.word & COUNT) as u32
    }

    /// The moment of the reading.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// The mean of the requests in flight between an earlier reading of the same count and this
    /// one: each counts for as long as it was there, to the microsecond. If no time has passed, it
    /// is what is in flight now.
    ///
    /// A request that began or ended while a reading was made may be missing in it. It is made good
    /// in the next one, so that the sum over all readings is exact.
    ///
    /// The area between two readings must be less than 2⁴³ µs: that is two and a half hours with a
    /// thousand in flight. An `earlier` reading of something else, such as a service of this name
    /// that was there before, is ignored: the mean is that since this count began.
    pub fn mean_since(&self, earlier: &Self) -> f64 {
        let earlier = match earlier.base == self.base {
            true => *earlier,
            false => self.first(),
        };
        let time = micros(self.base, self.at).saturating_sub(micros(self.base, earlier.at));
        if time == 0 {
            return f64::from(self.in_flight());
        }
        let area = self.area().wrapping_sub(earlier.area()) & AREA;
        // What is missing in this reading, or was too much in the earlier one, can make the area a
        // little less than nothing.
        let area = if area > AREA / 2 { 0 } else { area };
        area as f64 / time as f64
    }

    /// What could have been read when the count began.
    fn first(&self) -> Self {
        Self {
            word: 0,
            at: self.base,
            base: self.base,
        }
    }

    /// The area up to the moment of the reading, in microseconds times requests, modulo 2⁴⁴.
    fn area(&self) -> u64 {
        let going_on = u64::from(self.in_flight()).wrapping_mul(micros(self.base, self.at));
        (self.word >> COUNT_BITS).wrapping_add(going_on) & AREA
    }
}

/// Whole microseconds from one moment to the other, at least zero.
fn micros(base: Instant, now: Instant) -> u64 {
    let time = now.saturating_duration_since(base);
    let seconds = time.as_secs().wrapping_mul(1_000_000);
    seconds.wrapping_add(u64::from(time.subsec_micros()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// A count whose area already is `area`, at any place modulo 2⁴⁴.
    fn busy(area: u64) -> Busy {
        Busy {
            word: AtomicU64::new(area << COUNT_BITS),
            ..Busy::default()
        }
    }

    fn at(busy: &Busy, micros: u64) -> Instant {
        busy.base + Duration::from_micros(micros)
    }

    #[test]
    fn each_counts_for_as_long_as_it_is_there() {
        let busy = Busy::default();
        let read = |micros| busy.read(at(&busy, micros));
        let first = read(0);
        busy.begin(at(&busy, 100));
        busy.begin(at(&busy, 200));
        let second = read(200);
        assert_eq!((first.in_flight(), second.in_flight()), (0, 2));
        assert_eq!(second.mean_since(&first), 0.5);
        busy.end(at(&busy, 250));
        let third = read(300);
        assert_eq!(third.mean_since(&second), 1.5);
        // What goes on counts on though nothing happens.
        assert_eq!(read(1_000_000).mean_since(&third), 1.0);
        busy.end(at(&busy, 1_000_000));
        assert_eq!(read(2_000_000).mean_since(&read(1_000_000)), 0.0);
        assert_eq!(read(2_000_000).mean_since(&first), 999_950.0 / 2e6);
        assert_eq!(busy.begun(), 2);
    }

    #[test]
    fn no_time_is_what_is_in_flight() {
        let busy = Busy::default();
        busy.begin(at(&busy, 7));
        let reading = busy.read(at(&busy, 9));
        assert_eq!(reading.mean_since(&reading), 1.0);
        assert_eq!(reading.mean_since(&busy.read(at(&busy, 10))), 1.0);
        assert_eq!(reading.at(), at(&busy, 9));
    }

    #[test]
    fn what_a_reading_missed_is_in_the_next_and_no_mean_is_negative() {
        let busy = Busy::default();
        let read = |micros| busy.read(at(&busy, micros));
        let first = read(0);
        busy.begin(at(&busy, 10));
        // Its end was stamped at 20, and is added only after the reading.
        let second = read(100);
        busy.end(at(&busy, 20));
        let third = read(120);
        assert_eq!(second.mean_since(&first), 0.9);
        assert_eq!(third.mean_since(&second), 0.0, "−80 µs are none");
        assert_eq!(third.mean_since(&first), 10.0 / 120.0);
    }

    #[test]
    fn a_reading_of_another_count_is_ignored() {
        let (old, new) = (busy(123_456), Busy::default());
        let other = Busy {
            base: new.base + Duration::from_secs(1),
            ..Busy::default()
        };
        other.begin(at(&other, 50));
        let reading = other.read(at(&other, 100));
        assert_eq!(reading.mean_since(&old.read(at(&old, 70))), 0.5);
    }

    #[test]
    fn the_area_wraps_and_the_number_never_carries() {
        let busy = busy(AREA - 10);
        // As far from the base as fits, where times wrap too.
        let late = |micros| at(&busy, AREA - 50 + micros);
        let first = busy.read(late(0));
        for _ in 0..COUNT {
            busy.begin(late(0));
        }
        assert_eq!(busy.read(late(0)).in_flight(), 1_048_575);
        let mean = busy.read(late(100)).mean_since(&first);
        assert_eq!(mean, COUNT as f64);
        for _ in 0..COUNT {
            busy.end(late(100));
        }
        let last = busy.read(late(200));
        assert_eq!(
            (last.in_flight(), last.mean_since(&first)),
            (0, COUNT as f64 / 2.0)
        );
    }

    #[test]
    fn threads_lose_nothing() {
        let busy = Busy::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let busy = &busy;
                scope.spawn(move || {
                    for n in 0..10_000 {
                        busy.begin(at(busy, n + thread));
                        busy.end(at(busy, n + thread + 5));
                    }
                });
            }
        });
        let reading = busy.read(at(&busy, 100_000));
        assert_eq!((reading.in_flight(), busy.begun()), (0, 40_000));
        assert_eq!(reading.mean_since(&reading.first()), 2.0);
    }

    /// The microseconds that [begin, end) and [from, to) share.
    fn shared((begin, end): (u64, u64), from: u64, to: u64) -> u64 {
        end.min(to).saturating_sub(begin.max(from))
    }

    proptest! {
        #[test]
        fn it_is_the_naive_area(
            requests in prop::collection::vec((0..1_000_000_u64, 0..1_000_000_u64), 0..60),
            readings in (0..2_000_000_u64, 0..2_000_000_u64),
            origin in prop_oneof![Just(0), 0..1_u64 << 50, AREA - 2_000_000..AREA],
            area in 0..=AREA,
        ) {
            let busy = busy(area);
            let (from, to) = (readings.0.min(readings.1), readings.0.max(readings.1));
            let spans: Vec<_> = requests.iter().map(|(begin, time)| (*begin, begin + time)).collect();
            let mut changes: Vec<_> = spans
                .iter()
                .flat_map(|(begin, end)| [(*begin, true), (*end, false)])
                .collect();
            // Beginnings first, as it is for one request.
            changes.sort_by_key(|(time, begins)| (*time, !begins));
            let mut changes = changes.into_iter().peekable();
            let [earlier, later] = [from, to].map(|time| {
                while let Some((when, begins)) = changes.next_if(|(when, _)| *when <= time) {
                    let now = at(&busy, origin + when);
                    if begins { busy.begin(now) } else { busy.end(now) }
                }
                busy.read(at(&busy, origin + time))
            });
            let in_flight = |time| spans.iter().filter(|it| (it.0..it.1).contains(&time)).count();
            prop_assert_eq!(earlier.in_flight() as usize, in_flight(from));
            prop_assert_eq!(later.in_flight() as usize, in_flight(to));
            let sum: u64 = spans.iter().map(|span| shared(*span, from, to)).sum();
            let wanted = match to - from {
                0 => in_flight(to) as f64,
                time => sum as f64 / time as f64,
            };
            prop_assert_eq!(later.mean_since(&earlier), wanted);
        }
    }
}
