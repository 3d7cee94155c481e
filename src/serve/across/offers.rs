//! What this node tells the others of its ready pods: the gateway is asked every few milliseconds
//! while another node listens, and each listener is told what has changed.
//!
//! | state | written | read |
//! |---|---|---|
//! | `now` | by the task that asks the gateway | by the task of each stream |
//! | `is_looking` | by that task when no node listens, and by a stream that begins after it listens, under its lock | by the same |
//! | `listeners` | by a stream that begins; a refusal adds to what its stream owes | by refusals |

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use parking_lot::Mutex;
use sampan_core::name::{Name, ServiceKey};
use sampan_gateway::{Gateway, Offer};
use sampan_peer::{Body, BoxError};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::wire::Line;
use crate::cluster::{Departure, Members, Roster};

/// How often the gateway is asked what there is.
const LOOK: Duration = Duration::from_millis(5);
/// After which time at the latest a node is told that a few slots more or less are free.
const SMALL: Duration = Duration::from_millis(50);
/// How often a node is told that this one is there.
const BEAT: Duration = Duration::from_secs(1);
/// Services for which a node was refused and is to be told of room, at once. More are forgotten, and
/// asked for again after the next beat.
const OWED: usize = 1024;
/// Lines that a slow node may be behind. What changes meanwhile is one line.
const LINES: usize = 2;

/// What there is of each service.
type Table = BTreeMap<ServiceKey, Offer>;

/// What this node tells the others.
pub(super) struct Offers {
    gateway: Gateway,
    now: watch::Sender<Table>,
    /// Whether the task runs that asks the gateway.
    is_looking: Mutex<bool>,
    listeners: Mutex<HashMap<Name, mpsc::Sender<ServiceKey>>>,
    members: Arc<Members>,
    departure: watch::Receiver<Departure>,
    control: Handle,
}

impl Offers {
    pub(super) fn new(
        gateway: Gateway,
        members: Arc<Members>,
        departure: watch::Receiver<Departure>,
        control: Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            now: watch::Sender::default(),
            is_looking: Mutex::default(),
            listeners: Mutex::default(),
            members,
            departure,
            control,
        })
    }

    /// Tells a node what there is, from now on.
    pub(super) fn stream(self: &Arc<Self>, listener: &Name) -> Body {
        let (owe, owed) = mpsc::channel(OWED);
        self.listeners.lock().insert(listener.clone(), owe);
        let (lines, told) = mpsc::channel::<Bytes>(LINES);
        // First it listens, then the task begins that ends without a listener.
        let now = self.now.subscribe();
        if !std::mem::replace(&mut *self.is_looking.lock(), true) {
            self.control.spawn(look(Arc::clone(self)));
        }
        let telling = Telling {
            offers: Arc::clone(self),
            listener: listener.clone(),
            now,
            owed,
            owing: BTreeSet::new(),
            sent: Table::new(),
            small: None,
            lines,
        };
        self.control.spawn(telling.run());
        let frames = stream::unfold(told, |mut told| async move {
            let line = told.recv().await?;
            Some((Ok::<_, BoxError>(Frame::data(line)), told))
        });
        StreamBody::new(frames).boxed_unsync()
    }

    /// A node was refused a slot of this service: it is told when there is one.
    pub(super) fn owe(&self, listener: &Name, service: &ServiceKey) {
        if let Some(owe) = self.listeners.lock().get(listener) {
            // What does not fit is asked for again after a beat.
            let _ = owe.try_send(service.clone());
        }
    }

    /// Whether the task that asks the gateway goes on.
    fn is_listened_to(&self) -> bool {
        let mut is_looking = self.is_looking.lock();
        *is_looking = self.now.receiver_count() > 0;
        *is_looking
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        self.gateway.offers(|service, offer| {
            table.insert(service.clone(), offer);
        });
        table
    }

    /// Whether the gateway still has what the table says.
    fn is_current(&self, table: &Table) -> bool {
        let (mut count, mut same) = (0, true);
        self.gateway.offers(|service, offer| {
            count += 1;
            same = same && table.get(service) == Some(&offer);
        });
        same && count == table.len()
    }
}

