//! Prints what happens to an app: its events, and what its guests say.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwap;
use indicatif::ProgressBar;
use parking_lot::Mutex;
use sampan_core::{
    event::Reason,
    name::Name,
    object::{App, Route},
    provoke,
    time::Utc,
};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    cli::{
        logs::whole,
        output::{Channel, Output, Prefix},
    },
    serve::{
        events::{Change, Event, Events, Journal, Subject},
        logs::{Batch, Line, Ring, Stream},
    },
};

/// Lines printed at once.
const MAX_BATCH_LINES: usize = 256;

/// Prints events and logs. Clones print to the same place.
#[derive(Clone)]
pub(in crate::cli) struct Printer(Arc<Inner>);

struct Inner {
    output: Output,
    /// The services and jobs of the app.
    shown: ArcSwap<Shown>,
    /// The prefix of whatever has none.
    plain: Prefix,
    /// Whether events and what the host says of pods are printed as JSON.
    json: bool,
    /// Whether each line says of which app it is.
    labels: bool,
    /// Where in the ring of lines printing has come to.
    position: AtomicU64,
    /// The number of the last event that was printed.
    heard: AtomicU64,
    bars: Mutex<HashMap<Name, ProgressBar>>,
}

/// An app as its lines show it.
#[derive(Clone, Default)]
struct Shown {
    prefixes: BTreeMap<Name, Prefix>,
    /// What is routed where, to be told when the app is up.
    routes: Vec<(Name, Route)>,
    jobs: BTreeSet<Name>,
}

impl Shown {
    fn of(app: &App) -> Self {
        let names: Vec<_> = app.services.keys().chain(app.jobs.keys()).collect();
        let width = names
            .iter()
            .map(|name| name.as_str().len())
            .max()
            .unwrap_or_default();
        let prefix = |(number, name): (usize, &&Name)| {
            ((*name).clone(), Prefix::new(name.as_str(), width, number))
        };
        let routes = app.services.values().flat_map(|service| {
            let routes = service.routes.iter();
            routes.map(|route| (service.name.clone(), route.clone()))
        });
        Self {
            prefixes: names.iter().enumerate().map(prefix).collect(),
            routes: routes.collect(),
            jobs: app.jobs.keys().cloned().collect(),
        }
    }
}

impl Inner {
    /// Prints everything after the event `heard`, with no prefixes.
    fn new(output: &Output, heard: u64) -> Self {
        Self {
            output: output.clone(),
            shown: ArcSwap::default(),
            plain: Prefix::none(),
            json: false,
            labels: false,
            position: AtomicU64::new(0),
            heard: AtomicU64::new(heard),
            bars: Mutex::default(),
        }
    }
}

impl Printer {
    pub(in crate::cli) fn new(output: &Output, app: &App, json: bool) -> Self {
        Self(Arc::new(Inner {
            shown: ArcSwap::from_pointee(Shown::of(app)),
            json,
            ..Inner::new(output, 0)
        }))
    }

    /// Without prefixes, for a single component, and without the events so far.
    pub(in crate::cli) fn plain(output: &Output, journal: &Journal) -> Self {
        Self(Arc::new(Inner::new(output, journal.last())))
    }

    /// For apps that come and go: each line says whose it is. Events so far are left out.
    pub(in crate::cli) fn all(output: &Output, journal: &Journal, json: bool) -> Self {
        Self(Arc::new(Inner {
            json,
            labels: true,
            ..Inner::new(output, journal.last())
        }))
    }

    /// Knows the services and jobs of a changed spec too.
    pub(in crate::cli) fn know(&self, app: &App) {
        let before = self.0.shown.load();
        let mut shown = Shown::of(app);
        shown.jobs.extend(before.jobs.iter().cloned());
        // What is gone has last lines.
        for (name, prefix) in &before.prefixes {
            shown
                .prefixes
                .entry(name.clone())
                .or_insert_with(|| prefix.clone());
        }
        shown.routes = before.routes.clone();
        self.0.shown.store(Arc::new(shown));
    }

