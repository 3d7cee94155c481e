//! Percentages, and numbers of pods that may be percentages.

use std::fmt;

use super::{Amount, Kind, Percent, QuantityError};

impl Percent {
    /// Parses a whole number and a percent sign, as in `25%`.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let kind = Kind::Percent;
        match text.strip_suffix('%') {
            Some(number) => whole(number, text, kind).map(Self),
            None if whole(text, text, kind).is_ok() => Err(QuantityError::NoUnit {
                text: text.to_owned(),
                kind,
            }),
            None => Err(QuantityError::Malformed {
                text: text.to_owned(),
                kind,
            }),
        }
    }
}

impl Amount {
    /// Parses a whole number, as in `3`, or a percentage, as in `25%`.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let kind = Kind::Amount;
        match text.strip_suffix('%') {
            Some(number) => whole(number, text, kind).map(Percent).map(Self::Percent),
            None => whole(text, text, kind).map(Self::Count),
        }
    }

    /// Whether it is nothing, however many replicas there are.
    pub fn is_zero(self) -> bool {
        match self {
            Self::Count(number) | Self::Percent(Percent(number)) => number == 0,
        }
    }
}

fn whole(number: &str, text: &str, kind: Kind) -> Result<u32, QuantityError> {
    let text = || text.to_owned();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        let fraction = number.split_once('.').is_some_and(|(whole, rest)| {
            let mut digits = whole.bytes().chain(rest.bytes());
            !whole.is_empty() && !rest.is_empty() && digits.all(|byte| byte.is_ascii_digit())
        });
        return Err(match fraction {
            true => QuantityError::Fraction { text: text(), kind },
            false => QuantityError::Malformed { text: text(), kind },
        });
    }
    number
        .parse()
        .map_err(|_| QuantityError::TooLarge { text: text(), kind })
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