/// Asks the gateway for as long as a node listens.
async fn look(offers: Arc<Offers>) {
    let mut period = interval(LOOK);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while offers.is_listened_to() {
        if !offers.is_current(&offers.now.borrow()) {
            offers.now.send_replace(offers.table());
        }
        period.tick().await;
    }
}

/// One node that is told.
struct Telling {
    offers: Arc<Offers>,
    listener: Name,
    now: watch::Receiver<Table>,
    /// Services for which it was refused.
    owed: mpsc::Receiver<ServiceKey>,
    owing: BTreeSet<ServiceKey>,
    /// What it has been told.
    sent: Table,
    /// When it is told of small changes, if there are some.
    small: Option<Instant>,
    lines: mpsc::Sender<Bytes>,
}

impl Telling {
    async fn run(mut self) {
        let mut departure = self.offers.departure.clone();
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look_at = Instant::now();
        loop {
            // The first beat says that there is nothing, if there is nothing.
            let (mut is_beat, mut says_all) = (false, false);
            let small = self.small.unwrap_or(look_at);
            tokio::select! {
                _ = beat.tick() => (is_beat, says_all) = (true, true),
                () = sleep_until(small), if self.small.is_some() => says_all = true,
                changed = self.now.changed() => if changed.is_err() { return },
                Some(service) = self.owed.recv() => {
                    // By then it is known whether there is room.
                    look_at = Instant::now() + LOOK;
                    self.owing.insert(service);
                    continue;
                }
                () = sleep_until(look_at), if !self.owing.is_empty() => look_at = Instant::now() + LOOK,
                () = self.lines.closed() => return,
                _ = departure.wait_for(|it| *it == Departure::Leaves) => return,
            }
            let is_of_cluster = |nodes: &Roster| nodes.nodes.contains_key(&self.listener);
            if !self.offers.members.with(is_of_cluster) {
                return;
            }
            let line = self.line(says_all);
            if (is_beat || !line.is_empty()) && !self.send(&line).await {
                return;
            }
        }
    }

    /// What has changed since the node was told, without the small changes unless it is to say all.
    fn line(&mut self, says_all: bool) -> Line {
        let mut line = Line::default();
        let mut has_small = false;
        let now = self.now.borrow_and_update().clone();
        for (service, offer) in &now {
            let before = self.sent.get(service).copied();
            let is_owed = offer.free > 0 && self.owing.remove(service);
            let is_told = match before {
                None => true,
                Some(before) if before == *offer => false,
                Some(before) => says_all || is_large(before, *offer),
            };
            has_small |= !is_told && before != Some(*offer);
            if is_told || is_owed {
                line.set(service, *offer);
                self.sent.insert(service.clone(), *offer);
            }
        }
        let gone = self
            .sent
            .keys()
            .filter(|service| !now.contains_key(*service));
        for service in gone.cloned().collect::<Vec<_>>() {
            line.set(&service, Offer::default());
            self.sent.remove(&service);
            self.owing.remove(&service);
        }
        let due = || self.small.unwrap_or_else(|| Instant::now() + SMALL);
        self.small = has_small.then(due);
        line
    }

    /// Whether the node still listens.
    async fn send(&self, line: &Line) -> bool {
        let Ok(mut text) = serde_json::to_vec(line) else {
            return false;
        };
        text.push(b'\n');
        self.lines.send(text.into()).await.is_ok()
    }
}

/// Whether a node does other things because of this change.
fn is_large(before: Offer, now: Offer) -> bool {
    (before.ready, before.capacity) != (now.ready, now.capacity)
        || (before.free == 0) != (now.free == 0)
        || u64::from(before.free.abs_diff(now.free)) * 4 > u64::from(now.capacity)
}
