//! Text of a guest, a file or another user, made safe to show: everything in it is seen, and
//! nothing in it is obeyed.
//!
//! A character that moves the cursor, ends a line, reorders what stands around it or has no shape
//! could forge another pod's line or hide a part of its own. It is shown as Rust and JavaScript
//! write it: `\r`, `\u{202e}`.

use std::borrow::Cow;

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory},
};

/// One line. Tabs stay as they are.
pub fn line(text: &str) -> Cow<'_, str> {
    escape(text, |c| c == '\t')
}

/// Several lines. Tabs and line feeds stay as they are.
pub fn lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| c == '\t' || c == '\n')
}

/// A part of a line that something follows: a cell of a table, a name, a value.
pub fn word(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// A text in JSON that means the same: what is escaped elsewhere is a JSON escape here.
///
/// Outside of its strings JSON is plain ASCII, and in them control characters below `U+0020` are
/// escaped anyway.
pub fn json(text: &str) -> Cow<'_, str> {
    let is_hidden = |c: char| !matches!(c, '\n' | '\r' | '\t') && is_hidden(c);
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_hidden(c) {
            false => escaped.push(c),
            true => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    escaped.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    Cow::Owned(escaped)
}

/// Bytes that should be text as text: a byte that belongs to no character becomes `\xff`.
pub fn bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn escape(text: &str, stays: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_bad = |c: char| is_hidden(c) && !stays(c);
    let Some(first) = text.find(is_bad) else {
        return Cow::Borrowed(text);
    };
    let (good, rest) = text.split_at(first);
    let mut escaped = String::with_capacity(text.len() + 16);
    escaped.push_str(good);
    for c in rest.chars() {
        match is_bad(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Whether a character has no shape of its own, or one that it gives to others.
///
/// Those are Unicode's controls, formats and separators of lines and paragraphs, and what fonts are
/// to show as nothing. The two variation selectors of emoji only choose how the character before
/// them looks.
fn is_hidden(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_control();
    }
    if matches!(c, '\u{fe0e}' | '\u{fe0f}') {
        return false;
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    matches!(
        category,
        GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
    ) || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_obeyed_or_hidden_is_shown() {
        for (text, shown) in [
            ("all well\rweb | forged", "all well\\rweb | forged"),
            (
                "\u{1b}[2J\u{7}\u{8}\u{7f}\0",
                "\\u{1b}[2J\\u{7}\\u{8}\\u{7f}\\u{0}",
            ),
            ("\u{9b}31m\u{85}\u{90}", "\\u{9b}31m\\u{85}\\u{90}"),
            ("\u{b}\u{c}", "\\u{b}\\u{c}"),
            ("\u{2028}\u{2029}", "\\u{2028}\\u{2029}"),
            (
                "\u{202a}\u{202e}\u{2066}\u{2069}\u{61c}\u{200f}",
                "\\u{202a}\\u{202e}\\u{2066}\\u{2069}\\u{61c}\\u{200f}",
            ),
            (
                "\u{200b}\u{200d}\u{2060}\u{feff}\u{ad}\u{180e}",
                "\\u{200b}\\u{200d}\\u{2060}\\u{feff}\\u{ad}\\u{180e}",
            ),
            (
                "\u{34f}\u{115f}\u{3164}\u{ffa0}",
                "\\u{34f}\\u{115f}\\u{3164}\\u{ffa0}",
            ),
            (
                "\u{fff9}\u{e0041}\u{e0100}",
                "\\u{fff9}\\u{e0041}\\u{e0100}",
            ),
        ] {
            assert_eq!(word(text), shown);
            assert_eq!(line(text), shown);
            assert_eq!(lines(text), shown);
        }
        for plain in [
            "",
            "größe 日本語 नमस्ते",
            "e\u{301}",
            "⚠\u{fe0f} 🎉 \u{e0b0}",
            "a\u{a0}b",
            "\\r",
        ] {
            assert_eq!(word(plain), plain);
        }
    }

    #[test]
    fn tabs_and_line_feeds_stay_where_they_may() {
        assert_eq!(lines("a\tb\nc\r"), "a\tb\nc\\r");
        assert_eq!(line("a\tb\nc"), "a\tb\\nc");
        assert_eq!(word("a\tb\nc"), "a\\tb\\nc");
    }

    #[test]
    fn bytes_that_are_no_text_are_told() {
        assert_eq!(bytes(b"caf\xe9 \xff\xfe\0"), "caf\\xe9 \\xff\\xfe\0");
        assert_eq!(bytes("ä€".as_bytes()), "ä€");
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left(text in any::<String>()) {
            for (shown, may) in [(word(&text), ""), (line(&text), "\t"), (lines(&text), "\t\n")] {
                prop_assert!(shown.chars().all(|c| may.contains(c) || !is_hidden(c)), "{:?}", shown);
            }
            let once = word(&text);
            prop_assert_eq!(word(&once), once.as_ref());
        }

        #[test]
        fn json_means_the_same(text in any::<String>(), bidi in "[\u{80}-\u{9f}\u{200b}-\u{202e}\u{e0020}]{0,4}") {
            let value = serde_json::json!({ "text": format!("{text}{bidi}") });
            for written in [value.to_string(), format!("{value:#}")] {
                let shown = json(&written);
                prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), &value);
                prop_assert!(shown.chars().all(|c| c == '\n' || !is_hidden(c)), "{:?}", shown);
            }
        }
    }
}
