//! Proven deadlocks: instances whose waits can only be ended by instances that are blocked too.
//!
//! An instance that becomes blocked without a source that is certainly alive reports itself. A
//! moment later the detector looks at all that have: each names who could end its wait, and the
//! greatest set that nothing outside of it can wake is dead ([`sampan_core::deadlock`]). The look
//! is taken twice, and counts only if no instance in the set was woken between: then all of them were
//! blocked at one moment, and so for ever.
//!
//! What the host does by itself after a time, like giving a request up at its deadline, is no way
//! out of a deadlock, and does not count as one.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Weak},
    thread,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use sampan_core::{
    deadlock::{Wait, dead, knots},
    name::{PodName, ServiceKey},
    provoke,
};

use crate::{
    observe::{
        cell::Cell,
        source::{Call, InboundRequest, Other, Source},
        suspects::Suspects,
    },
    report::{Deadlock, Member},
    run_state::RunState,
};

/// How long the detector lets instances go on after one has reported itself.
const DEBOUNCE: Duration = Duration::from_millis(10);
/// Between the two looks.
const SECOND_LOOK: Duration = Duration::from_millis(10);

/// Who is told of deadlocks.
type Listener = Arc<dyn Fn(&Arc<Deadlock>) + Send + Sync>;

/// Looks for deadlocks among the instances of a node.
#[derive(Default)]
pub(crate) struct Detector {
    suspects: Arc<Suspects<Cell>>,
    listener: Mutex<Option<Listener>>,
}

impl Detector {
    /// Starts the detector's thread. It ends when the last other reference to the detector is dropped.
    ///
    /// A thread of the operating system, as the tasks it judges may keep all others busy.
    pub(crate) fn start() -> io::Result<Arc<Self>> {
        let detector = Arc::<Self>::default();
        let weak = Arc::downgrade(&detector);
        thread::Builder::new()
            .name("sampan-deadlock".to_owned())
            .spawn(move || watch(&weak))?;
        Ok(detector)
    }

    /// Has `listener` told of every deadlock from now on.
    pub(crate) fn listen(&self, listener: Listener) {
        *self.listener.lock() = Some(listener);
    }

    /// Where instances report themselves.
    pub(crate) fn suspects(&self) -> &Arc<Suspects<Cell>> {
        &self.suspects
    }

    fn tell(&self, deadlock: &Arc<Deadlock>) {
        let listener = self.listener.lock();
        if let Some(listener) = &*listener {
            listener(deadlock);
        }
    }

    /// Looks once, and ends every deadlock that there is.
    fn look(&self) {
        let is_blocked = |cell: &Cell| cell.run.blocked().is_some();
        let Some(first) = Look::take(self.suspects.still(is_blocked)) else {
            return;
        };
        thread::park_timeout(SECOND_LOOK);
        let cells = first
            .cells
            .iter()
            .map(|seen| Arc::clone(&seen.cell))
            .collect();
        let Some(second) = Look::take(cells) else {
            // One of them went on. Those that are blocked then report themselves again.
            return;
        };
        if !first.is_same(&second) {
            self.suspects.look_again();
            return;
        }
        for knot in knots(&second.waits) {
            let members: Vec<_> = knot.iter().map(|&n| &second.cells[n]).collect();
            self.tell(&end(&members));
        }
    }
}

/// How often the thread looks whether it is needed any more.
const IDLE: Duration = Duration::from_secs(1);

fn watch(detector: &Weak<Detector>) {
    while let Some(detector) = detector.upgrade() {
        provoke::panic_in(provoke::Task::Detector);
        if detector.suspects.wait(IDLE) {
            thread::park_timeout(DEBOUNCE);
            detector.look();
        }
    }
}

/// An instance that is blocked, as it was at one look.
struct Seen {
    cell: Arc<Cell>,
    changes: u64,
    function: &'static str,
    sources: Vec<Source>,
    requests: Vec<Arc<InboundRequest>>,
    since: Option<Instant>,
    /// Whether it is in a host function that blocks all of it.
    is_in_call: bool,
}

impl Seen {
    fn of(cell: Arc<Cell>) -> Option<Self> {
        let changes = cell.run.blocked()?;
        let waits = cell.waits();
        let (function, sources) = waits.sources();
        let since = match &waits.call {
            Some(call) => Some(call.since),
            None => waits.registered.iter().map(|wait| wait.since).max(),
        };
        let seen = Self {
            changes,
            function,
            sources: sources.into_iter().cloned().collect(),
            requests: waits.requests.clone(),
            since,
            is_in_call: waits.call.is_some(),
            cell: Arc::clone(&cell),
        };
        drop(waits);
        (cell.run.blocked() == Some(changes)).then_some(seen)
    }

    /// The youngest of its requests.
    fn request(&self) -> Option<&Arc<InboundRequest>> {
        self.requests.iter().max_by_key(|inbound| inbound.order)
    }

    fn member(&self) -> Member {
        let request = self.request();
        let began = request.map(|inbound| inbound.since);
        Member {
            pod: self.cell.pod().clone(),
            request: request.map(|inbound| inbound.line()),
            request_id: request.and_then(|inbound| inbound.id.clone()),
            function: self.function,
            waits_for: match &self.sources[..] {
                [] => "something that only it could do".to_owned(),
                all => list(all),
            },
            since: self
                .since
                .or(began)
                .map_or(Duration::ZERO, |since| since.elapsed()),
        }
    }
}

/// Sources in words, each one once.
fn list(sources: &[Source]) -> String {
    let mut words: Vec<String> = sources.iter().map(ToString::to_string).collect();
    words.dedup();
    words.join(" or ")
}

