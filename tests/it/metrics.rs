//! `GET /metrics`, and what moves it.

use std::{collections::BTreeMap, fs, time::Instant};

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::rig::{PATIENCE, Running, directory, get, guest, repository, sampan};

/// A sample: its name and labels as they are written.
type Series = (String, BTreeMap<String, String>);

/// What the text says, read strictly.
pub(crate) struct Scrape {
    types: BTreeMap<String, String>,
    helps: BTreeMap<String, String>,
    samples: BTreeMap<Series, f64>,
    lines: usize,
}

impl Scrape {
    fn parse(text: &str) -> Self {
        let mut scrape = Self {
            types: BTreeMap::new(),
            helps: BTreeMap::new(),
            samples: BTreeMap::new(),
            lines: text.lines().count(),
        };
        assert!(text.ends_with('\n'));
        let mut family = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                let before = scrape.helps.insert(name.to_owned(), help.to_owned());
                assert_eq!(before, None, "two helps: {line}");
                assert!(help.ends_with('.'), "{line}");
                family = name.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert_eq!(name, family, "the type stands behind its help");
                let before = scrape.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "two types: {line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            } else {
                let (series, value) = sample(line);
                let base = match scrape.types[&family].as_str() {
                    "histogram" => ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|it| series.0.strip_suffix(it))
                        .expect("a part of a histogram"),
                    _ => &series.0,
                };
                assert_eq!(base, family, "{line}");
                assert!(value >= 0.0, "{line}");
                let before = scrape.samples.insert(series, value);
                assert_eq!(before, None, "twice: {line}");
            }
        }
        scrape.check_histograms();
        scrape
    }

    /// Buckets are cumulative, and the last one is all of them.
    fn check_histograms(&self) {
        let mut buckets = BTreeMap::<Series, Vec<(f64, f64)>>::new();
        for ((name, labels), value) in &self.samples {
            if let Some(base) = name.strip_suffix("_bucket") {
                let mut labels = labels.clone();
                let bound = labels.remove("le").expect("a bound");
                let bound = bound.parse().expect("a number");
                let all = buckets.entry((base.to_owned(), labels)).or_default();
                all.push((bound, *value));
            }
        }
        assert!(!buckets.is_empty());
        for ((base, labels), mut all) in buckets {
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(all.windows(2).all(|it| it[0].1 <= it[1].1), "{base}");
            let (bound, last) = *all.last().expect("a bucket");
            assert_eq!(bound, f64::INFINITY, "{base}");
            let count = self.samples[&(format!("{base}_count"), labels.clone())];
            assert_eq!(last, count, "{base}");
            assert!(self.samples.contains_key(&(format!("{base}_sum"), labels)));
        }
    }

    /// The sum of all samples of this name that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |own: &BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(label, value)| own.get(*label).is_some_and(|it| it == value))
        };
        let found = self.samples.iter();
        found
            .filter(|((own, its), _)| own == name && fits(its))
            .map(|(_, value)| value)
            .sum()
    }

    fn mentions(&self, service: &str) -> bool {
        self.samples
            .keys()
            .any(|(_, labels)| labels.get("service").is_some_and(|it| it == service))
    }
}

/// `name{label="value",…} number`.
fn sample(line: &str) -> (Series, f64) {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let value = value.parse().expect("a number");
    let Some((name, labels)) = series.split_once('{') else {
        return ((series.to_owned(), BTreeMap::new()), value);
    };
    let mut labels = labels.strip_suffix('}').expect("a brace");
    let mut found = BTreeMap::new();
    while !labels.is_empty() {
        let (label, rest) = labels.split_once("=\"").expect("a label");
        // No value here has a quote in it.
        let (value, rest) = rest.split_once('"').expect("a quote");
        assert!(!value.contains('\\'), "{line}");
        assert_eq!(found.insert(label.to_owned(), value.to_owned()), None);
        labels = rest.strip_prefix(',').unwrap_or(rest);
    }
    ((name.to_owned(), found), value)
}

pub(crate) struct Metered {
    pub(crate) running: Running,
    directory: tempfile::TempDir,
}

impl Metered {
    pub(crate) fn start(spec: &str) -> Self {
        let directory = directory(&[("sampan.toml", spec.as_bytes())]);
        let place = |name: &str| directory.path().join(name).display().to_string();
        let (path, socket) = (place("sampan.toml"), place("api.sock"));
        let arguments = ["up", "-f", &path, "--http", "127.0.0.1:0", "--api", &socket];
        let running = Running::start(sampan(&arguments));
        Self { running, directory }
    }

