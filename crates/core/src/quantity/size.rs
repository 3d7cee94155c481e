//! Sizes in bytes.

use std::fmt;

use super::{
    ByteSize, Fault,
    decimal::{Decimal, split_unit},
};

/// Units and their bytes: first the binary ones, then the decimal ones, each from small to large.
const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl ByteSize {
    /// Reads a number and a unit, as in `64MiB` or `1.5GB`. A bare number is refused: it could
    /// be bytes or megabytes.
    pub(super) fn read(text: &str) -> Result<Self, Fault> {
        let (number, unit) = split_unit(text);
        let decimal = Decimal::parse(number)?;
        if unit.is_empty() {
            return Err(Fault::NoUnit);
        }
        let known = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, bytes) = known.ok_or_else(|| Fault::UnknownUnit(unit.to_owned()))?;
        decimal.times(*bytes).map(Self)
    }
}

/// The unit that gives the smallest whole number; of two that do, the binary one.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0B");
        }
        let fitting = UNITS
            .iter()
            .filter(|(_, bytes)| self.0.is_multiple_of(*bytes));
        let (unit, bytes) = fitting
            .min_by_key(|(_, bytes)| self.0 / bytes)
            .unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes, canonical) in [
            ("0B", 0, "0B"),
            ("512B", 512, "512B"),
            ("1024B", 1024, "1KiB"),
            ("64MiB", 64 << 20, "64MiB"),
            ("16MB", 16_000_000, "16MB"),
            ("1.5KiB", 1536, "1536B"),
            ("0.5GiB", 1 << 29, "512MiB"),
            ("1000KiB", 1_024_000, "1000KiB"),
            ("007KB", 7_000, "7KB"),
            ("4TB", 4_000_000_000_000, "4TB"),
        ] {
            let size = ByteSize::parse(text).expect(text);
            assert_eq!(
                (size.0, size.to_string().as_str()),
                (bytes, canonical),
                "{text}"
            );
        }
    }

    #[test]
    fn refused() {
        for (text, message) in [
            ("", "`` is not a size"),
            ("MiB", "`MiB` is not a size"),
            ("64", "`64` has no unit"),
            ("64 MiB", "`64 MiB` has the unknown unit ` MiB`"),
            ("64mb", "`64mb` has the unknown unit `mb`"),
            ("64M", "`64M` has the unknown unit `M`"),
            ("-1B", "`-1B` is not a size"),
            ("0.3B", "`0.3B` is not a whole number of bytes"),
            ("1.2.3B", "`1.2.3B` is not a size"),
            ("16777216TiB", "`16777216TiB` is too large"),
            ("NaN", "`NaN` is not a size"),
        ] {
            let error = ByteSize::parse(text).expect_err(text);
            assert_eq!(error.to_string(), message);
        }
    }

    proptest! {
        #[test]
        fn the_canonical_text_is_the_same_size(bytes in any::<u64>(), shift in 0u32..64) {
            let size = ByteSize(bytes >> shift);
            prop_assert_eq!(ByteSize::parse(&size.to_string()), Ok(size));
        }

        #[test]
        fn no_text_panics(text in "\\PC*|[0-9.]{0,40}[KMGT]?i?B?") {
            if let Ok(size) = ByteSize::parse(&text) {
                prop_assert_eq!(ByteSize::parse(&size.to_string()), Ok(size));
            }
        }
    }
}
