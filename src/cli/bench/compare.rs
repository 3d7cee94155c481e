//! A report beside an earlier one.

use std::collections::BTreeMap;

use super::show;
use crate::serve::bench::{
    report::{Better, Group, Measurement, Noise, Report, Section, Unit},
    statistics::ratio,
};

/// What has changed since an earlier report.
pub(super) struct Comparison {
    /// Where the earlier report is.
    pub(super) name: String,
    /// What differs in the conditions of both, in sentences.
    pub(super) differences: Vec<String>,
    /// What both have in common.
    pub(super) groups: Vec<Compared>,
    /// What was measured then and now, as people call it.
    subjects: [String; 2],
    /// How many times the old time the new one is, over all times and rates.
    speed: Option<Change>,
    /// Whether one of both was measured on a machine that was too busy.
    is_doubtful: bool,
}

/// A group that both reports have.
pub(super) struct Compared {
    pub(super) bench: String,
    pub(super) id: String,
    pub(super) title: String,
    pub(super) unit: Unit,
    pub(super) better: Better,
    /// Over all measurements of the group: the geometric mean.
    pub(super) all: Change,
    pub(super) each: Vec<(Measurement, Measurement, Option<Change>)>,
}

/// How many times the old value the new one is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    pub(super) ratio: f64,
    /// What the ratio lies in with a confidence of 95 %.
    pub(super) interval: Option<[f64; 2]>,
}

/// What is to be made of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Better,
    Worse,
    /// It is a fact and no merit.
    Different,
    /// The interval has 1 in it, or there is none.
    Unclear,
}

impl Change {
    fn of(pairs: &[(&[f64], &[f64])]) -> Option<Self> {
        let (ratio, interval) = ratio(pairs)?;
        Some(Self { ratio, interval })
    }

    pub(super) fn verdict(&self, better: Better) -> Verdict {
        let Some([low, high]) = self.interval else {
            return Verdict::Unclear;
        };
        if low <= 1.0 && 1.0 <= high {
            return Verdict::Unclear;
        }
        match (better, self.ratio < 1.0) {
            (Better::Lower, true) | (Better::Higher, false) => Verdict::Better,
            (Better::Lower, false) | (Better::Higher, true) => Verdict::Worse,
            (Better::Neither, _) => Verdict::Different,
        }
    }
}

impl Comparison {
    pub(super) fn new(name: String, before: &Report, after: &Report) -> Self {
        let mut known = BTreeMap::new();
        for section in &before.sections {
            for group in &section.groups {
                known.insert((&section.bench, &group.id), group);
            }
        }
        let mut groups = Vec::new();
        for section in &after.sections {
            for group in &section.groups {
                let old = known.get(&(&section.bench, &group.id));
                groups.extend(old.and_then(|old| compared(&section.bench, old, group)));
            }
        }
        let is_busy = |report: &Report| {
            let mut noises = report.sections.iter().filter_map(|it| it.noise);
            noises.any(|it| it.busy)
        };
        Self {
            subjects: subjects(&name, before, after),
            name,
            differences: differences(before, after),
            speed: speed(&groups),
            is_doubtful: is_busy(before) || is_busy(after),
            groups,
        }
    }

    /// The answer to "how much faster is it now?", in one sentence.
    pub(super) fn answer(&self) -> String {
        let [old, new] = &self.subjects;
        let Some(speed) = self.speed else {
            return format!("No time and no rate was measured of both {new} and {old}.");
        };
        let mut text = match speed.verdict(Better::Lower) {
            Verdict::Better | Verdict::Worse => {
                let words = show::verdict(Unit::Ms, Better::Lower, speed.ratio);
                format!("{new} is {words} than {old}")
            }
            Verdict::Different | Verdict::Unclear => {
                format!("Between {new} and {old} there is no clear difference")
            }
        };
        let of = |verdict| {
            let groups = self.groups.iter().filter(|it| is_speed(it));
            let same = groups.filter(|it| it.all.verdict(it.better) == verdict);
            same.count()
        };
        let (faster, slower) = (of(Verdict::Better), of(Verdict::Worse));
        let all = self.groups.iter().filter(|it| is_speed(it)).count();
        if all > 1 {
            text += &format!(
                " over all {all} groups of times and rates: faster in {faster}, slower in {slower}"
            );
        }
        if self.is_doubtful {
            text += "; but the machine was too busy to believe it";
        }
        text + "."
    }