    pub(crate) async fn ask(&self, method: &str, path: &str) -> (http::response::Parts, String) {
        let socket = self.directory.path().join("api.sock");
        let stream = UnixStream::connect(socket).await.expect("the API");
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.expect("HTTP/1.1");
        tokio::spawn(connection);
        let request = http::Request::builder().method(method).uri(path);
        let request = request.header("host", "localhost");
        let request = request
            .body(Empty::<bytes::Bytes>::new())
            .expect("a request");
        let response = sender.send_request(request).await.expect("a response");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        (head, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    pub(crate) async fn scrape(&self) -> Scrape {
        let (head, text) = self.ask("GET", "/metrics").await;
        assert_eq!(head.status, 200);
        assert_eq!(
            head.headers["content-type"],
            "text/plain; version=0.0.4; charset=utf-8"
        );
        Scrape::parse(&text)
    }

    /// Scrapes until it is as wanted.
    async fn eventually(&self, what: &str, wanted: impl Fn(&Scrape) -> bool) -> Scrape {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let scrape = self.scrape().await;
            if wanted(&scrape) {
                return scrape;
            }
            let samples = &scrape.samples;
            assert!(Instant::now() < deadline, "not {what}: {samples:#?}");
            tokio::task::yield_now().await;
        }
    }
}

fn spec() -> String {
    format!(
        "app = 'shop'\n[service.web]\ncomponent = '{}'\nreplicas = 2\nroute = ['web.test/']\n\
         [service.bad]\ncomponent = '{}'\nisolation = 'pod'\nroute = ['bad.test/']\n\
         restart = {{ initial = '10ms' }}\n",
        guest("hello"),
        guest("crash-loop"),
    )
}

const WEB: (&str, &str) = ("service", "web");
const BAD: (&str, &str) = ("service", "bad");

#[tokio::test]
async fn values_move_with_what_happens() {
    let mut metered = Metered::start(&spec());
    let at = metered.running.address();
    get(at, "web.test", "/").await;
    let complete = [("outcome", "complete")];
    let before = metered
        .eventually("rolled out", |it| {
            it.sum("sampan_rollouts_total", &complete) == 2.0
        })
        .await;
    for _ in 0..20 {
        assert_eq!(get(at, "web.test", "/").await.status, 200);
    }
    assert_eq!(get(at, "bad.test", "/crash").await.status, 500);
    assert_eq!(get(at, "absent.test", "/").await.status, 404);
    let restarted = |it: &Scrape| {
        it.sum("sampan_restarts_total", &[BAD]) == 1.0 && it.sum("sampan_pods_ready", &[BAD]) == 1.0
    };
    let after = metered.eventually("restarted", restarted).await;
    let moved =
        |name: &str, labels: &[(&str, &str)]| after.sum(name, labels) - before.sum(name, labels);
    let first = ("revision", "1");
    let ok = [WEB, first, ("code_class", "2xx"), ("app", "shop")];
    assert_eq!(moved("sampan_requests_total", &ok), 20.0);
    assert_eq!(
        moved("sampan_request_duration_seconds_count", &[WEB, first]),
        20.0
    );
    assert!(moved("sampan_request_duration_seconds_sum", &[WEB]) > 0.0);
    assert_eq!(moved("sampan_request_errors_total", &[BAD, first]), 1.0);
    assert_eq!(
        moved("sampan_kills_total", &[BAD, ("verdict", "Trapped")]),
        1.0
    );
    assert_eq!(moved("sampan_kills_total", &[]), 1.0);
    assert_eq!(moved("sampan_unrouted_requests_total", &[]), 1.0);
    assert!(moved("sampan_instances_total", &[WEB]) >= 20.0);
    assert!(moved("sampan_instantiation_seconds_count", &[]) >= 21.0);
    assert!(moved("sampan_guest_cpu_seconds_total", &[WEB]) > 0.0);
    assert_eq!(after.sum("sampan_cold_start_seconds_count", &[]), 2.0);
    assert_eq!(after.sum("sampan_pods", &[WEB, ("phase", "Running")]), 2.0);
    assert_eq!(
        after.sum("sampan_rollout_duration_seconds_count", &[WEB]),
        1.0
    );
    assert!(after.sum("process_start_time_seconds", &[]) > 1.7e9);
    let (status, talk) = metered.running.interrupt();
    assert_eq!(status.code(), Some(0), "{talk}");
}

#[tokio::test]
async fn what_clients_send_changes_numbers_only_and_what_is_deleted_is_left_out() {
    let mut metered = Metered::start(&spec());
    let at = metered.running.address();
    get(at, "web.test", "/").await;
    get(at, "bad.test", "/").await;
    let complete = [("outcome", "complete")];
    let before = metered
        .eventually("rolled out", |it| {
            it.sum("sampan_rollouts_total", &complete) == 2.0
        })
        .await;
    for n in 0..30 {
        get(at, &format!("host-{n}.test"), &format!("/path-{n}")).await;
        get(at, "web.test", &format!("/path-{n}?q={n}")).await;
    }
    let after = metered.scrape().await;
    assert_eq!(before.lines, after.lines);
    let series = |it: &Scrape| it.samples.keys().cloned().collect::<Vec<_>>();
    assert_eq!(series(&before), series(&after));
    assert_eq!(before.types, after.types);
    let document = fs::read_to_string(repository("docs/metrics.md")).expect("a document");
    for (name, help) in &before.helps {
        let row = format!("| `{name}` | {} | ", before.types[name]);
        let row = document.lines().find(|line| line.starts_with(&row));
        assert!(
            row.is_some_and(|row| row.ends_with(&format!(" | {help} |"))),
            "{name}"
        );
    }
    let (head, body) = metered.ask("DELETE", "/v1/apps/shop").await;
    assert_eq!(head.status, 200, "{body}");
    let gone = |it: &Scrape| !it.mentions("web") && !it.mentions("bad");
    let empty = metered.eventually("gone", gone).await;
    assert_eq!(empty.types, before.types);
}
