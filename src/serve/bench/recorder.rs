//! What is being measured: it can be looked at whenever the measuring ends.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use sampan_core::digest::Digest;

use super::{
    Component,
    machine::Ticks,
    report::{Axis, Better, Group, Measurement, Percentiles, Scale, Section, Subject, Unit},
    statistics,
};

/// Samples of a measurement that a report keeps.
const MAX_SAMPLES: usize = 1000;
/// Samples that percentiles take, where they are not of single requests.
const ENOUGH: usize = 20;
/// Digits of numbers in a report.
const DIGITS: i32 = 6;

/// What a section says that has not ended.
const UNFINISHED: &str = "not measured to its end: these are the figures until then";

/// Told how far the measuring has come: a part of all, and what is done now.
pub(crate) type Progress = Box<dyn Fn(f64, &str) + Send + Sync>;

/// All sections of a run.
#[derive(Clone)]
pub(crate) struct Recorder(Arc<Inner>);

struct Inner {
    sections: Mutex<Vec<Live>>,
    progress: Progress,
}

/// A section that is being measured, or has been.
struct Live {
    section: Section,
    began: (Instant, Option<Ticks>),
    is_open: bool,
    /// Of single requests, in nanoseconds, by group and measurement.
    histograms: BTreeMap<(usize, usize), Histogram<u64>>,
}

/// One section of a run, to write into.
#[derive(Clone)]
pub(crate) struct Part {
    recorder: Recorder,
    index: usize,
    /// Where it begins and ends in the progress of all.
    span: (f64, f64),
}

/// A group to write samples into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

impl Recorder {
    pub(crate) fn new(progress: Progress) -> Self {
        Self(Arc::new(Inner {
            sections: Mutex::default(),
            progress,
        }))
    }

    /// Begins a section, which is this part of the whole run.
    pub(crate) fn part(&self, bench: &str, title: &str, span: (f64, f64)) -> Part {
        let section = Section {
            bench: bench.to_owned(),
            title: title.to_owned(),
            method: String::new(),
            components: Vec::new(),
            took_s: 0.0,
            noise: None,
            notes: Vec::new(),
            groups: Vec::new(),
        };
        let mut sections = self.0.sections.lock();
        sections.push(Live {
            section,
            began: (Instant::now(), Ticks::read()),
            is_open: true,
            histograms: BTreeMap::new(),
        });
        Part {
            recorder: self.clone(),
            index: sections.len() - 1,
            span,
        }
    }

    /// What has been measured so far. A section that has not ended says so.
    pub(crate) fn sections(&self) -> Vec<Section> {
        let mut sections = self.0.sections.lock();
        for section in sections.iter_mut().filter(|it| it.is_open) {
            section.section.notes.push(UNFINISHED.to_owned());
            section.close();
        }
        let sections = sections.iter().map(Live::reported);
        sections
            .filter(|it| !it.groups.is_empty() || it.notes.iter().any(|note| note != UNFINISHED))
            .collect()
    }
}

impl Live {
    fn close(&mut self) {
        if std::mem::take(&mut self.is_open) {
            let (began, ticks) = self.began;
            self.section.took_s = rounded(began.elapsed().as_secs_f64());
            let now = Ticks::read();
            self.section.noise = now
                .zip(ticks)
                .and_then(|(now, then)| now.noise_since(&then));
        }
    }

    fn reported(&self) -> Section {
        let mut section = self.section.clone();
        for (at, group) in section.groups.iter_mut().enumerate() {
            for (index, measurement) in group.measurements.iter_mut().enumerate() {
                reported(measurement, self.histograms.get(&(at, index)));
            }
        }
        section.groups.retain(|it| !it.measurements.is_empty());
        section
    }
}

/// Says of samples what is to be said.
fn reported(measurement: &mut Measurement, histogram: Option<&Histogram<u64>>) {
    let mut sorted = std::mem::take(&mut measurement.samples);
    let (value, interval) = (statistics::median(&sorted), statistics::interval(&sorted));
    measurement.value = rounded(value);
    measurement.interval = interval.map(|it| it.map(rounded));
    measurement.count = histogram.map_or(sorted.len() as u64, Histogram::len);
    let samples = sorted.clone();
    sorted.sort_by(f64::total_cmp);
    measurement.percentiles = match histogram {
        Some(histogram) if !histogram.is_empty() => Some(Percentiles::of(|part| {
            histogram.value_at_quantile(part) as f64 / 1e6
        })),
        _ if sorted.len() >= ENOUGH => {
            Some(Percentiles::of(|part| statistics::quantile(&sorted, part)))
        }
        _ => None,
    };
    measurement.samples = match samples.len() {
        0..=MAX_SAMPLES => samples,
        more => {
            let evenly = |index| sorted[index * (more - 1) / (MAX_SAMPLES - 1)];
            (0..MAX_SAMPLES).map(evenly).collect()
        }
    };
    measurement
        .samples
        .iter_mut()
        .for_each(|it| *it = rounded(*it));
}

impl Percentiles {
    fn of(at: impl Fn(f64) -> f64) -> Self {
        let at = |part| rounded(at(part));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max: at(1.0),
        }
    }
}