    /// Says where the routes lead that a changed spec has and the one before had not.
    pub(in crate::cli) fn new_routes(&self, app: &App, address: SocketAddr) {
        let before = self.0.shown.load();
        let routes = Shown::of(app).routes;
        for (service, route) in routes.iter().filter(|it| !before.routes.contains(it)) {
            self.talk(&format!("{service} answers at {}", url(route, address)));
        }
        let shown = Shown {
            routes,
            ..Shown::clone(&before)
        };
        self.0.shown.store(Arc::new(shown));
    }

    /// Prints what the command line says of a service or job: of its build, or what changes. The
    /// reason is for programs.
    pub(in crate::cli) fn own(&self, name: &Name, reason: &str, message: &str) {
        if !self.0.json {
            return self.pod_line(name, Channel::Err, message);
        }
        let kind = match self.0.shown.load().jobs.contains(name) {
            true => "job",
            false => "service",
        };
        self.0.output.json_line(&json!({
            "time": Utc::from(SystemTime::now()).to_string(),
            "object": format!("{kind}/{name}"),
            "reason": reason,
            "message": message,
        }));
    }

    /// Prints a line of talk, unless everything that is not data is JSON.
    pub(in crate::cli) fn talk(&self, line: &str) {
        if !self.0.json {
            self.0.output.talk(line);
        }
    }

    /// Prints events, for ever.
    pub(in crate::cli) async fn events(self, journal: Arc<Journal>) {
        loop {
            let events = journal.follow(self.0.heard.load(Ordering::Relaxed)).await;
            provoke::panic_in(provoke::Task::Events);
            self.heard(&events);
        }
    }

    /// Stops [`Self::events`], then prints the events that it had no time for.
    pub(in crate::cli) async fn end_of_events(&self, printing: JoinHandle<()>, journal: &Journal) {
        printing.abort();
        // Two at once would print the same events twice: so the first has to be gone.
        let _ = printing.await;
        self.heard(&journal.after(self.0.heard.load(Ordering::Relaxed)));
    }

    fn heard(&self, events: &Events) {
        if events.missed > 0 {
            self.talk(&format!("{} events were dropped", events.missed));
        }
        for event in &events.events {
            self.0.heard.store(event.seq, Ordering::Relaxed);
            self.event(event);
        }
    }

    fn event(&self, event: &Event) {
        let output = &self.0.output;
        let subject = event.subject.name();
        if let Change::Up { address } = event.change {
            output.data(&format!("listening on http://{address}\n"));
        }
        if self.0.json {
            return output.json_line(event);
        }
        let mut bars = self.0.bars.lock();
        if matches!(event.change, Change::Compiling) {
            let bar = output.spinner(format!("compiling {subject}"));
            bars.insert(subject.clone(), bar);
        } else if let Some(bar) = bars.remove(subject) {
            bar.finish_and_clear();
        }
        drop(bars);
        match event.change {
            Change::Up { address } => {
                for (service, route) in &self.0.shown.load().routes {
                    output.talk(&format!("{service} answers at {}", url(route, address)));
                }
                output.talk(&format!("{subject} is up; Ctrl-C drains and stops it"));
            }
            // What becomes of the pods says the same.
            Change::Announced {
                reason: Reason::PodCreated | Reason::PodStopped,
                ..
            } => {}
            // That all begins at once is no news in the foreground.
            Change::Announced {
                reason:
                    Reason::Applied
                    | Reason::Added
                    | Reason::Changed
                    | Reason::RolloutStarted
                    | Reason::RolloutComplete,
                ..
            } if !self.0.labels => {}
            _ if self.0.labels => {
                let text = format!("{}/{subject} {event}", event.subject.app());
                self.pod_line(subject, Channel::Err, &text);
            }
            // It has no prefix, which would say what this is about.
            _ if matches!(event.subject, Subject::App(_)) => {
                self.talk(&format!("{subject} {event}"));
            }
            _ => self.pod_line(subject, Channel::Err, &event.to_string()),
        }
    }

