//! The nodes of a cluster, as the API of one of them shows and changes them.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{extract::Request, response::Response};
use bytes::{Bytes, BytesMut};
use futures::{
    future::join_all,
    stream::{self, BoxStream, SelectAll},
};
use http::{Method, header::CONTENT_TYPE};
use http_body_util::BodyExt as _;

use sampan_core::{
    name::Name,
    plan::{node::NodeState, place::Tally},
    record::cluster::{self, Capacity},
    time::Utc,
    view::{self, Invitation},
};
use sampan_peer::AnswerBody;
use sampan_peer::TOKEN_LIFETIME;
use tokio::time::timeout;

use super::{fetching::ARTIFACTS, member::Member};
use crate::{
    agent::{handle::one_line, loader::Elsewhere},
    api::{Answered, Cluster, Keeper},
    clock::wall_ms,
    cluster::Roster,
    mirror::Follower,
};

/// Time that a node has to begin with lines.
const FOLLOW_TIME: Duration = Duration::from_secs(1);
/// The longest line of another node.
const MAX_LINE: usize = 4 << 20;
/// Time that a node has to take the components of an app.
const SPREAD_TIME: Duration = Duration::from_secs(30);

/// The cluster that this node is of.
pub(super) struct Nodes {
    pub(super) member: Arc<Member>,
    pub(super) elsewhere: Arc<dyn Elsewhere>,
    pub(super) pods: Follower,
}

impl Nodes {
    /// What all pods reserve on their nodes.
    fn reserved(&self) -> Tally {
        let mut tally = Tally::default();
        for pod in self.pods.mirror().pods.values() {
            tally.take(&pod.value);
        }
        tally
    }
}

#[async_trait]
impl Cluster for Nodes {
    async fn nodes(&self, own: view::Node) -> Vec<view::Node> {
        let answers = self.ask_all("/v1/nodes").await;
        let (roster, reserved) = (self.member.members().now(), self.reserved());
        let nodes = roster.nodes.iter();
        nodes
            .map(|(name, node)| {
                let found = match answers.iter().find(|it| it.node == *name) {
                    Some(answered) => answered.answer.clone().and_then(|text| read(&text)),
                    None if name.as_str() == own.name => Ok(own.clone()),
                    None => Err("it has not answered yet".to_owned()),
                };
                let used = reserved.of_node(name);
                shown((name, node), found, &roster, used)
            })
            .collect()
    }

    async fn follow(&self, target: &str) -> (BoxStream<'static, Bytes>, Vec<(Name, String)>) {
        let others = self.member.peers.others();
        let opened = others.iter().map(|remote| async move {
            let opened = timeout(FOLLOW_TIME, self.member.peers.open(remote, target)).await;
            let late = || Err(format!("no answer in {} s", FOLLOW_TIME.as_secs()));
            (remote.node.clone(), opened.unwrap_or_else(|_| late()))
        });
        let (mut all, mut missing) = (SelectAll::new(), Vec::new());
        // One that never has a line, so that the end of the others is none of the answer.
        all.push(Box::pin(stream::pending()) as BoxStream<'static, Bytes>);
        for (node, opened) in join_all(opened).await {
            match opened {
                Ok(response) => all.push(whole_lines(response.into_body())),
                Err(reason) => missing.push((node, reason)),
            }
        }
        (Box::pin(all), missing)
    }

    async fn obtain(&self, digest: &str) -> bool {
        self.elsewhere.obtain_files(digest).await
    }

    async fn spread(&self, digests: &[String]) -> Result<(), String> {
        let others = self.member.peers.others();
        let mut reasons = Vec::new();
        for remote in &others {
            let asked = async {
                for digest in digests {
                    let target = format!("{ARTIFACTS}{digest}");
                    self.member
                        .peers
                        .send(remote, Method::POST, &target)
                        .await?;
                }
                Ok(())
            };
            let asked = timeout(SPREAD_TIME, asked).await;
            let late = || Err(format!("no answer in {} s", SPREAD_TIME.as_secs()));
            match asked.unwrap_or_else(|_| late()) {
                Ok(()) => return Ok(()),
                Err(reason) => reasons.push(format!("`{}`: {reason}", remote.node)),
            }
        }
        match reasons.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "no other node has taken the components: {}",
                reasons.join("; ")
            )),
        }
    }

    async fn invite(&self) -> Result<Invitation, String> {
        let own = [self.member.address].into_iter();
        let others = self.member.peers.others().into_iter().map(|it| it.address);
        let addresses = own.chain(others).collect();
        let token = self.member.registrar.token(addresses).await;
        let token = token.map_err(|error| one_line(&error))?;
        let until = Duration::from_millis(wall_ms()) + TOKEN_LIFETIME;
        Ok(Invitation {
            token: token.reveal().reveal().to_owned(),
            until: Utc(until).to_string(),
        })
    }

    async fn remove(&self, node: &Name) -> Result<(), String> {
        let removed = self.member.registrar.remove(node).await;
        removed.map_err(|error| one_line(&error))
    }

    fn keeper(&self, app: &Name, volume: &Name) -> Keeper {
        let key = (app.clone(), volume.clone());
        let kept = |roster: &Roster| Some(roster.volumes.get(&key)?.node.clone());
        match self.member.members().with(kept) {
            None => Keeper::None,
            Some(node) if node == self.member.local.name => Keeper::This,
            Some(node) => Keeper::Other(node),
        }
    }

    async fn keep(&self, app: &Name, volume: &Name) -> Result<(), String> {
        let volume = [(app.clone(), volume.clone())];
        let kept = self.member.keep(&volume).await;
        kept.map_err(|error| one_line(&error))
    }

    async fn pass(&self, node: &Name, request: Request) -> Result<Response, String> {
        let (head, body) = request.into_parts();
        let mut passed = http::Request::new(body.map_err(Into::into).boxed_unsync());
        *passed.method_mut() = head.method;
        *passed.uri_mut() = head.uri;
        if let Some(kind) = head.headers.get(CONTENT_TYPE) {
            passed.headers_mut().insert(CONTENT_TYPE, kind.clone());
        }
        let response = self.member.peers.pass(node, passed).await?;
        Ok(response.map(axum::body::Body::new))
    }

    async fn tell_all(&self, method: Method, target: &str) -> Vec<Answered> {
        let told = self.member.peers.tell_all(method, target).await.into_iter();
        let told = told.map(|it| Answered {
            node: it.node,
            answer: it.answer,
        });
        told.collect()
    }

    async fn give_up(
        &self,
        node: Option<&Name>,
        app: &Name,
        volumes: &[Name],
    ) -> Result<(), String> {
        let node = node.unwrap_or(&self.member.local.name);
        let given_up = self.member.give_up(node, app, volumes).await;
        given_up.map_err(|error| one_line(&error))
    }

    async fn change(&self, node: &Name, change: &view::NodeChange) -> Result<(), String> {
        let changed = self.member.registrar.change(node, change).await;
        changed.map_err(|error| one_line(&error))
    }
}

