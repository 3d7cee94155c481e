//! Medians, and how well they are known.

/// Samples that a confidence interval takes.
const ENOUGH: usize = 5;
/// How often samples are drawn again.
const RESAMPLES: usize = 1000;
/// The part of all results that an interval leaves out, half of it at each end.
const OUTSIDE: f64 = 0.05;
/// The same draws each time: a report that is made again says the same.
const SEED: u64 = 20;

/// The value at or below which this part of all lies; zero without any. They have to be sorted.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> f64 {
    let rank = (sorted.len() as f64 * part).ceil().max(1.0) as usize;
    let at = sorted.get(rank.min(sorted.len()).saturating_sub(1));
    at.copied().unwrap_or_default()
}

/// The value in the middle, or between the two that are; zero without any.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    match (sorted.get(low), sorted.get(high)) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => 0.0,
    }
}

/// What the median lies in with a confidence of 95 %.
pub(crate) fn interval(samples: &[f64]) -> Option<[f64; 2]> {
    if samples.len() < ENOUGH {
        return None;
    }
    let mut random = fastrand::Rng::with_seed(SEED);
    Some(inner((0..RESAMPLES).map(|_| drawn(samples, &mut random))))
}

/// How many times the medians of the second are those of the first, as the geometric mean over all
/// pairs, and what that lies in with a confidence of 95 %. `None` if there is nothing to divide.
pub(crate) fn ratio(pairs: &[(&[f64], &[f64])]) -> Option<(f64, Option<[f64; 2]>)> {
    let mean = |median: &mut dyn FnMut(&[f64]) -> f64| {
        let logs = pairs
            .iter()
            .map(|(old, new)| (median(new) / median(old)).ln());
        (logs.sum::<f64>() / pairs.len() as f64).exp()
    };
    let all = mean(&mut median);
    if pairs.is_empty() || !all.is_finite() || all <= 0.0 {
        return None;
    }
    let enough = pairs
        .iter()
        .all(|(old, new)| old.len().min(new.len()) >= ENOUGH);
    let mut random = fastrand::Rng::with_seed(SEED);
    let interval = enough.then(|| {
        let again =
            (0..RESAMPLES).map(|_| mean(&mut |samples: &[f64]| drawn(samples, &mut random)));
        inner(again.filter(|ratio| ratio.is_finite()))
    });
    Some((all, interval))
}

/// The median of as many samples as there are, each drawn from all of them.
fn drawn(samples: &[f64], random: &mut fastrand::Rng) -> f64 {
    let again: Vec<f64> = samples
        .iter()
        .map(|_| samples[random.usize(..samples.len())])
        .collect();
    median(&again)
}

fn inner(results: impl Iterator<Item = f64>) -> [f64; 2] {
    let mut results: Vec<f64> = results.collect();
    results.sort_by(f64::total_cmp);
    [OUTSIDE / 2.0, 1.0 - OUTSIDE / 2.0].map(|part| quantile(&results, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.99), 99.0);
        assert_eq!(quantile(&hundred, 1.0), 100.0);
    }

    #[test]
    fn an_interval_holds_the_median_and_no_more_than_the_samples() {
        assert_eq!(interval(&[1.0; 4]), None);
        let samples = [9.0, 10.0, 10.5, 11.0, 12.0, 9.5, 10.2];
        let [low, high] = interval(&samples).expect("enough samples");
        assert!((9.0..10.2).contains(&low) && (10.2..=12.0).contains(&high));
        assert_eq!(interval(&samples), Some([low, high]), "the same each time");
    }

    #[test]
    fn a_ratio_is_of_all_pairs() {
        let old: [&[f64]; 2] = [&[10.0, 11.0, 9.0, 10.0, 10.0], &[100.0; 5]];
        let new: [&[f64]; 2] = [&[20.0, 21.0, 19.0, 20.0, 20.0], &[200.0; 5]];
        let pairs = [(old[0], new[0]), (old[1], new[1])];
        let (ratio, within) = super::ratio(&pairs).expect("a ratio");
        assert!((ratio - 2.0).abs() < 1e-9);
        let [low, high] = within.expect("enough samples");
        assert!(low <= 2.0 && 2.0 <= high && low > 1.8 && high < 2.2);
        let few = super::ratio(&[(&[1.0], &[3.0])]);
        assert_eq!(few.map(|(_, interval)| interval), Some(None));
        assert_eq!(super::ratio(&[(&[0.0], &[3.0])]), None);
        assert_eq!(super::ratio(&[]), None);
    }
}
