//! Which outgoing requests are allowed.

use super::*;

fn rule(scheme: Scheme, host: HostPattern, port: u16) -> object::Outbound {
    object::Outbound { scheme, host, port }
}

fn outbound() -> Outbound {
    let grants = Grants {
        services: vec![Name::parse("api").expect("a name")],
        outbound: vec![
            rule(
                Scheme::Https,
                HostPattern::Exact("api.example.com".to_owned()),
                443,
            ),
            rule(
                Scheme::Https,
                HostPattern::Below("example.org".to_owned()),
                443,
            ),
            rule(
                Scheme::Http,
                HostPattern::Address([10, 0, 0, 7].into()),
                8080,
            ),
            rule(
                Scheme::Http,
                HostPattern::Address("fd00::7".parse().expect("an address")),
                80,
            ),
        ],
        ..Grants::default()
    };
    Outbound::new(&grants, None, &GuestLimits::default())
}

fn decide(uri: &str) -> Result<Target, String> {
    outbound().target(&uri.parse().expect("a URL"))
}

#[test]
fn what_the_rules_cover_goes_outside() {
    for uri in [
        "https://api.example.com/",
        "https://API.Example.com/x?y",
        "https://api.example.com.:443/",
        "https://a.example.org/",
        "https://a.b.example.org/",
        "http://10.0.0.7:8080/",
        "http://[fd00::7]/",
        "http://[fd00:0:0::7]/",
    ] {
        assert_eq!(decide(uri), Ok(Target::Outside), "{uri}");
    }
}

#[test]
fn services_are_reached_by_both_their_names() {
    let api = Name::parse("api").expect("a name");
    for uri in [
        "http://api.internal/x",
        "http://api/",
        "http://API.internal:80/",
    ] {
        assert_eq!(decide(uri), Ok(Target::Neighbour(api.clone())), "{uri}");
    }
}

#[test]
fn everything_else_is_denied_with_the_rule_that_would_allow_it() {
    for (uri, hint) in [
        ("http://api.example.com/", "http://api.example.com"),
        (
            "https://api.example.com:8443/",
            "https://api.example.com:8443",
        ),
        ("https://example.org/", "https://example.org"),
        ("https://evilexample.org/", "outbound"),
        ("https://api.example.com.evil.net/", "outbound"),
        ("https://user@evil.net/", "outbound"),
        ("http://10.0.0.7/", "outbound"),
        ("http://127.0.0.1:8080/", "outbound"),
        ("http://2130706433/", "outbound"),
        ("http://localhost/", "outbound"),
        ("http://[::ffff:10.0.0.7]:8080/", "outbound"),
        ("http://web.internal/", "allow.services = [\"web\"]"),
        ("http://a.b.internal/", "outbound"),
        ("https://api.internal/", "plain http"),
        ("http://api:8080/", "plain http"),
    ] {
        let denied = decide(uri).expect_err(uri);
        assert!(denied.contains(hint), "{uri}: {denied}");
    }
}

/// A rule that the log gives is one that a spec takes, and that opens what was denied.
#[test]
fn what_the_log_says_would_allow_it_does() {
    for uri in [
        "http://example.com/x?y",
        "https://Example.com.:8443/",
        "http://a.example.com/",
        "http://localhost:9000/",
        "http://127.0.0.1/",
        "http://[::ffff:127.0.0.1]:9000/",
        "https://[64:ff9b::7f00:1]/",
        "http://0.0.0.0:9000/",
    ] {
        let denied = decide(uri).expect_err(uri);
        let rule = denied.split('"').nth(1).expect(&denied);
        let grants = Grants {
            outbound: vec![sampan_core::spec::server(rule).expect(rule)],
            ..Grants::default()
        };
        let allowing = Outbound::new(&grants, None, &GuestLimits::default());
        let told = allowing.target(&uri.parse().expect("a URL"));
        assert_eq!(told, Ok(Target::Outside), "{denied}");
    }
    for uri in [
        "http://127.1/",
        "http://127.0.0.1./",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0x7f.0.0.1/",
        "http://0177.0.0.1/",
        "http://017700000001/",
        "http://0/",
        "http://user@10.0.0.1/",
    ] {
        let denied = decide(uri).expect_err(uri);
        assert!(
            denied.starts_with("nothing allows it so: `allow.outbound` has"),
            "{uri}: {denied}"
        );
    }
}