/// What another node sends, cut where lines end, so that it can stand among that of others.
fn whole_lines(body: AnswerBody) -> BoxStream<'static, Bytes> {
    let lines = stream::unfold((body, BytesMut::new()), |(mut body, mut rest)| async move {
        loop {
            let frame = body.frame().await?.ok()?;
            rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if let Some(end) = rest.iter().rposition(|&byte| byte == b'\n') {
                let lines = rest.split_to(end + 1).freeze();
                return Some((lines, (body, rest)));
            }
            if rest.len() > MAX_LINE {
                return None;
            }
        }
    });
    Box::pin(lines)
}

/// What a node says of itself.
fn read(text: &[u8]) -> Result<view::Node, String> {
    let said = serde_json::from_slice::<Vec<view::Node>>(text);
    let said = said.map_err(|error| error.to_string())?;
    said.into_iter()
        .next()
        .ok_or_else(|| "it says nothing of itself".to_owned())
}

/// A node of the roster, with what it says of itself or why it has not, and what its pods reserve.
fn shown(
    (name, node): (&Name, &cluster::Node),
    said: Result<view::Node, String>,
    roster: &Roster,
    used: Capacity,
) -> view::Node {
    let session = roster.sessions.get(name);
    let leads = roster
        .leader
        .as_ref()
        .is_some_and(|leader| leader.node == *name);
    let itself = match (session, said) {
        (Some(session), Ok(said)) => view::Node {
            status: state(node, session, used).to_string(),
            reason: None,
            ..said
        },
        (Some(session), Err(reason)) => view::Node {
            started: Utc(Duration::from_millis(session.since_ms)).to_string(),
            status: "Unreachable".to_owned(),
            reason: Some(reason),
            ..silent(node)
        },
        (None, _) => view::Node {
            status: "Down".to_owned(),
            reason: Some("its process has ended, or does not reach the store".to_owned()),
            ..silent(node)
        },
    };
    view::Node {
        name: name.to_string(),
        address: Some(node.status.address.to_string()),
        labels: node.spec.labels.clone(),
        leads,
        room: Some(view::NodeRoom {
            pods: node.status.capacity.pods,
            placed: used.pods,
            memory_bytes: node.status.capacity.memory,
            reserved_bytes: used.memory,
            cpu_millis: node.status.capacity.cpu_millis,
            reserved_millis: used.cpu_millis,
        }),
        ..itself
    }
}

/// How a node is that runs and answers.
fn state(node: &cluster::Node, session: &cluster::NodeSession, used: Capacity) -> NodeState {
    let spec = &node.spec;
    let drains = spec.draining || session.ending;
    NodeState::of(true, spec.cordoned_ms.is_some(), drains, used.pods as usize)
}

/// What is known of a node that says nothing.
fn silent(node: &cluster::Node) -> view::Node {
    view::Node {
        name: String::new(),
        version: node.status.version.clone(),
        started: String::new(),
        http: None,
        pods: 0,
        log_lines_lost: 0,
        pid: 0,
        background: false,
        status: String::new(),
        reason: None,
        address: None,
        labels: Default::default(),
        leads: false,
        room: None,
    }
}