    /// The group of this section with this id.
    pub(super) fn group(&self, bench: &str, id: &str) -> Option<&Compared> {
        let mut groups = self.groups.iter();
        groups.find(|group| group.bench == bench && group.id == id)
    }
}

impl Compared {
    /// The earlier value of a measurement, and how it has changed.
    pub(super) fn of(&self, new: &Measurement) -> Option<(&Measurement, Option<Change>)> {
        let mut each = self.each.iter();
        let found = each.find(|(_, it, _)| it.name == new.name && it.x == new.x);
        found.map(|(old, _, change)| (old, *change))
    }
}

/// Whether a group tells how fast something is.
fn is_speed(group: &Compared) -> bool {
    match group.unit {
        Unit::Ms | Unit::PerSecond => group.better != Better::Neither,
        Unit::Bytes | Unit::Count => false,
    }
}

/// How many times the old time the new one is: of a rate, that is the inverse.
fn speed(groups: &[Compared]) -> Option<Change> {
    let mut pairs = Vec::new();
    for group in groups.iter().filter(|it| is_speed(it)) {
        let time = |samples: &[f64]| -> Vec<f64> {
            let inverted = group.unit == Unit::PerSecond;
            let of = |it: &f64| if inverted { it.recip() } else { *it };
            samples.iter().map(of).collect()
        };
        let each = group.each.iter().filter(|(_, _, change)| change.is_some());
        pairs.extend(each.map(|(old, new, _)| (time(&old.samples), time(&new.samples))));
    }
    let pairs: Vec<(&[f64], &[f64])> = pairs
        .iter()
        .map(|(old, new)| (&old[..], &new[..]))
        .collect();
    Change::of(&pairs)
}

/// What was measured then and now: components if those differ, versions, or runs.
fn subjects(name: &str, before: &Report, after: &Report) -> [String; 2] {
    for section in &after.sections {
        let mut sections = before.sections.iter();
        let old = sections.find(|old| old.bench == section.bench);
        let both = old.and_then(|it| it.components.first().zip(section.components.first()));
        if let Some((old, new)) = both.filter(|(old, new)| old.digest != new.digest) {
            return match old.name == new.name {
                true => [old, new].map(|it| format!("{} {}", it.name, short(&it.digest))),
                false => [old.name.clone(), new.name.clone()],
            };
        }
    }
    let [old, new] = [before, after].map(|it| format!("sampan {}", it.program.sampan));
    match old == new {
        true => [name.to_owned(), "this run".to_owned()],
        false => [old, new],
    }
}

fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn compared(bench: &str, old: &Group, new: &Group) -> Option<Compared> {
    if old.unit != new.unit {
        return None;
    }
    let same = |new: &Measurement| {
        let mut all = old.measurements.iter();
        let old = all.find(|old| old.name == new.name && old.x == new.x)?;
        let change = Change::of(&[(&old.samples, &new.samples)]);
        Some((old.clone(), new.clone(), change))
    };
    let each: Vec<_> = new.measurements.iter().filter_map(same).collect();
    let with_ratio = each.iter().filter(|(_, _, change)| change.is_some());
    let pairs: Vec<(&[f64], &[f64])> = with_ratio
        .map(|(old, new, _)| (&old.samples[..], &new.samples[..]))
        .collect();
    Some(Compared {
        bench: bench.to_owned(),
        id: new.id.clone(),
        title: new.title.clone(),
        unit: new.unit,
        better: new.better,
        all: Change::of(&pairs)?,
        each,
    })
}

