//! Variables in texts of other tools, as a spec of Sampan writes them.

/// A text of a Compose file with the variables of a spec. A variable without a default is empty in
/// Compose where it is not set, and an error here: so it gets an empty default. The second is what
/// cannot be said.
pub(super) fn compose(text: &str) -> (String, Option<String>) {
    let (mut out, mut lost) = (String::new(), None);
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push_str("$$");
            rest = after;
        } else if let Some((inside, after)) = after.strip_prefix('{').and_then(braces) {
            match expansion(inside) {
                Some(expansion) => out.push_str(&expansion),
                None => lost = Some(format!("`${{{inside}}}` has no counterpart, and is empty")),
            }
            rest = after;
        } else {
            let end = after
                .find(|it: char| !is_of_name(it))
                .unwrap_or(after.len());
            match &after[..end] {
                "" => out.push_str("$$"),
                name => out.push_str(&format!("${{{name}:-}}")),
            }
            rest = &after[end..];
        }
    }
    out.push_str(rest);
    (out, lost)
}

fn is_of_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// What is in the braces that are open, and what comes behind them.
fn braces(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    None
}

fn expansion(inside: &str) -> Option<String> {
    let end = inside
        .find(|it: char| !is_of_name(it))
        .unwrap_or(inside.len());
    let (name, how) = inside.split_at(end);
    let operators = [(":-", ":-"), ("-", ":-"), (":?", ":?"), ("?", ":?")];
    let found = operators
        .iter()
        .find(|(operator, _)| how.starts_with(operator));
    match (how, found) {
        ("", _) => Some(format!("${{{name}:-}}")),
        (_, Some((operator, ours))) => {
            let word = &how[operator.len()..];
            // A variable inside a default is none here.
            (!word.contains('$') && !word.contains('}')).then(|| format!("${{{name}{ours}{word}}}"))
        }
        (_, None) => None,
    }
}

/// A text without variables, of which `$` means nothing.
pub(super) fn plain(text: &str) -> String {
    text.replace('$', "$$")
}

/// A text of a Spin manifest, in which `{{ name }}` stands for a variable: each becomes what `value`
/// says of it.
pub(super) fn spin(text: &str, value: &dyn Fn(&str) -> String) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        out.push_str(&plain(before));
        let Some((name, after)) = after.split_once("}}") else {
            out.push_str("{{");
            rest = after;
            continue;
        };
        out.push_str(&value(name.trim()));
        rest = after;
    }
    out.push_str(&plain(rest));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_compose_become_those_of_a_spec() {
        for (text, wanted, is_whole) in [
            ("plain", "plain", true),
            ("$A/${B}", "${A:-}/${B:-}", true),
            ("${A:-x}${A-y}", "${A:-x}${A:-y}", true),
            ("${A:?no}${A?no}", "${A:?no}${A:?no}", true),
            ("$$HOME costs 5$", "$$HOME costs 5$$", true),
            ("${A:+x}", "", false),
            ("${A:-${B}}z", "z", false),
        ] {
            let (out, lost) = compose(text);
            assert_eq!((out.as_str(), lost.is_none()), (wanted, is_whole), "{text}");
        }
    }

    #[test]
    fn variables_of_spin_are_in_braces() {
        let value = |name: &str| format!("<{name}>");
        assert_eq!(spin("https://{{ host }}/$x", &value), "https://<host>/$$x");
        assert_eq!(spin("a {{ b", &value), "a {{ b");
    }
}