/// One look at all instances that are blocked.
struct Look {
    /// The instances that nothing can wake.
    cells: Vec<Seen>,
    waits: Vec<Wait>,
}

impl Look {
    /// `None` if each of them can still be woken from outside.
    fn take(cells: Vec<Arc<Cell>>) -> Option<Self> {
        let seen: Vec<_> = cells.into_iter().filter_map(Seen::of).collect();
        let index: HashMap<_, _> = seen
            .iter()
            .enumerate()
            .map(|(n, seen)| (Arc::as_ptr(&seen.cell.run), n))
            .collect();
        let mut holders = Holders::new(&seen);
        let waits: Vec<_> = seen
            .iter()
            .map(|it| wait(it, &index, &mut holders))
            .collect();
        let dead = dead(&waits);
        if dead.is_empty() {
            return None;
        }
        let place: HashMap<_, _> = dead.iter().enumerate().map(|(n, &old)| (old, n)).collect();
        let ends = |old: &usize| place.get(old).copied();
        Some(Self {
            waits: dead
                .iter()
                .map(|&n| Wait::on(waits[n].enders().iter().filter_map(ends)))
                .collect(),
            cells: keep(seen, &dead),
        })
    }

    fn is_same(&self, other: &Self) -> bool {
        let state = |seen: &Seen| (Arc::as_ptr(&seen.cell), seen.changes);
        self.waits == other.waits
            && self
                .cells
                .iter()
                .map(state)
                .eq(other.cells.iter().map(state))
    }
}

fn keep(seen: Vec<Seen>, dead: &[usize]) -> Vec<Seen> {
    let all = seen.into_iter().enumerate();
    all.filter(|(n, _)| dead.contains(n))
        .map(|(_, seen)| seen)
        .collect()
}

type Index = HashMap<*const RunState, usize>;

/// Who could end the wait of `it`.
fn wait(it: &Seen, index: &Index, holders: &mut Holders<'_>) -> Wait {
    // One that is blocked as a whole takes no request, whatever it said before.
    if it.requests.is_empty() || it.cell.is_open() && !it.is_in_call {
        return Wait::outside();
    }
    let mut enders = Vec::new();
    for source in &it.sources {
        match of_source(source, index, holders) {
            Some(more) => enders.extend(more),
            None => return Wait::outside(),
        }
    }
    Wait::on(enders)
}

/// Which of the blocked instances could bring this about; `None` if anything else could.
fn of_source(source: &Source, index: &Index, holders: &mut Holders<'_>) -> Option<Vec<usize>> {
    let one = |instance: &Arc<RunState>| index.get(&Arc::as_ptr(instance)).map(|&n| vec![n]);
    match source {
        _ if source.is_alive() => None,
        Source::Own(_) => Some(Vec::new()),
        Source::Reader(reading, _) if reading.waits() => Some(Vec::new()),
        Source::Reader(_, reader) => of_source(reader, index, holders),
        Source::Head(call) | Source::Body(call) => match call.other() {
            Other::Outside => None,
            Other::Instance(instance) => one(&instance),
            Other::Slots => holders.of(call).clone(),
        },
        Source::Caller(inbound) => one(&inbound.call.as_ref()?.caller.upgrade()?),
        Source::Timer
        | Source::Past
        | Source::Outside(_)
        | Source::Registered
        | Source::Unknown => None,
    }
}

/// Who holds the slots of services, found out once a look.
struct Holders<'a> {
    /// The blocked instances of each pod.
    pods: HashMap<&'a PodName, Vec<usize>>,
    seen: &'a [Seen],
    /// By service; `None` if an instance that is not blocked holds one.
    services: HashMap<ServiceKey, Option<Vec<usize>>>,
}

impl<'a> Holders<'a> {
    fn new(seen: &'a [Seen]) -> Self {
        let mut pods: HashMap<&PodName, Vec<usize>> = HashMap::new();
        for (n, it) in seen.iter().enumerate() {
            pods.entry(it.cell.pod()).or_default().push(n);
        }
        Self {
            pods,
            seen,
            services: HashMap::new(),
        }
    }

    fn of(&mut self, call: &Call) -> &Option<Vec<usize>> {
        if !self.services.contains_key(&call.service) {
            let occupied = call.neighbours().occupied(&call.service.name);
            let holders = occupied.and_then(|pods| self.slots(&pods));
            self.services.insert(call.service.clone(), holders);
        }
        &self.services[&call.service]
    }

    fn slots(&self, pods: &[(PodName, u32)]) -> Option<Vec<usize>> {
        let mut all = Vec::new();
        for (pod, count) in pods {
            let holders = self.pods.get(pod)?;
            // A probe takes no slot.
            let clients = |n: &usize| self.seen[*n].requests.iter().filter(|it| !it.is_probe());
            let held = |n| clients(n).count();
            if holders.iter().map(held).sum::<usize>() < *count as usize {
                return None;
            }
            all.extend(holders);
        }
        Some(all)
    }
}

/// Ends a deadlock: its youngest request fails, by the call it waits for if it is one.
fn end(members: &[&Seen]) -> Arc<Deadlock> {
    let age = |seen: &Seen| seen.request().map_or(0, |inbound| inbound.order);
    let victim = (0..members.len())
        .max_by_key(|&n| age(members[n]))
        .unwrap_or(0);
    let call = members[victim]
        .sources
        .iter()
        .find_map(|source| match source {
            Source::Head(call) => Some(call),
            _ => None,
        });
    let deadlock = Arc::new(Deadlock {
        at: SystemTime::now(),
        members: members.iter().map(|seen| seen.member()).collect(),
        victim,
        failed_call: call.is_some(),
    });
    match call {
        Some(call) => call.fail(&deadlock),
        None => members[victim].cell.fail(&deadlock),
    }
    deadlock
}