    fn pod_line(&self, subject: &Name, channel: Channel, text: &str) {
        let shown = self.0.shown.load();
        let prefix = shown.prefixes.get(subject).unwrap_or(&self.0.plain);
        self.0.output.pod_line(channel, prefix, text);
    }

    /// Prints what guests say, for ever.
    pub(in crate::cli) async fn logs(self, ring: Arc<Ring>) {
        loop {
            let batch = ring
                .follow(self.0.position.load(Ordering::Relaxed), MAX_BATCH_LINES)
                .await;
            provoke::panic_in(provoke::Task::Logs);
            self.batch(&batch);
        }
    }

    /// Stops [`Self::logs`], then prints what guests have said and it had no time for.
    pub(in crate::cli) async fn end_of_logs(&self, logging: JoinHandle<()>, ring: &Ring) {
        logging.abort();
        // Two at once would print the same lines twice: so the first has to be gone.
        let _ = logging.await;
        let batch = ring.read(self.0.position.load(Ordering::Relaxed), usize::MAX);
        self.batch(&batch);
    }

    fn batch(&self, batch: &Batch) {
        self.0.position.store(batch.next, Ordering::Relaxed);
        if batch.missed > 0 {
            self.talk(&format!("{} lines of guests were dropped", batch.missed));
        }
        for line in &batch.lines {
            self.line(line);
        }
    }

    fn line(&self, line: &Line) {
        // The name of a pod is its service's with a revision and a slot.
        let service = line.pod.as_str().rsplitn(3, '-').nth(2).unwrap_or_default();
        let shown = self.0.shown.load();
        let prefix = shown.prefixes.get(service).unwrap_or(&self.0.plain);
        match line.stream {
            Stream::Stdout | Stream::Stderr => {
                let text = whole(&line.text, line.partial);
                self.0.output.pod_line(Channel::Out, prefix, &text);
            }
            Stream::Logged(level) => {
                let text = format!("{level} {}", line.text);
                let text = whole(&text, line.partial);
                self.0.output.pod_line(Channel::Out, prefix, &text);
            }
            Stream::Host if self.0.json => {
                self.0.output.json_line(&json!({
                    "time": Utc::from(line.time).to_string(),
                    "object": format!("pod/{}", line.pod),
                    "reason": "Log",
                    "message": line.text,
                    "request": line.request.as_deref(),
                }));
            }
            Stream::Host => {
                let request = line.request.as_deref().map(|id| format!(" (request {id})"));
                let text = format!("{}: {}{}", line.pod, line.text, request.unwrap_or_default());
                self.0.output.pod_line(Channel::Err, prefix, &text);
            }
        }
    }
}

/// Where a browser on this machine finds what a route leads to.
pub(in crate::cli) fn url(route: &Route, address: SocketAddr) -> String {
    let ip = match address.ip() {
        ip if ip.is_unspecified() && ip.is_ipv4() => Ipv4Addr::LOCALHOST.into(),
        ip if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let authority = match (&route.host, address.port()) {
        (Some(host), 80) => host.clone(),
        (Some(host), port) => format!("{host}:{port}"),
        (None, port) => SocketAddr::new(ip, port).to_string(),
    };
    format!("http://{authority}{}", route.prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_shown_as_what_a_browser_takes() {
        let route = |host: Option<&str>, prefix: &str| Route {
            host: host.map(str::to_owned),
            prefix: prefix.to_owned(),
        };
        for (host, prefix, address, shown) in [
            (None, "/", "127.0.0.1:8080", "http://127.0.0.1:8080/"),
            (None, "/api", "0.0.0.0:80", "http://127.0.0.1:80/api"),
            (None, "/", "[::]:8080", "http://[::1]:8080/"),
            (
                Some("shop.localhost"),
                "/",
                "127.0.0.1:8080",
                "http://shop.localhost:8080/",
            ),
            (
                Some("shop.localhost"),
                "/a",
                "0.0.0.0:80",
                "http://shop.localhost/a",
            ),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(url(&route(host, prefix), address), shown);
        }
    }
}
