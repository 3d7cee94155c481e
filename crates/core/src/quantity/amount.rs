//! Percentages, and numbers of pods that may be percentages.

use std::fmt;

use super::{Amount, Fault, Percent};

impl Percent {
    /// Reads a whole number and a percent sign, as in `25%`.
    pub(super) fn read(text: &str) -> Result<Self, Fault> {
        match text.strip_suffix('%') {
            Some(number) => whole(number).map(Self),
            None if whole(text).is_ok() => Err(Fault::NoUnit),
            None => Err(Fault::Malformed),
        }
    }
}

impl Amount {
    /// Reads a whole number, as in `3`, or a percentage, as in `25%`.
    pub(super) fn read(text: &str) -> Result<Self, Fault> {
        match text.strip_suffix('%') {
            Some(number) => whole(number).map(Percent).map(Self::Percent),
            None => whole(text).map(Self::Count),
        }
    }

    /// Whether it is nothing, however many replicas there are.
    pub fn is_zero(self) -> bool {
        match self {
            Self::Count(number) | Self::Percent(Percent(number)) => number == 0,
        }
    }
}

fn whole(number: &str) -> Result<u32, Fault> {
    let is_whole = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    match number.split_once('.') {
        None if is_whole(number) => number.parse().map_err(|_| Fault::TooLarge),
        Some((whole, rest)) if is_whole(whole) && is_whole(rest) => Err(Fault::Fraction),
        Some(_) | None => Err(Fault::Malformed),
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(number) => number.fmt(f),
            Self::Percent(percent) => percent.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn percentages_and_amounts() {
        assert_eq!(Percent::parse("25%"), Ok(Percent(25)));
        assert_eq!(Amount::parse("25%"), Ok(Amount::Percent(Percent(25))));
        assert_eq!(Amount::parse("3"), Ok(Amount::Count(3)));
        assert!(Amount::Count(0).is_zero() && Amount::Percent(Percent(0)).is_zero());
        for (text, message) in [
            ("25", "`25` has no unit"),
            ("%", "`%` is not a percentage"),
            ("12.5%", "`12.5%` is not a whole number of percent"),
            ("-1%", "`-1%` is not a percentage"),
            ("5000000000%", "`5000000000%` is too large"),
            ("25 %", "`25 %` is not a percentage"),
        ] {
            assert_eq!(Percent::parse(text).expect_err(text).to_string(), message);
        }
        for bad in ["", "many", "1.5", "-1", "4294967296", "+1"] {
            assert!(Amount::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn the_canonical_text_is_the_same_amount(number in any::<u32>(), percent in any::<bool>()) {
            let amount = match percent {
                true => Amount::Percent(Percent(number)),
                false => Amount::Count(number),
            };
            prop_assert_eq!(Amount::parse(&amount.to_string()), Ok(amount));
            prop_assert_eq!(Percent::parse(&Percent(number).to_string()), Ok(Percent(number)));
        }

        #[test]
        fn no_text_panics(text in "\\PC*|[0-9.]{0,12}%?") {
            if let Ok(amount) = Amount::parse(&text) {
                prop_assert_eq!(Amount::parse(&amount.to_string()), Ok(amount));
            }
            let _ = Percent::parse(&text);
        }
    }
}
