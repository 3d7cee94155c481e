//! Any table of routes and any request: the table finds what a look at every route finds, and a
//! normal form is its own.
//!
//! The input is a route a line, `HOST/PREFIX` or `/PREFIX`, then an empty line, then a request a
//! line, `AUTHORITY/PATH`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sampan_core::{
    object::Route,
    uri::{normal_host, normal_path},
};
use sampan_gateway::route::{Table, is_authority};

fuzz_target!(|text: &str| {
    let (routes, requests) = text.split_once("\n\n").unwrap_or((text, ""));
    let routes: Vec<_> = routes.lines().filter_map(route).collect();
    let mut table = Table::default();
    for (index, route) in routes.iter().enumerate() {
        let is_new = !routes[..index].contains(route);
        assert_eq!(table.insert(route, index), is_new, "{route:?}");
    }
    for request in requests.lines() {
        let slash = request.find('/').unwrap_or(request.len());
        let (authority, path) = request.split_at(slash);
        // The filter lets nothing else through.
        if path.is_empty() || !authority.is_empty() && !is_authority(authority) {
            continue;
        }
        let authority = (!authority.is_empty()).then_some(authority);
        let normal = normal_path(path);
        assert_eq!(normal_path(&normal), normal, "{path}");
        let found = table.find(authority, path).copied();
        assert_eq!(found, look(&routes, authority, &normal), "{request}");
    }
});

fn route(line: &str) -> Option<Route> {
    let slash = line.find('/')?;
    let (host, prefix) = line.split_at(slash);
    // As the check of the spec leaves them.
    let host = (!host.is_empty()).then(|| normal_host(host).into_owned());
    Some(Route {
        host,
        prefix: normal_path(prefix).into_owned(),
    })
}

/// The first of the longest routes of that host, else of any host.
fn look(routes: &[Route], authority: Option<&str>, path: &str) -> Option<usize> {
    let host = authority.map(host_of);
    let best = |host: Option<&str>| {
        let fits = |route: &&Route| route.host.as_deref() == host && covers(&route.prefix, path);
        let longest = routes.iter().filter(fits).map(|it| it.prefix.len()).max()?;
        routes
            .iter()
            .position(|it| fits(&it) && it.prefix.len() == longest)
    };
    host.as_deref()
        .and_then(|host| best(Some(host)))
        .or_else(|| best(None))
}

fn covers(prefix: &str, path: &str) -> bool {
    match path.strip_prefix(prefix) {
        Some(rest) => rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/'),
        None => false,
    }
}

/// The normal form without a port.
fn host_of(authority: &str) -> String {
    let port = match authority.find(']') {
        Some(end) => end + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    normal_host(&authority[..port]).into_owned()
}
