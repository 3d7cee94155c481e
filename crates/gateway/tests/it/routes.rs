//! Laws of routes: what a spec may say and what the table finds agree.

use proptest::prelude::*;
use sampan_core::{
    object::Route,
    spec::{self, Input},
};
use sampan_gateway::route::Table;

/// The route that this text is in a spec, if it is accepted there.
fn accepted(text: &str) -> Option<Route> {
    // A spec's `$` begins the name of a variable, and `$$` is one `$`.
    let route = format!("{text:?}").replace("\\'", "'").replace('$', "$$");
    let spec = format!("app = \"a\"\n[service.s]\ncomponent = \"s.wasm\"\nroute = [{route}]\n");
    let input = Input {
        path: "sampan.toml",
        text: &spec,
        environment: &|_| None,
        read_file: &|_| Err("there is none".to_owned()),
        profiles: &[],
    };
    let app = spec::load(&input).ok()?;
    let service = app.services.into_values().next()?;
    service.routes.into_iter().next()
}

fn finds(routes: &[&Route], authority: Option<&str>, path: &str) -> Option<usize> {
    let mut table = Table::default();
    for (number, route) in routes.iter().enumerate() {
        table.insert(route, number);
    }
    table.find(authority, path).copied()
}

fn text() -> impl Strategy<Value = String> {
    let host = "(|[a-cA-C]{1,3}(\\.local)?\\.?|\\[::0:1\\]|127\\.0\\.0\\.1)";
    let part = "([a-c.]|%[2-7][0-9a-fA-F]|[*:{}()$+;=@!<>|\\[\\]^~-]|\\.\\.\\.?){0,4}";
    (host, prop::collection::vec(part, 0..5))
        .prop_map(|(host, parts)| format!("{host}/{}", parts.join("/")))
}

/// The path with each `picked` unreserved character escaped, and a detour before it.
fn otherwise(path: &str, picked: &[bool]) -> String {
    let mut picked = picked.iter().cycle();
    let escape = |c: char| match c.is_ascii_alphanumeric() && *picked.next().unwrap_or(&false) {
        true => format!("%{:02x}", u32::from(c)),
        false => c.to_string(),
    };
    // Digits of an escape are part of it.
    match path.contains('%') {
        true => format!("/z/..{path}"),
        false => format!(
            "/z/./../{}",
            path[1..].chars().map(escape).collect::<String>()
        ),
    }
}

proptest! {
    #[test]
    fn every_accepted_route_is_matched_by_a_request_made_from_itself(
        text in text(),
        picked in prop::collection::vec(any::<bool>(), 1..8),
    ) {
        let Some(route) = accepted(&text) else { return Ok(()) };
        let slash = text.find('/').expect("a path");
        let (host, path) = text.split_at(slash);
        let authority = (!host.is_empty()).then_some(host);
        let with_port = authority.map(|host| format!("{host}:8080").to_uppercase());
        // As it was written, as it is kept, and as a client may write it.
        prop_assert_eq!(finds(&[&route], authority, path), Some(0), "{:?}", route);
        prop_assert_eq!(finds(&[&route], with_port.as_deref(), &route.prefix), Some(0));
        let other = otherwise(path, &picked);
        prop_assert_eq!(finds(&[&route], authority, &other), Some(0), "{}", other);
        // All below it is its own, and with a slash at its end it is not what stands before that.
        let below = format!("{}/x", path.trim_end_matches('/'));
        prop_assert_eq!(finds(&[&route], authority, &below), Some(0), "{}", below);
        if let Some(above) = path.strip_suffix('/').filter(|above| !above.is_empty()) {
            prop_assert_eq!(finds(&[&route], authority, above), None, "{}", above);
        }
    }

    #[test]
    fn equal_paths_go_to_one_service(
        guard in text(),
        picked in prop::collection::vec(any::<bool>(), 1..8),
    ) {
        let guard = guard[guard.find('/').expect("a path")..].to_owned();
        let Some(route) = accepted(&guard) else { return Ok(()) };
        let open = accepted("/").expect("a good route");
        prop_assume!(route != open);
        let routes = [&open, &route];
        prop_assert_eq!(finds(&routes, None, &guard), Some(1));
        prop_assert_eq!(finds(&routes, None, &otherwise(&guard, &picked)), Some(1));
    }
}

#[test]
fn a_guarded_route_is_not_passed_by() {
    let (open, guard) = ("/", "/admin");
    let [open, guard] = [open, guard].map(|text| accepted(text).expect("a good route"));
    for path in [
        "/%61dmin",
        "/admi%6E/x",
        "/x/../admin",
        "/./admin",
        "/../admin",
        "/x/%2e%2E/admin",
        "/admin/.",
        "/admin/x/..",
        "/x/y/../../admin/z",
    ] {
        assert_eq!(finds(&[&open, &guard], None, path), Some(1), "{path}");
    }
    // These are other paths.
    for path in [
        "//admin",
        "/%2Fadmin",
        "/Admin",
        "/%2561dmin",
        "/admin/..",
        "/admin%2Fx",
    ] {
        assert_eq!(finds(&[&open, &guard], None, path), Some(0), "{path}");
    }
}
