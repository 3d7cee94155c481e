//! Asks the other nodes of a cluster.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::future::join_all;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use sampan_core::name::Name;
use sampan_peer::{AnswerBody, Body, Client, ClientLimits, Credentials, Remote, empty, full};
use tokio::time::timeout;

use super::members::Members;

/// Time that each node has to answer when all are asked.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(1);
/// The most bytes of such an answer.
const MAX_ANSWER: usize = 64 << 20;

/// The other nodes, as this one asks them.
pub(crate) struct Peers {
    client: Client,
    members: Arc<Members>,
    own: Name,
}

/// What a node has answered, or why it has not.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) node: Name,
    pub(crate) answer: Result<Bytes, String>,
}

impl Peers {
    pub(crate) fn new(credentials: Arc<Credentials>, members: Arc<Members>) -> Self {
        let own = credentials.identity().node().clone();
        Self {
            client: Client::new(credentials, ClientLimits::default()),
            members,
            own,
        }
    }

    /// The other nodes that run.
    pub(crate) fn others(&self) -> Vec<Remote> {
        self.members.with(|roster| {
            let others = roster
                .sessions
                .iter()
                .filter(|(name, _)| **name != self.own);
            let remote =
                |(node, session): (&Name, &sampan_core::record::cluster::NodeSession)| Remote {
                    node: node.clone(),
                    address: session.address,
                };
            others.map(remote).collect()
        })
    }

    /// The other node that leads, if one does.
    pub(crate) fn leader(&self) -> Option<Remote> {
        self.members.with(|roster| {
            let leader = roster.leader.as_ref()?;
            let session = roster.sessions.get(&leader.node)?;
            (leader.node != self.own).then(|| Remote {
                node: leader.node.clone(),
                address: session.address,
            })
        })
    }

    /// Tells all other nodes that run something, or asks them, at once.
    pub(crate) async fn tell_all(&self, method: Method, target: &str) -> Vec<Answered> {
        let asked = self.others().into_iter().map(|remote| {
            let method = method.clone();
            async move {
                let answer = timeout(ANSWER_TIME, self.ask(&remote, method, target)).await;
                let late = || Err(format!("no answer in {} s", ANSWER_TIME.as_secs()));
                Answered {
                    answer: answer.unwrap_or_else(|_| late()),
                    node: remote.node,
                }
            }
        });
        join_all(asked).await
    }

    async fn ask(&self, remote: &Remote, method: Method, target: &str) -> Result<Bytes, String> {
        let response = self.send(remote, method, target).await?;
        let body = Limited::new(response.into_body(), MAX_ANSWER);
        let body = body.collect().await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    }

    /// Begins to read what a node answers, if that is success.
    pub(crate) async fn open(
        &self,
        remote: &Remote,
        target: &str,
    ) -> Result<Response<AnswerBody>, String> {
        self.send(remote, Method::GET, target).await
    }

    /// Asks a node for something, and gets its answer if that is success.
    pub(crate) async fn send(
        &self,
        remote: &Remote,
        method: Method,
        target: &str,
    ) -> Result<Response<AnswerBody>, String> {
        self.deliver(remote, method, target, empty()).await
    }

    /// Tells a node something, which it has taken when this returns.
    pub(crate) async fn tell(
        &self,
        remote: &Remote,
        target: &str,
        what: Bytes,
    ) -> Result<(), String> {
        let told = self.deliver(remote, Method::POST, target, full(what)).await;
        told.map(drop)
    }

    /// Asks a node this, and gets its answer, whatever that is.
    pub(crate) async fn pass(
        &self,
        node: &Name,
        request: Request<Body>,
    ) -> Result<Response<AnswerBody>, String> {
        let remote = self.others().into_iter().find(|it| it.node == *node);
        let remote = remote.ok_or_else(|| "it is down".to_owned())?;
        let response = self.client.send(&remote, request).await;
        response.map_err(|error| error.to_string())
    }

    async fn deliver(
        &self,
        remote: &Remote,
        method: Method,
        target: &str,
        body: Body,
    ) -> Result<Response<AnswerBody>, String> {
        let request = Request::builder().method(method).uri(target).body(body);
        let request = request.map_err(|error| error.to_string())?;
        let response = self.client.send(remote, request).await;
        let response = response.map_err(|error| error.to_string())?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => Err(format!("it answers {status}")),
        }
    }
}
