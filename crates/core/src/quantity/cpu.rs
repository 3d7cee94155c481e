//! Shares of CPU.

use std::fmt;

use super::{
    Cpu, Fault,
    decimal::{Decimal, split_unit},
};

impl Cpu {
    /// Reads thousandths of a core, `500m`, or cores, `2` or `0.5`.
    ///
    /// The syntax is that of CPU resources in Kubernetes.
    pub(super) fn read(text: &str) -> Result<Self, Fault> {
        let (number, unit) = split_unit(text);
        let decimal = Decimal::parse(number)?;
        let per_unit = match unit {
            "" => 1000,
            "m" => 1,
            unit => return Err(Fault::UnknownUnit(unit.to_owned())),
        };
        let millis = u32::try_from(decimal.times(per_unit)?).map_err(|_| Fault::TooLarge)?;
        Ok(Self { millis })
    }
}

/// Whole cores as a number, everything else in thousandths.
impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.millis.is_multiple_of(1000) {
            write!(f, "{}", self.millis / 1000)
        } else {
            write!(f, "{}m", self.millis)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares() {
        for (text, millis, canonical) in [
            ("500m", 500, "500m"),
            ("0.5", 500, "500m"),
            ("2", 2000, "2"),
            ("2000m", 2000, "2"),
            ("1.25", 1250, "1250m"),
            ("0", 0, "0"),
        ] {
            let cpu = Cpu::parse(text).expect(text);
            assert_eq!(
                (cpu.millis, cpu.to_string().as_str()),
                (millis, canonical),
                "{text}"
            );
        }
        for (text, message) in [
            ("", "`` is not a CPU share"),
            ("m", "`m` is not a CPU share"),
            ("-1", "`-1` is not a CPU share"),
            ("half", "`half` is not a CPU share"),
            (
                "0.0005",
                "`0.0005` is not a whole number of thousandths of a core",
            ),
            (
                "0.5m",
                "`0.5m` is not a whole number of thousandths of a core",
            ),
            ("5 cores", "`5 cores` has the unknown unit ` cores`"),
            ("5000000", "`5000000` is too large"),
        ] {
            assert_eq!(Cpu::parse(text).expect_err(text).to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn the_canonical_text_is_the_same_share(millis in any::<u32>(), shift in 0u32..32) {
            let cpu = Cpu { millis: millis >> shift };
            prop_assert_eq!(Cpu::parse(&cpu.to_string()), Ok(cpu));
        }

        #[test]
        fn no_text_panics(text in "\\PC*|[0-9.]{0,60}m?") {
            if let Ok(cpu) = Cpu::parse(&text) {
                prop_assert_eq!(Cpu::parse(&cpu.to_string()), Ok(cpu));
            }
        }
    }
}
