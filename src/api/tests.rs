//! The API as it answers: a router, a store in memory, and a node that is made up.

mod access;
mod changes;
mod faults;
mod quota;
mod reads;
mod top;
mod whole;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    ops::RangeInclusive,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Method, Request, StatusCode, header::CONTENT_TYPE},
};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use sampan_core::{
    event::Reason,
    name::{Name, ServiceKey},
    object::ServiceKind,
    plan::{advise, quota::Quota},
    record::{self, JobSpec, Key, Kind, Template},
    spec::Found,
    view,
};
use sampan_store::{LinesBack, LinesOf, LogSource, LoggedLine, Memory, Store};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower_service::Service as _;

use super::*;
use crate::{
    artifacts::{Artifacts, digest},
    events::{Change, Events, Journal, Subject},
    load::{Decided, Decisions, Loads, Measured},
    secrets::Secrets,
};

/// What the made-up node refuses and has heard.
#[derive(Default)]
struct Fake {
    /// Digests of components that are refused.
    refused: Mutex<Vec<String>>,
    /// The digest of a component that runs a command of WASI 0.2.
    command: Mutex<Option<String>>,
    told: Mutex<Vec<String>>,
    admitted: Mutex<Vec<String>>,
    /// Lines that were printed. The first has the number 1.
    lines: Vec<LoggedLine>,
    /// Where pods of the service `web` of `shop` begin.
    begins: Vec<(&'static str, u64)>,
    pods: Vec<view::Pod>,
    loads: watch::Sender<Arc<Measured>>,
    decisions: watch::Sender<Decided>,
    seen: BTreeMap<ServiceKey, advise::Seen>,
    quota: Mutex<Quota>,
    looked: watch::Sender<bool>,
    /// Done once in the middle of the next admission or list.
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Fake {
    fn decide(&self, what: String, digest: &str) -> Result<(), String> {
        self.admitted.lock().expect("whole").push(what);
        if let Some(meanwhile) = self.meanwhile.lock().expect("whole").take() {
            meanwhile();
        }
        let refused = self.refused.lock().expect("whole");
        match refused.iter().any(|it| it == digest) {
            true => Err("it imports `wasi:nothing`".to_owned()),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Admission for Fake {
    async fn admit(&self, service: &ServiceKey, template: &Template) -> Result<Found, String> {
        tokio::task::yield_now().await;
        self.decide(format!("service {service}"), &template.component.digest)?;
        let command = self.command.lock().expect("whole");
        Ok(match command.as_ref() == Some(&template.component.digest) {
            true => Found {
                kind: ServiceKind::Command,
                is_callable: false,
            },
            false => Found::HTTP,
        })
    }

    async fn admit_job(&self, job: &ServiceKey, spec: &JobSpec) -> Result<(), String> {
        self.decide(format!("job {job}"), &spec.component.digest)
    }

    fn tell(&self, subject: Subject, reason: Reason, message: String) {
        let text = format!("{subject} {reason}: {message}");
        self.told.lock().expect("whole").push(text);
    }
}

#[async_trait]
impl Views for Fake {
    fn pod(&self, wanted: &record::Pod) -> view::Pod {
        if let Some(meanwhile) = self.meanwhile.lock().expect("whole").take() {
            meanwhile();
        }
        let unseen = view::Pod::unseen(wanted);
        let mut pods = self.pods.iter();
        let known = pods.find(|it| it.app == unseen.app && it.name == unseen.name);
        known.cloned().unwrap_or(unseen)
    }

    async fn explained(&self, wanted: record::Pod) -> view::Pod {
        self.pod(&wanted)
    }

    fn events(&self, after: u64) -> Events {
        let journal = Journal::default();
        for app in ["shop", "blog"] {
            let app = Subject::App(Name::parse(app).expect("a name"));
            journal.record(app, Change::Compiling);
        }
        journal.after(after)
    }

    async fn next_events(&self, _: u64) -> Events {
        std::future::pending().await
    }

    fn node(&self) -> view::Node {
        view::Node {
            name: "local".to_owned(),
            version: "1".to_owned(),
            started: "2026-01-01T00:00:00.000Z".to_owned(),
            http: None,
            pods: 0,
            log_lines_lost: 0,
            pid: 0,
            background: false,
            status: "Ready".to_owned(),
            reason: None,
            address: None,
            labels: BTreeMap::new(),
            room: None,
            leads: false,
        }
    }

    fn loads(&self) -> Loads {
        self.loads.subscribe()
    }

    fn decisions(&self) -> Decisions {
        self.decisions.subscribe()
    }

    fn seen(&self) -> BTreeMap<ServiceKey, advise::Seen> {
        self.seen.clone()
    }

    fn metrics(&self) -> String {
        "sampan_up 1\n".to_owned()
    }
}

/// A pod of the service `web` of `shop`.
fn web(pod: &str) -> Arc<LogSource> {
    Arc::new(LogSource {
        app: "shop".to_owned(),
        service: "web".to_owned(),
        pod: pod.to_owned(),
    })
}

impl Fake {
    /// The lines that are asked for.
    fn asked(
        &self,
        of: &LinesOf,
        range: RangeInclusive<u64>,
        filter: &LineFilter,
    ) -> Vec<LoggedLine> {
        let is_asked = |it: &&LoggedLine| {
            let is_of = it.source.as_ref().is_some_and(|source| of.is(source));
            range.contains(&it.seq) && is_of && filter(it)
        };
        self.lines.iter().filter(is_asked).cloned().collect()
    }
}

/// It does two lines at a time.
#[async_trait]
impl Lines for Fake {
    fn span(&self) -> RangeInclusive<u64> {
        1..=self.lines.len() as u64
    }

    fn since(&self, _: u64) -> u64 {
        0
    }

    fn part(&self, of: &LinesOf, range: RangeInclusive<u64>, filter: &LineFilter) -> LinePart {
        let next = (range.start() + 2).min(range.end() + 1);
        LinePart {
            lines: self.asked(of, *range.start()..=next - 1, filter),
            missed: 0,
            next,
        }
    }

    fn back(
        &self,
        of: &LinesOf,
        range: RangeInclusive<u64>,
        wanted: usize,
        filter: &LineFilter,
    ) -> LinesBack {
        let from = range.end().saturating_sub(1).max(*range.start());
        let lines = self.asked(of, from..=*range.end(), filter);
        let at = lines.iter().rev().nth(wanted - 1).map(|it| it.seq);
        LinesBack {
            found: lines.len().min(wanted),
            at: at.unwrap_or(from),
            is_all: false,
        }
    }

    async fn next(self: Arc<Self>, _: LinesOf, _: u64, _: LineFilter) -> LinePart {
        std::future::pending().await
    }

    fn pods(&self, of: &LinesOf) -> Vec<KeptLines> {
        let mut pods = BTreeMap::new();
        for source in self.lines.iter().filter_map(|line| line.source.clone()) {
            let begins = self.begins.iter().filter(|(pod, _)| *pod == source.pod);
            let kept = KeptLines {
                source: Arc::clone(&source),
                bytes: 7,
                last_ms: None,
                begins: begins.map(|(_, seq)| *seq).collect(),
            };
            if of.is(&source) {
                pods.insert(source, kept);
            }
        }
        pods.into_values().collect()
    }
}

impl Kept for Fake {
    fn volumes(&self, _: Option<&Name>) -> Result<Vec<(Name, Name, u64)>, String> {
        let name = |text| Name::parse(text).expect("a name");
        Ok(vec![(name("gone"), name("data"), 4096)])
    }

    fn remove(&self, app: &Name) -> Result<Vec<Name>, KeptError> {
        match app.as_str() {
            "busy" => Err(KeptError::Used("the volume `data` is in use".to_owned())),
            _ => Ok(vec![Name::parse("data").expect("a name")]),
        }
    }

    fn export(&self, app: &Name, name: &Name, out: &mut dyn Write) -> Result<(), KeptError> {
        match app.as_str() {
            "gone" => Err(KeptError::Absent(format!("there is no volume `{name}`"))),
            _ => {
                out.write_all(&[7; 1 << 20]).expect("read");
                Ok(())
            }
        }
    }

    fn import(
        &self,
        _: &Name,
        _: &Name,
        _: Option<u64>,
        input: &mut dyn Read,
    ) -> Result<(), KeptError> {
        let mut bytes = Vec::new();
        match input.read_to_end(&mut bytes) {
            Ok(_) if bytes == [7; 1 << 20] => Ok(()),
            Ok(_) => Err(KeptError::Refused("it is no archive".to_owned())),
            Err(error) => Err(KeptError::Failed(error.to_string())),
        }
    }
}

/// A node to ask.
struct Rig {
    api: Api,
    router: Router,
    fake: Arc<Fake>,
    store: Arc<Memory>,
    home: tempfile::TempDir,
}

/// What came back.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Bytes,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {:?}", self.bytes))
    }

    /// Status, code, message and hint of an error.
    fn error(&self) -> String {
        let error = self.json();
        let id = self.headers["x-request-id"].to_str().expect("text");
        assert_eq!(error["request_id"], id);
        let hint = error["hint"].as_str().map(|hint| format!("\nhint: {hint}"));
        format!(
            "{} {}: {}{}",
            self.status.as_u16(),
            error["code"].as_str().expect("a code"),
            error["message"].as_str().expect("a message"),
            hint.unwrap_or_default()
        )
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::str::from_utf8(&self.bytes).expect("text");
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }
}

async fn send(router: &Router, request: Request<Body>) -> Reply {
    let response = router.clone().call(request).await.expect("infallible");
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.expect("whole").to_bytes();
    Reply {
        status: head.status,
        headers: head.headers,
        bytes,
    }
}

impl Rig {
    fn new() -> Self {
        Self::with(Fake::default())
    }

    fn with(fake: Fake) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(home.path().join("lent")).expect("writable");
        let mut fake = fake;
        for (seq, line) in (1..).zip(&mut fake.lines) {
            line.seq = seq;
        }
        let fake = Arc::new(fake);
        fake.looked.send_replace(true);
        let store = Arc::new(Memory::new());
        let api = Api::new(Parts {
            cluster: None,
            store: store.clone(),
            reach: None,
            artifacts: Arc::new(Artifacts::open(&home.path().join("artifacts")).expect("writable")),
            keyvalue: nothing_kept(),
            secrets: Arc::new(Secrets::in_memory(store.clone())),
            views: fake.clone(),
            lines: fake.clone(),
            ending: None,
            kept: fake.clone(),
            admission: fake.clone(),
            volumes: vec![home.path().join("lent")],
            quota: *fake.quota.lock().expect("whole"),
            looked: fake.looked.subscribe(),
            threads: tokio::runtime::Handle::current(),
            connections: 2,
        });
        Self {
            router: api.local(),
            api,
            fake,
            store,
            home,
        }
    }

    /// Puts the pod `web-1-SLOT` of an app in the store.
    async fn wants(&self, app: &str, slot: u32) {
        let service = ServiceKey::parse(&format!("{app}/web")).expect("a key");
        let pod = record::Pod::new(&service, 1, slot);
        let key = Key::Pod(pod.name()).to_string();
        let put = sampan_store::Transaction::new().put(key, objects::encode(&pod));
        assert!(self.store.commit(put).await.is_ok());
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask(Method::GET, path, None).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Reply {
        let request = Request::builder().method(method).uri(path);
        let request = match body {
            Some(body) => request
                .header(CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        send(&self.router, request.expect("a request")).await
    }

    /// Uploads a component of these bytes, and tells its digest.
    async fn upload(&self, bytes: &'static [u8]) -> String {
        let digest = digest(bytes);
        let request = Request::put(format!("/v1/artifacts/{digest}")).body(Body::from(bytes));
        let reply = send(&self.router, request.expect("a request")).await;
        assert_eq!(reply.status, StatusCode::CREATED, "{:?}", reply.bytes);
        digest
    }

    /// What is sent to apply a spec whose components all have this digest.
    fn body(&self, spec: &str, digest: &str) -> Value {
        let names = spec.lines().filter_map(|line| {
            let name = line
                .strip_prefix("[service.")
                .or(line.strip_prefix("[job."))?;
            let name = name.strip_suffix(']')?;
            (!name.contains('.')).then(|| name.to_owned())
        });
        let components: BTreeMap<_, _> = names.map(|name| (name, digest)).collect();
        json!({
            "spec": spec,
            "base": self.home.path().join("lent"),
            "components": components,
        })
    }

    async fn apply(&self, spec: &str, digest: &str) -> Reply {
        let body = self.body(spec, digest);
        self.ask(Method::PUT, "/v1/apps/shop", Some(&body)).await
    }

    async fn service(&self, name: &str) -> record::Service {
        let key = ServiceKey::parse(&format!("shop/{name}")).expect("a key");
        let found = objects::service(&*self.store, &key).await;
        found.unwrap_or_else(|error| panic!("{}", error.message)).0
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.fake.told.lock().expect("whole"))
    }
}

const SHOP: &str = "app = 'shop'\n[service.web]\ncomponent = 'web.wasm'\nreplicas = 2\n";

/// Key-value stores of a node that has no place for them.
fn nothing_kept() -> Arc<sampan_store::KeyValues> {
    let limits = sampan_core::spec::node::KeyValueLimits::default();
    Arc::new(sampan_store::KeyValues::new(None, limits))
}