/// A number with as many digits as mean something.
fn rounded(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return 0.0;
    }
    let place = DIGITS - 1 - number.abs().log10().floor() as i32;
    let factor = 10_f64.powi(place.abs());
    match place >= 0 {
        true => (number * factor).round() / factor,
        false => (number / factor).round() * factor,
    }
}

impl Part {
    fn live<T>(&self, work: impl FnOnce(&mut Live) -> T) -> T {
        work(&mut self.recorder.0.sections.lock()[self.index])
    }

    /// Says how it is measured.
    pub(super) fn method(&self, text: &str) {
        self.live(|live| live.section.method = text.to_owned());
    }

    /// Says what a reader has to know, once.
    pub(crate) fn note(&self, text: String) {
        self.live(|live| {
            if !live.section.notes.contains(&text) {
                live.section.notes.push(text);
            }
        });
    }

    /// Says that this component is measured.
    pub(super) fn component(&self, component: &Component) {
        let subject = Subject {
            name: component.name.clone(),
            digest: Digest::of(&component.bytes).to_hex(),
            bytes: component.bytes.len() as u64,
        };
        self.live(|live| {
            if !live.section.components.contains(&subject) {
                live.section.components.push(subject);
            }
        });
    }

    /// The part of this section that is done, and what is done now.
    pub(super) fn progress(&self, done: f64, what: &str) {
        let (from, to) = self.span;
        let done = from + (to - from) * done.clamp(0.0, 1.0);
        (self.recorder.0.progress)(done, what);
    }

    /// A group of measurements, which is made if it is new.
    pub(super) fn group(&self, id: &str, title: &str, unit: Unit, better: Better) -> Place {
        self.live(|live| {
            let groups = &mut live.section.groups;
            let found = groups.iter().position(|group| group.id == id);
            Place(found.unwrap_or_else(|| {
                groups.push(Group {
                    id: id.to_owned(),
                    title: title.to_owned(),
                    unit,
                    better,
                    axis: None,
                    measurements: Vec::new(),
                });
                groups.len() - 1
            }))
        })
    }

    /// The same along an axis.
    pub(super) fn along(&self, place: Place, label: &str, scale: Scale) -> Place {
        let label = label.to_owned();
        self.live(|live| live.section.groups[place.0].axis = Some(Axis { label, scale }));
        place
    }

    /// Adds a sample. The order of the first ones is that of the report.
    pub(super) fn sample(&self, place: Place, name: &str, x: Option<f64>, sample: f64) {
        self.live(|live| {
            let index = live.index(place, name, x);
            let group = &mut live.section.groups[place.0];
            group.measurements[index].samples.push(sample);
        });
    }

    /// Adds single requests, in nanoseconds, to what the samples are of.
    pub(super) fn requests(
        &self,
        place: Place,
        name: &str,
        x: Option<f64>,
        requests: &Histogram<u64>,
    ) {
        self.live(|live| {
            let index = live.index(place, name, x);
            let all = live.histograms.entry((place.0, index));
            let all = all.or_insert_with(super::load::histogram);
            // Both have the same bounds, so that every value has room.
            let _ = all.add(requests);
        });
    }

    /// Ends the section: what comes now is none of it.
    pub(crate) fn end(&self) {
        self.progress(1.0, "");
        self.live(Live::close);
    }
}

impl Live {
    fn index(&mut self, place: Place, name: &str, x: Option<f64>) -> usize {
        let measurements = &mut self.section.groups[place.0].measurements;
        let found = measurements
            .iter()
            .position(|it| it.name == name && it.x == x);
        found.unwrap_or_else(|| {
            measurements.push(Measurement {
                name: name.to_owned(),
                x,
                value: 0.0,
                interval: None,
                count: 0,
                samples: Vec::new(),
                percentiles: None,
            });
            measurements.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_can_be_looked_at_at_any_time() {
        let recorder = Recorder::new(Box::new(|_, _| {}));
        let part = recorder.part("test", "A test", (0.0, 1.0));
        assert!(recorder.sections().is_empty());
        let place = part.group("times", "Times", Unit::Ms, Better::Lower);
        for sample in 0..3000 {
            part.sample(place, "one", None, f64::from(sample));
        }
        part.sample(place, "two", Some(1.0), 2.0);
        let section = &recorder.sections()[0];
        assert_eq!(section.notes, [UNFINISHED]);
        let [one, two] = &section.groups[0].measurements[..] else {
            panic!("two: {section:?}");
        };
        assert_eq!((one.value, one.count), (1499.5, 3000));
        assert_eq!(one.samples.len(), MAX_SAMPLES);
        assert_eq!((one.samples[0], one.samples[999]), (0.0, 2999.0));
        assert_eq!(one.percentiles.map(|it| it.p99), Some(2969.0));
        assert_eq!(
            (two.value, two.interval, two.percentiles),
            (2.0, None, None)
        );
    }

    #[test]
    fn numbers_have_six_digits() {
        assert_eq!(rounded(1234.567891), 1234.57);
        assert_eq!(rounded(0.000123456789), 0.000123457);
        assert_eq!(rounded(123_456_789.0), 123_457_000.0);
        assert_eq!(rounded(0.0), 0.0);
    }
}
