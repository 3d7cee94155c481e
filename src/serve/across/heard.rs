//! What other nodes say of their ready pods, and these nodes in the gateway: one task for each node
//! that runs.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use sampan_core::{
    name::{Name, ServiceKey},
    record::Boot,
};
use sampan_gateway::{NodeEndpoint, Offer};
use sampan_peer::{AnswerBody, Client, Remote, STREAMS, empty};
use tokio::{
    sync::Semaphore,
    task::AbortHandle,
    time::{sleep, timeout},
};

use super::{
    forward::ForwardTo,
    wire::{ENDPOINTS, Line},
};
use crate::{cluster::Members, edge::Edge};

/// Time without a word after which a node gets no requests while there is another.
const SILENCE: Duration = Duration::from_secs(3);
/// Pause before a node is asked again that does not answer.
const RETRY: Duration = Duration::from_millis(200);
/// Time a node has to begin.
const BEGIN: Duration = Duration::from_secs(5);
/// The longest line that is read.
const MAX_LINE: usize = 4 << 20;
/// Requests of this node at another one. The rest of the streams is for what nodes say to one another.
const MAX_FORWARDED: usize = STREAMS as usize - 64;

/// A node that is listened to, until this is dropped.
struct Listening {
    remote: Remote,
    boot: Boot,
    task: AbortHandle,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Listens to all other nodes that run, until what is known of them ends.
pub(super) async fn follow(members: &Members, own: &Name, edge: &Arc<Edge>, client: &Arc<Client>) {
    let mut changes = members.changes();
    let mut nodes = BTreeMap::<Name, Listening>::new();
    loop {
        let sessions = changes.borrow_and_update().sessions.clone();
        nodes.retain(|name, node| {
            let session = sessions.get(name);
            let stays =
                session.is_some_and(|it| it.boot == node.boot && it.address == node.remote.address);
            if !stays {
                client.forget(name);
            }
            stays
        });
        for (name, session) in sessions {
            if name == *own || nodes.contains_key(&name) {
                continue;
            }
            let remote = Remote {
                node: name.clone(),
                address: session.address,
            };
            let listening = listen(remote.clone(), Arc::clone(edge), Arc::clone(client));
            let node = Listening {
                remote,
                boot: session.boot,
                task: tokio::spawn(listening).abort_handle(),
            };
            nodes.insert(name, node);
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Listens to a node, again and again.
async fn listen(remote: Remote, edge: Arc<Edge>, client: Arc<Client>) {
    let places = Arc::new(Semaphore::new(MAX_FORWARDED));
    loop {
        match open(&remote, &client).await {
            Ok(body) => {
                let mut heard = Heard {
                    remote: &remote,
                    edge: &edge,
                    client: &client,
                    places: &places,
                    services: BTreeMap::new(),
                };
                let ended = heard.read(body).await;
                tracing::debug!(node = %remote.node, ended, "a node says no more what it has");
            }
            Err(reason) => {
                tracing::debug!(node = %remote.node, reason, "a node does not say what it has");
            }
        }
        sleep(RETRY).await;
    }
}

async fn open(remote: &Remote, client: &Client) -> Result<AnswerBody, String> {
    let request = Request::get(ENDPOINTS).body(empty());
    let request = request.map_err(|error| error.to_string())?;
    let answer = timeout(BEGIN, client.send(remote, request)).await;
    let answer = answer.map_err(|_| "no answer in time".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body()),
        status => Err(format!("it answers {status}")),
    }
}

/// What one node has said since it was last asked. Dropped, it has nothing.
struct Heard<'a> {
    remote: &'a Remote,
    edge: &'a Edge,
    client: &'a Arc<Client>,
    places: &'a Arc<Semaphore>,
    services: BTreeMap<ServiceKey, Arc<NodeEndpoint>>,
}

impl Heard<'_> {
    /// Takes what the node says, until it says no more; why it does not.
    async fn read(&mut self, mut body: AnswerBody) -> String {
        let mut text = BytesMut::new();
        loop {
            let frame = match timeout(SILENCE, body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return error.to_string(),
                Ok(None) => return "it has ended".to_owned(),
                Err(_) => {
                    self.services.values().for_each(|it| it.is_silent());
                    continue;
                }
            };
            let data: Bytes = frame.into_data().unwrap_or_default();
            text.extend_from_slice(&data);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line = text.split_to(end + 1);
                match serde_json::from_slice(&line) {
                    Ok(line) => self.take(line),
                    Err(error) => return format!("it says what is not understood: {error}"),
                }
            }
            if text.len() > MAX_LINE {
                return "its line is too long".to_owned();
            }
        }
    }

    fn take(&mut self, line: Line) {
        if line.is_empty() {
            return self.services.values().for_each(|it| it.is_there());
        }
        let mut changes = Vec::new();
        for (service, offer) in line.offers() {
            match (self.services.get(&service), offer.ready) {
                (Some(endpoint), 1..) => endpoint.say(offer),
                (Some(endpoint), 0) => {
                    // It takes no more, whichever picture a request has of it.
                    endpoint.say(Offer::default());
                    self.services.remove(&service);
                    changes.push((service, None));
                }
                (None, 1..) => {
                    let upstream = ForwardTo {
                        client: Arc::clone(self.client),
                        remote: self.remote.clone(),
                        service: service.clone(),
                        places: Arc::clone(self.places),
                    };
                    let node = self.remote.node.clone();
                    let endpoint = NodeEndpoint::new(node, Arc::new(upstream));
                    endpoint.say(offer);
                    self.services.insert(service.clone(), Arc::clone(&endpoint));
                    changes.push((service, Some(endpoint)));
                }
                (None, 0) => {}
            }
        }
        if !changes.is_empty() {
            self.edge.hear(&self.remote.node, changes);
        }
    }
}

impl Drop for Heard<'_> {
    fn drop(&mut self) {
        let services = std::mem::take(&mut self.services);
        services.values().for_each(|it| it.say(Offer::default()));
        let gone = services.into_keys().map(|service| (service, None));
        self.edge.hear(&self.remote.node, gone);
    }
}
