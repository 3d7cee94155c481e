//! Values as Compose writes them: ports, sizes, mounts, what a health check asks.

use super::super::node::{Node, Value};

/// The port outside and the one in the container, if both are numbers.
pub(super) fn port_of(node: &Node) -> Option<(u16, u16)> {
    let (outside, inside) = published(node)?;
    Some((outside.parse().ok()?, inside.parse().ok()?))
}

/// The same as texts, of a port of TCP.
pub(super) fn published(node: &Node) -> Option<(String, String)> {
    if let Value::Map(_) = node.value {
        let is_tcp = node.text_of("protocol").is_none_or(|it| it == "tcp");
        let target = node.text_of("target").filter(|_| is_tcp)?;
        let outside = node.text_of("published").unwrap_or(target);
        return Some((outside.to_owned(), target.to_owned()));
    }
    let text = node.text()?;
    let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    // A variable with a default has a colon too.
    let mut parts: Vec<String> = Vec::new();
    let mut depth = 0;
    for letter in text.chars() {
        match letter {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ => {}
        }
        match (letter, parts.last_mut()) {
            (':', _) if depth == 0 => parts.push(String::new()),
            (letter, Some(part)) => part.push(letter),
            (letter, None) => parts.push(letter.to_string()),
        }
    }
    let inside = parts.pop().filter(|_| protocol == "tcp")?;
    let outside = parts.pop().filter(|it| !it.is_empty());
    Some((outside.unwrap_or_else(|| inside.clone()), inside))
}

/// A size such as `512m` as one of a spec, rounded up to whole KiB.
pub(super) fn size(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let end = lower
        .find(|it: char| it.is_ascii_alphabetic())
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let number: f64 = number.trim().parse().ok()?;
    let power = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        _ => return None,
    };
    let kib = (number * 1024f64.powi(power) / 1024.0).ceil();
    match kib {
        kib if kib >= 1024.0 && kib % 1024.0 == 0.0 => Some(format!("{}MiB", kib / 1024.0)),
        kib => Some(format!("{kib}KiB")),
    }
}

/// A mount of a container.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// A named volume or a path of the host; none for an unnamed volume.
    pub(super) source: Option<String>,
    pub(super) target: String,
    pub(super) is_read_only: bool,
    /// Whether it is something else, such as a `tmpfs`.
    pub(super) is_odd: bool,
}

impl Mount {
    pub(super) fn of(node: &Node) -> Option<Self> {
        if let Value::Map(_) = node.value {
            let sort = node.text_of("type").unwrap_or("volume");
            return Some(Self {
                source: node.text_of("source").map(str::to_owned),
                target: node.text_of("target")?.to_owned(),
                is_read_only: node.text_of("read_only") == Some("true"),
                is_odd: !matches!(sort, "volume" | "bind"),
            });
        }
        let text = node.text()?;
        // The mode is the last, and a path of the guest begins with a slash.
        let (rest, mode) = match text.rsplit_once(':') {
            Some((rest, mode)) if !mode.starts_with(['/', '$']) => (rest, mode),
            _ => (text, ""),
        };
        let (source, target) = match rest.rsplit_once(":/") {
            Some((source, target)) => (Some(source.to_owned()), format!("/{target}")),
            None => (None, rest.to_owned()),
        };
        Some(Self {
            source,
            target,
            is_read_only: mode.split(',').any(|it| it == "ro"),
            is_odd: false,
        })
    }

    /// Whether the source is the name of a volume.
    pub(super) fn is_named(&self) -> bool {
        let source = self.source.as_deref().unwrap_or_default();
        !source.starts_with(['.', '/', '~', '$'])
    }
}

/// The path that a health check asks this container for over HTTP.
pub(super) fn asked_path(test: &Node) -> Option<String> {
    let texts: Vec<_> = test.texts().collect();
    let text = texts.join(" ");
    let (_, after) = text
        .split_once("http://")
        .or_else(|| text.split_once("https://"))?;
    let end =
        after.find(|it: char| it.is_whitespace() || matches!(it, '"' | '\'' | ')' | ';' | '|'));
    let url = &after[..end.unwrap_or(after.len())];
    let path = url.find('/').map_or("/", |at| &url[at..]);
    Some(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::import::node::yaml;

    #[test]
    fn ports_are_read_in_every_form() {
        for (text, wanted) in [
            ("'8080:80'", Some(("8080", "80"))),
            ("80", Some(("80", "80"))),
            ("'127.0.0.1:8080:80/tcp'", Some(("8080", "80"))),
            ("'[::1]:8080:80'", Some(("8080", "80"))),
            ("'${PORT:-8080}:80'", Some(("${PORT:-8080}", "80"))),
            ("'53:53/udp'", None),
            ("{ target: 80, published: '8080' }", Some(("8080", "80"))),
            ("{ target: 53, protocol: udp }", None),
        ] {
            let node = yaml(text).expect("good YAML");
            let found = published(&node);
            let wanted = wanted.map(|(a, b)| (a.to_owned(), b.to_owned()));
            assert_eq!(found, wanted, "{text}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        for (text, wanted) in [
            ("512m", Some("512MiB")),
            ("1G", Some("1024MiB")),
            ("1.5gb", Some("1536MiB")),
            ("100000", Some("98KiB")),
            ("64MiB", Some("64MiB")),
            ("much", None),
        ] {
            assert_eq!(size(text).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn mounts_are_read_in_every_form() {
        let mount = |text: &str| Mount::of(&yaml(text).expect("good YAML")).expect("a mount");
        for (text, source, target, is_read_only, is_named) in [
            ("data:/var/lib", Some("data"), "/var/lib", false, true),
            (
                "./conf:/etc/conf:ro",
                Some("./conf"),
                "/etc/conf",
                true,
                false,
            ),
            ("/var/lib", None, "/var/lib", false, true),
            ("${D:-./x}:/y:z,ro", Some("${D:-./x}"), "/y", true, false),
        ] {
            let found = mount(text);
            assert_eq!(
                (
                    found.source.as_deref(),
                    &*found.target,
                    found.is_read_only,
                    found.is_named()
                ),
                (source, target, is_read_only, is_named),
                "{text}"
            );
        }
        assert!(mount("{ type: tmpfs, target: /tmp }").is_odd);
    }

    #[test]
    fn what_a_health_check_asks_for_is_found() {
        for (text, wanted) in [
            (
                "[CMD, curl, -f, 'http://localhost:80/healthz']",
                Some("/healthz"),
            ),
            ("curl --fail http://localhost || exit 1", Some("/")),
            (
                "[CMD-SHELL, \"wget -qO- 'http://127.0.0.1:3000/up?x=1' | grep ok\"]",
                Some("/up?x=1"),
            ),
            ("[CMD, pg_isready]", None),
        ] {
            let found = asked_path(&yaml(text).expect("good YAML"));
            assert_eq!(found.as_deref(), wanted, "{text}");
        }
    }
}