fn differences(before: &Report, after: &Report) -> Vec<String> {
    let mut told = Vec::new();
    let mut differ = |what: &str, before: &dyn ToString, after: &dyn ToString| {
        let (before, after) = (before.to_string(), after.to_string());
        let differs = before != after;
        told.extend(differs.then(|| format!("{what}: {before} then, {after} now")));
    };
    let (old, new) = (&before.machine, &after.machine);
    differ("processor", &old.cpu, &new.cpu);
    differ("processors", &old.processors, &new.processors);
    differ("kernel", &old.kernel, &new.kernel);
    let (old, new) = (&before.program, &after.program);
    differ("version", &old.sampan, &new.sampan);
    differ("wasmtime", &old.wasmtime, &new.wasmtime);
    differ("build", &old.build, &new.build);
    for section in &after.sections {
        let mut sections = before.sections.iter();
        let Some(old) = sections.find(|old| old.bench == section.bench) else {
            continue;
        };
        let names = |section: &Section| {
            let names = section.components.iter();
            let names = names.map(|it| format!("{} {}", it.name, short(&it.digest)));
            names.collect::<Vec<_>>().join(", ")
        };
        let what = format!("component of {}", section.bench);
        differ(&what, &names(old), &names(section));
        let noise = |noise: Option<Noise>| match noise {
            Some(Noise { busy: true, .. }) => "too busy",
            Some(Noise { busy: false, .. }) => "quiet",
            None => "unknown",
        };
        let what = format!("the machine during {}", section.bench);
        differ(&what, &noise(old.noise), &noise(section.noise));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(samples: &[f64]) -> Group {
        Group {
            id: "steps".to_owned(),
            title: "Steps".to_owned(),
            unit: Unit::Ms,
            better: Better::Lower,
            axis: None,
            measurements: vec![Measurement {
                name: "load".to_owned(),
                x: None,
                value: 0.0,
                interval: None,
                count: 0,
                samples: samples.to_vec(),
                percentiles: None,
            }],
        }
    }

    #[test]
    fn a_change_is_believed_when_its_interval_is_on_one_side() {
        let old = group(&[10.0, 10.1, 9.9, 10.0, 10.2]);
        let verdict = |new: &[f64]| {
            let compared = compared("cold-start", &old, &group(new)).expect("both have it");
            compared.all.verdict(compared.better)
        };
        assert_eq!(verdict(&[5.0, 5.1, 4.9, 5.0, 5.2]), Verdict::Better);
        assert_eq!(verdict(&[15.0, 15.1, 14.9, 15.0, 15.2]), Verdict::Worse);
        assert_eq!(verdict(&[9.0, 11.1, 9.9, 10.0, 10.2]), Verdict::Unclear);
        assert_eq!(verdict(&[5.0]), Verdict::Unclear);
    }

    #[test]
    fn the_answer_is_of_all_times_and_rates() {
        let of = |unit, better, old: f64, new: f64| {
            let sampled = |value: f64| Group {
                unit,
                better,
                ..group(&[value; 5])
            };
            compared("throughput", &sampled(old), &sampled(new)).expect("both have it")
        };
        let told = |groups: Vec<Compared>, is_doubtful| {
            let comparison = Comparison {
                name: "v1.json".to_owned(),
                differences: Vec::new(),
                subjects: ["v1.wasm".to_owned(), "v2.wasm".to_owned()],
                speed: speed(&groups),
                is_doubtful,
                groups,
            };
            comparison.answer()
        };
        let time = |new| of(Unit::Ms, Better::Lower, 10.0, new);
        let rate = |new| of(Unit::PerSecond, Better::Higher, 100.0, new);
        assert_eq!(
            told(vec![time(5.0)], false),
            "v2.wasm is 2.00 × faster than v1.wasm."
        );
        let memory = of(Unit::Bytes, Better::Lower, 10.0, 90.0);
        assert_eq!(
            told(vec![time(5.0), rate(50.0), memory], false),
            "Between v2.wasm and v1.wasm there is no clear difference over all 2 groups of times and \
             rates: faster in 1, slower in 1."
        );
        assert_eq!(
            told(vec![rate(50.0), time(20.0)], true),
            "v2.wasm is 2.00 × slower than v1.wasm over all 2 groups of times and rates: faster in \
             0, slower in 2; but the machine was too busy to believe it."
        );
        assert_eq!(
            told(Vec::new(), false),
            "No time and no rate was measured of both v2.wasm and v1.wasm."
        );
    }
}
