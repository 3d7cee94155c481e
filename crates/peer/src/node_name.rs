//! How the name of a node stands in its certificate: as a host name that no resolver knows.

use sampan_core::name::Name;

/// What comes behind the name. `.internal` is kept for private use, so it is no domain of the internet.
const DOMAIN: &str = ".node.sampan.internal";

/// The host name of a node, which TLS compares.
pub(crate) fn host(node: &Name) -> String {
    format!("{node}{DOMAIN}")
}

/// The node with this host name.
pub(crate) fn node(host: &str) -> Option<Name> {
    Name::parse(host.strip_suffix(DOMAIN)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_comes_back_and_no_other_host_is_one() {
        let b = Name::parse("b").expect("a name");
        assert_eq!(host(&b), "b.node.sampan.internal");
        assert_eq!(node(&host(&b)), Some(b));
        for other in [
            "",
            "b",
            "b.node.sampan.internal.",
            ".node.sampan.internal",
            "a.b.node.sampan.internal",
            "*.node.sampan.internal",
            "B.node.sampan.internal",
        ] {
            assert_eq!(node(other), None, "{other}");
        }
    }
}
