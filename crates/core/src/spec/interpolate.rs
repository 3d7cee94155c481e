//! `${NAME}`, `${NAME:-default}`, `${NAME:?message}` and `$$` in the text of a spec.

use super::problem::quoted;

/// A text after replacement.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    /// The text with every variable replaced.
    pub(crate) text: String,
    /// Whether there was a variable, and not only `$$`.
    pub(crate) variables: bool,
}

/// Why a text is not replaced.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It would be longer than it may be.
    TooLong,
    /// It cannot be: what is wrong, and what to do about it.
    Unreplaceable(String, String),
}

fn unreplaceable(message: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure::Unreplaceable(message.into(), hint.into())
}

/// Replaces the variables in `text`, which may become `limit` bytes long; `None` when there is no
/// `$` in it. The work is bounded by `limit` too: nothing is looked up beyond it.
///
/// The forms are those of a POSIX shell's parameter expansion that Compose files use too. Unlike
/// there, a variable that is not set and has no default is an error, and a default cannot itself
/// contain a variable.
pub(crate) fn interpolate(
    text: &str,
    environment: &dyn Fn(&str) -> Option<String>,
    limit: usize,
) -> Result<Option<Replaced>, Failure> {
    let Some(first) = text.find('$') else {
        return Ok(None);
    };
    let mut replaced = Replaced {
        text: text[..first].to_owned(),
        variables: false,
    };
    let mut rest = &text[first..];
    while let Some(after) = rest.strip_prefix('$') {
        if replaced.text.len() >= limit {
            return Err(Failure::TooLong);
        }
        rest = if let Some(after) = after.strip_prefix('$') {
            replaced.text.push('$');
            after
        } else if let Some(after) = after.strip_prefix('{') {
            let (inside, after) = split_braces(after)?;
            replaced.text.push_str(&value_of(inside, environment)?);
            replaced.variables = true;
            after
        } else {
            return Err(unreplaceable(
                format!("{} has a lone `$`", quoted(text)),
                "write `$$` for a dollar sign, or `${NAME}` for the value of a variable",
            ));
        };
        let next = rest.find('$').unwrap_or(rest.len());
        replaced.text.push_str(&rest[..next]);
        rest = &rest[next..];
    }
    Ok(Some(replaced))
}

/// Splits what follows `${` at the closing brace; `$$` may stand inside, a variable may not.
fn split_braces(text: &str) -> Result<(&str, &str), Failure> {
    let Some((inside, after)) = text.split_once('}') else {
        return Err(unreplaceable(
            format!("{} has no closing `}}`", quoted(&format!("${{{text}"))),
            "write `${NAME}` or `${NAME:-default}`; `$$` stands for a dollar sign",
        ));
    };
    if inside.replace("$$", "").contains('$') {
        return Err(unreplaceable(
            format!(
                "{} has a variable inside a variable",
                quoted(&format!("${{{inside}}}"))
            ),
            "give a default without `${…}`; `$$` stands for a dollar sign",
        ));
    }
    Ok((inside, after))
}

