//! Numbers of reports as people read them.

use std::time::Duration;

use crate::{
    cli::output::{size, time},
    serve::bench::report::{Better, Ending, Measurement, Noise, Report, Unit},
};

/// A number with its unit.
pub(super) fn value(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Ms => time(Duration::try_from_secs_f64(value / 1e3).unwrap_or_default()),
        Unit::PerSecond => format!("{}/s", thousands(value)),
        Unit::Bytes => size(value as u64),
        Unit::Count => thousands(value),
    }
}

/// A number with a comma after each three digits, and without decimals where they say little.
fn thousands(number: f64) -> String {
    if number.fract() != 0.0 && number.abs() < 100.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{:.0}", number.abs());
    let sign = if number < 0.0 { "-" } else { "" };
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{sign}{text}")
}

/// How well the value of a measurement is known: `± 3 %`, and nothing where that is not known.
pub(super) fn precision(measurement: &Measurement) -> String {
    match measurement.interval {
        Some([low, high]) if measurement.value > 0.0 => {
            format!("± {:.0} %", (high - low) / 2.0 / measurement.value * 100.0)
        }
        _ => String::new(),
    }
}

/// A place on an axis.
pub(super) fn place(x: f64) -> String {
    thousands(x)
}

/// What a ratio of new to old means.
pub(super) fn verdict(unit: Unit, better: Better, ratio: f64) -> String {
    let word = match (unit, better, ratio < 1.0) {
        (Unit::Ms, Better::Lower, true) => "faster",
        (Unit::Ms, Better::Lower, false) => "slower",
        (_, _, true) => "less",
        (_, _, false) => "more",
    };
    match ratio < 1.0 {
        true => format!("{} {word}", times(1.0 / ratio)),
        false => format!("{} {word}", times(ratio)),
    }
}

/// `1.32 ×`.
pub(super) fn times(ratio: f64) -> String {
    match ratio {
        large if large >= 99.5 => format!("{large:.0} ×"),
        some if some >= 9.95 => format!("{some:.1} ×"),
        small => format!("{small:.2} ×"),
    }
}

/// How a run ended, unless everything was measured.
pub(super) fn ending(report: &Report) -> Option<&'static str> {
    match report.end {
        Ending::Complete => None,
        Ending::Interrupted => Some("interrupted: these are the figures until then"),
        Ending::TimeLimit => {
            Some("ended by its time limit (`--time-limit`): these are the figures until then")
        }
        Ending::Failed => Some("it failed: these are the figures until then"),
    }
}

/// What a reader has to know of the program and the machine.
pub(super) fn conditions(report: &Report) -> String {
    let (program, machine) = (&report.program, &report.machine);
    format!(
        "sampan {} (wasmtime {}, {}, {}) on {} × {}, {} of memory, {}",
        program.sampan,
        program.wasmtime,
        program.target,
        program.build,
        machine.processors,
        machine.cpu,
        size(machine.memory_bytes),
        machine.kernel
    )
}

/// What was wrong with the conditions of a whole report.
pub(super) fn warnings(report: &Report) -> Vec<String> {
    let mut warnings: Vec<String> = ending(report).map(str::to_owned).into_iter().collect();
    if report.program.build != "release" {
        let text = "a debug build: its figures say little of a packaged program";
        warnings.push(text.to_owned());
    }
    warnings
}

/// Whether the machine was quiet.
pub(super) fn noise(noise: &Noise) -> String {
    let percent = |part: f64| format!("{:.0} %", part * 100.0);
    let (other, stolen) = (percent(noise.other), percent(noise.stolen));
    match noise.busy {
        true => format!(
            "TOO BUSY to believe the figures: other processes had {other} of the processors, other \
             machines {stolen}"
        ),
        false => {
            format!("quiet: other processes had {other} of the processors, other machines {stolen}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(value(Unit::Ms, 0.05), "50 µs");
        assert_eq!(value(Unit::PerSecond, 61_300.4), "61,300/s");
        assert_eq!(value(Unit::Count, 3.0), "3");
        assert_eq!(value(Unit::Count, 2.55), "2.5");
        assert_eq!(value(Unit::Bytes, 2048.0), "2.0 KiB");
    }

    #[test]
    fn a_ratio_says_which_way_it_goes() {
        let faster = verdict(Unit::Ms, Better::Lower, 0.5);
        assert_eq!(faster, "2.00 × faster");
        let more = verdict(Unit::PerSecond, Better::Higher, 1.25);
        assert_eq!(more, "1.25 × more");
        assert_eq!(verdict(Unit::Ms, Better::Lower, 12.34), "12.3 × slower");
    }
}
