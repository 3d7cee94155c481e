//! Secrets of a pod, for which `***` stands where its guests print them.

use std::borrow::Cow;

use memchr::memmem;
use sampan_core::secret::{SecretValue, SecretValues};

/// What stands for a secret.
const STARS: &[u8] = b"***";
/// The fewest bytes of what is hidden: something shorter is in lines that have nothing to do with
/// it.
pub(super) const MIN_HIDDEN_BYTES: usize = 4;

/// What is hidden in the log of a pod: the whole value of each secret, and each line of one that has
/// several. The longest come first, so that no part of one is left.
#[derive(Debug, Default)]
pub(crate) struct Hidden(Vec<SecretValue>);

impl Hidden {
    /// What is hidden of these.
    pub(crate) fn of(secrets: &SecretValues) -> Self {
        let mut hidden = Vec::new();
        for secret in secrets.values() {
            let lines = secret.trimmed().split(|&byte| byte == b'\n');
            let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
            let long = lines.filter(|line| line.len() >= MIN_HIDDEN_BYTES);
            hidden.extend(long.map(|line| SecretValue::new(line.to_owned())));
        }
        hidden.sort_by(|a, b| {
            let by_length = b.bytes().len().cmp(&a.bytes().len());
            by_length.then_with(|| a.bytes().cmp(b.bytes()))
        });
        hidden.dedup();
        Self(hidden)
    }

    /// The text of a line with no secret in it.
    pub(super) fn in_line<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        let mut text = Cow::Borrowed(text);
        for secret in &self.0 {
            if let Some(hidden) = without(&text, secret.bytes()) {
                text = Cow::Owned(hidden);
            }
        }
        text
    }

    /// Where to cut a line that is too long, at most at `at`: before a secret that would be cut into
    /// two parts, of which neither would be found.
    pub(super) fn cut(&self, text: &[u8], at: usize) -> usize {
        let covers = |start: &usize| {
            let rest = &text[*start..];
            let mut secrets = self.0.iter().map(SecretValue::bytes);
            secrets.any(|secret| {
                secret.len() > at - start && (rest.starts_with(secret) || secret.starts_with(rest))
            })
        };
        let longest = self.0.first().map_or(0, |it| it.bytes().len());
        let first = (at + 1).saturating_sub(longest).max(1);
        (first..at).find(covers).unwrap_or(at)
    }
}

/// The text with stars in the place of something, if that is in it.
fn without(text: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    let mut hidden: Option<Vec<u8>> = None;
    let mut from = 0;
    for at in memmem::find_iter(text, secret) {
        let hidden = hidden.get_or_insert_default();
        hidden.extend_from_slice(&text[from..at]);
        hidden.extend_from_slice(STARS);
        from = at + secret.len();
    }
    if let Some(hidden) = &mut hidden {
        hidden.extend_from_slice(&text[from..]);
    }
    hidden
}

#[cfg(test)]
mod tests {
    use sampan_core::{name::Name, object::SecretUse};

    use super::*;

    fn hidden(values: &[&str]) -> Hidden {
        let secrets = values.iter().enumerate().map(|(number, value)| {
            let name = Name::parse("db").expect("a name");
            let version = number.to_string();
            let value = SecretValue::new(value.as_bytes().to_owned());
            (SecretUse { name, version }, value)
        });
        Hidden::of(&secrets.collect())
    }

    #[test]
    fn secrets_are_hidden_and_nothing_else() {
        let hidden = hidden(&[
            "hunter2\n",
            "hunter2-and-more",
            "abc",
            "line one\r\n--\nline two",
        ]);
        for (text, wanted) in [
            ("", ""),
            ("nothing", "nothing"),
            ("hunter2", "***"),
            ("a hunter2, and hunter2", "a ***, and ***"),
            ("hunter2-and-more", "***"),
            ("hunter2hunter2", "******"),
            ("hunter", "hunter"),
            ("abc", "abc"),
            ("-- line two", "-- ***"),
            ("the line one", "the ***"),
        ] {
            let shown = hidden.in_line(text.as_bytes());
            assert_eq!(String::from_utf8_lossy(&shown), wanted, "{text}");
        }
        assert!(!format!("{hidden:?}").contains("hunter2"));
    }

    #[test]
    fn no_secret_is_cut_into_two() {
        let hidden = hidden(&["hunter2", "0123456789"]);
        for (text, at, cut) in [
            ("xxxxhunter2xx", 4, 4),
            ("xxxxhunter2xx", 5, 4),
            ("xxxxhunter2xx", 10, 4),
            ("xxxxhunter2xx", 11, 11),
            // More of it may come.
            ("xxxxhun", 6, 4),
            ("xxxxhxx", 5, 5),
            ("xx012345678", 8, 2),
            // It could not be cut before the first character.
            ("hunter2", 3, 3),
        ] {
            assert_eq!(hidden.cut(text.as_bytes(), at), cut, "{text} at {at}");
        }
        assert_eq!(Hidden::default().cut(b"text", 2), 2);
    }
}