/// The value of `NAME`, `NAME:-default` or `NAME:?message`.
fn value_of(inside: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, Failure> {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let end = inside
        .find(|c: char| !(first(c) || c.is_ascii_digit()))
        .unwrap_or(inside.len());
    let (name, operation) = inside.split_at(end);
    if !name.starts_with(first) {
        return Err(unreplaceable(
            format!(
                "{} has no name of a variable",
                quoted(&format!("${{{inside}}}"))
            ),
            "a name has letters, digits and `_`, and does not begin with a digit",
        ));
    }
    if operation.is_empty() {
        return environment(name).ok_or_else(|| {
            unreplaceable(
                format!("the variable {} is not set", quoted(name)),
                format!("set it in the environment, or give a default: `${{{name}:-default}}`"),
            )
        });
    }
    let value = || environment(name).filter(|value| !value.is_empty());
    if let Some(default) = operation.strip_prefix(":-") {
        return Ok(value().unwrap_or_else(|| default.replace("$$", "$")));
    }
    if let Some(message) = operation.strip_prefix(":?") {
        return value().ok_or_else(|| {
            let why = match message.trim() {
                "" => String::new(),
                message => format!(": {}", message.replace("$$", "$")),
            };
            unreplaceable(
                format!("the variable {} is not set or empty{why}", quoted(name)),
                "set it in the environment",
            )
        });
    }
    Err(unreplaceable(
        format!("{} cannot be understood", quoted(&format!("${{{inside}}}"))),
        "the forms are `${NAME}`, `${NAME:-default}` and `${NAME:?message}`",
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "SET" => Some("x".to_owned()),
            "EMPTY" => Some(String::new()),
            "DOLLAR" => Some("${SET}$$".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn what_is_replaced() {
        for (text, expected, variables) in [
            ("${SET}", "x", true),
            ("a${SET}b${SET}", "axbx", true),
            ("${EMPTY}", "", true),
            ("${EMPTY:-d}", "d", true),
            ("${UNSET:-}", "", true),
            ("${UNSET:-a:b c}", "a:b c", true),
            ("${UNSET:-$$5}", "$5", true),
            ("${SET:-d}", "x", true),
            ("${SET:?why}", "x", true),
            // A value is not read again.
            ("${DOLLAR}", "${SET}$$", true),
            ("$$", "$", false),
            ("$${SET}", "${SET}", false),
            ("ü$$ß", "ü$ß", false),
        ] {
            let replaced = Replaced {
                text: expected.to_owned(),
                variables,
            };
            assert_eq!(
                interpolate(text, &environment, 100),
                Ok(Some(replaced)),
                "{text}"
            );
        }
        assert_eq!(interpolate("plain }", &environment, 0), Ok(None));
    }

    #[test]
    fn nothing_is_looked_up_beyond_the_limit() {
        let looked = std::cell::Cell::new(0);
        let environment = |_: &str| {
            looked.set(looked.get() + 1);
            Some("x".repeat(100))
        };
        for form in ["${A}", "${A:-d}", "${A:?why}"] {
            looked.set(0);
            let long = interpolate(&form.repeat(1000), &environment, 950);
            assert_eq!((long, looked.get()), (Err(Failure::TooLong), 10), "{form}");
        }
        looked.set(0);
        let unknown = interpolate("${A:x}", &environment, 950);
        assert!(matches!(unknown, Err(Failure::Unreplaceable(..))));
        assert_eq!(looked.get(), 0, "a form that there is not needs no value");
    }

    #[test]
    fn what_is_not() {
        for (text, message) in [
            ("${UNSET}", "the variable `UNSET` is not set"),
            (
                "${UNSET:?say it}",
                "the variable `UNSET` is not set or empty: say it",
            ),
            ("${EMPTY:?}", "the variable `EMPTY` is not set or empty"),
            ("5$", "`5$` has a lone `$`"),
            ("$SET", "`$SET` has a lone `$`"),
            ("$$$", "`$$$` has a lone `$`"),
            ("a${SET", "`${SET` has no closing `}`"),
            ("${}", "`${}` has no name of a variable"),
            ("${1A}", "`${1A}` has no name of a variable"),
            ("${SET-d}", "`${SET-d}` cannot be understood"),
            (
                "${A:-${SET}}",
                "`${A:-${SET}` has a variable inside a variable",
            ),
        ] {
            let error = interpolate(text, &environment, 100).expect_err(text);
            let Failure::Unreplaceable(found, _) = error else {
                panic!("{text} is short");
            };
            assert_eq!(found, message);
        }
    }

    proptest! {
        #[test]
        fn doubled_dollars_give_back_any_text(text in "\\PC*") {
            let doubled = text.replace('$', "$$");
            let replaced = interpolate(&doubled, &environment, usize::MAX).expect("nothing to look up");
            prop_assert_eq!(replaced.map_or(doubled, |replaced| replaced.text), text);
        }

        #[test]
        fn no_text_panics(text in "([${}:?-]|SET|ä|\\PC){0,20}") {
            let _ = interpolate(&text, &environment, 100);
        }
    }
}
