//! Decimal numbers without rounding: digits, and optionally a point and more digits.

use super::Fault;

/// An unsigned decimal number: `digits` divided by ten to the power of `places`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    digits: u128,
    places: u32,
}

impl Decimal {
    /// Parses `12` or `1.5`; a sign, an exponent, a bare point and separators are refused.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        let (whole, fraction) = match text.split_once('.') {
            Some((_, "")) => return Err(Fault::Malformed),
            Some((whole, fraction)) => (whole, fraction),
            None => (text, ""),
        };
        let digits = whole.bytes().chain(fraction.bytes());
        if whole.is_empty() || !digits.clone().all(|byte| byte.is_ascii_digit()) {
            return Err(Fault::Malformed);
        }
        // Zeros at the end of a fraction say nothing and must not count as digits.
        let fraction = fraction.trim_end_matches('0');
        let mut value: u128 = 0;
        for byte in whole.bytes().chain(fraction.bytes()) {
            value = value
                .checked_mul(10)
                .and_then(|value| value.checked_add(u128::from(byte - b'0')))
                .ok_or(Fault::TooLarge)?;
        }
        let places = u32::try_from(fraction.len()).map_err(|_| Fault::TooLarge)?;
        Ok(Self {
            digits: value,
            places,
        })
    }

    /// The number times `unit`, which must be whole and fit in a `u64`.
    pub(super) fn times(self, unit: u64) -> Result<u64, Fault> {
        let product = self
            .digits
            .checked_mul(u128::from(unit))
            .ok_or(Fault::TooLarge)?;
        // 10^38 is the largest power of ten in a `u128`; a divisor beyond it leaves a fraction.
        let divisor = 10u128.checked_pow(self.places).ok_or(Fault::Fraction)?;
        if product % divisor != 0 {
            return Err(Fault::Fraction);
        }
        u64::try_from(product / divisor).map_err(|_| Fault::TooLarge)
    }
}

/// Splits `64MiB` into its number (digits and points at the front) and the rest.
pub(super) fn split_unit(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_exact() {
        let times = |text: &str, unit| Decimal::parse(text).and_then(|decimal| decimal.times(unit));
        assert_eq!(times("1.5", 1024), Ok(1536));
        assert_eq!(times("0.000", 1), Ok(0));
        assert_eq!(times("18446744073709551615", 1), Ok(u64::MAX));
        assert_eq!(times("18446744073709551616", 1), Err(Fault::TooLarge));
        assert_eq!(times("0.3", 1), Err(Fault::Fraction));
        assert_eq!(times(&"9".repeat(60), 1), Err(Fault::TooLarge));
        assert_eq!(
            times(&format!("0.{}1", "0".repeat(50)), 1),
            Err(Fault::Fraction)
        );
    }

    #[test]
    fn only_digits_and_one_point() {
        for bad in [
            "", ".", "1.", ".5", "1.2.3", "+1", "-1", "1e3", "1_000", "١",
        ] {
            assert_eq!(Decimal::parse(bad), Err(Fault::Malformed), "{bad:?}");
        }
    }
}
