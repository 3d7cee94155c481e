//! Questions that all nodes of a cluster answer: each for what is on it, a second each. An answer says
//! which nodes have not given theirs.

use axum::{
    body::Bytes,
    http::{HeaderName, HeaderValue, Uri},
    response::Response,
};
use futures::stream::BoxStream;
use sampan_core::{escape, name::Name, record, view};
use serde::{Serialize, de::DeserializeOwned};

use super::{Answered, Api, follow};

/// Which nodes have not answered, and why.
const UNANSWERED: HeaderName = HeaderName::from_static("sampan-unanswered");
/// The most bytes of that.
const MAX_NOTE: usize = 4 << 10;

/// What the other nodes have answered.
#[derive(Default)]
pub(super) struct Everywhere {
    answers: Vec<(Name, Bytes)>,
    missing: Vec<(Name, String)>,
}

impl Api {
    /// Asks the other nodes just what this one was asked.
    pub(super) async fn everywhere(&self, asked: &Uri) -> Everywhere {
        let (Some(cluster), Some(target)) = (&self.0.cluster, asked.path_and_query()) else {
            return Everywhere::default();
        };
        Everywhere::of(cluster.ask_all(target.as_str()).await)
    }

    /// Has what the other nodes answer to this come as they say it, a line after the other.
    pub(super) async fn following(&self, asked: &Uri) -> (BoxStream<'static, Bytes>, Everywhere) {
        let (Some(cluster), Some(target)) = (&self.0.cluster, asked.path_and_query()) else {
            let none = futures::stream::pending();
            return (Box::pin(none), Everywhere::default());
        };
        let (lines, missing) = cluster.follow(target.as_str()).await;
        let everywhere = Everywhere {
            missing,
            ..Everywhere::default()
        };
        (lines, everywhere)
    }
}

impl Everywhere {
    /// What they have answered.
    pub(super) fn of(answers: Vec<Answered>) -> Self {
        let mut everywhere = Self::default();
        for answered in answers {
            everywhere.take(answered.node, answered.answer);
        }
        everywhere
    }

    fn take(&mut self, node: Name, answer: Result<Bytes, String>) {
        match answer {
            Ok(bytes) => self.answers.push((node, bytes)),
            Err(reason) => self.missing.push((node, reason)),
        }
    }

    /// Which nodes have not answered, and why.
    pub(super) fn missing(&self) -> &[(Name, String)] {
        &self.missing
    }

    /// The texts.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&Name, &Bytes)> {
        self.answers.iter().map(|(node, text)| (node, text))
    }

    /// The answers as what they are. What is something else has not been answered.
    pub(super) fn documents<T: DeserializeOwned>(&mut self) -> Vec<(Name, T)> {
        let mut documents = Vec::new();
        for (node, text) in std::mem::take(&mut self.answers) {
            match serde_json::from_slice(&text) {
                Ok(document) => documents.push((node, document)),
                Err(error) => self.missing.push((node, error.to_string())),
            }
        }
        documents
    }

    /// The lines of all answers, each as what it is.
    pub(super) fn lines<T: DeserializeOwned>(&mut self) -> Vec<(Name, T)> {
        let mut all = Vec::new();
        for (node, text) in std::mem::take(&mut self.answers) {
            let lines = text.split(|&byte| byte == b'\n');
            let lines = lines.filter(|line| !line.is_empty());
            let read = lines.map(|line| serde_json::from_slice(line));
            match read.collect::<Result<Vec<T>, _>>() {
                Ok(lines) => all.extend(lines.into_iter().map(|line| (node.clone(), line))),
                Err(error) => self.missing.push((node, error.to_string())),
            }
        }
        all
    }

    /// Says in an answer which nodes have not given theirs.
    pub(super) fn noted(&self, mut response: Response) -> Response {
        if self.missing.is_empty() {
            return response;
        }
        let missing = self.missing.iter();
        let missing = missing.map(|(node, reason)| format!("{node}: {reason}"));
        let note = missing.collect::<Vec<_>>().join("; ");
        let plain = |c: char| matches!(c, ' '..='~');
        let note: String = escape::lines(&note)
            .chars()
            .filter(|&c| plain(c))
            .take(MAX_NOTE)
            .collect();
        if let Ok(value) = HeaderValue::from_str(&note) {
            response.headers_mut().insert(UNANSWERED, value);
        }
        response
    }

    /// A pod of another node, as that node says, or why it says nothing. `None` for one of this node.
    pub(super) fn pod(
        &self,
        wanted: &record::Pod,
        own: &str,
        said: &[(Name, Vec<view::Pod>)],
    ) -> Option<view::Pod> {
        let node = wanted.node.as_ref().filter(|node| node.as_str() != own)?;
        let unseen = view::Pod::unseen(wanted);
        let of_node = said.iter().find(|(name, _)| name == node);
        let missing = self.missing.iter().find(|(name, _)| name == node);
        Some(match (of_node, missing) {
            (Some((_, pods)), _) => {
                let same = |pod: &&view::Pod| (&pod.app, &pod.name) == (&unseen.app, &unseen.name);
                pods.iter().find(same).cloned().unwrap_or(unseen)
            }
            (None, Some(_)) => view::Pod {
                reason: Some(format!("node `{node}` has not answered")),
                ..unseen
            },
            (None, None) => view::Pod {
                reason: Some(format!("node `{node}` is down")),
                ..unseen
            },
        })
    }
}

/// Lines of all nodes by their time, as text: the last `tail`, if that is asked for.
pub(super) fn by_time<T: Serialize>(
    mut lines: Vec<T>,
    time: impl Fn(&T) -> &str,
    tail: Option<usize>,
) -> Bytes {
    // Of one form, so the order of texts is that of the times.
    lines.sort_by(|one, other| time(one).cmp(time(other)));
    let from = tail.map_or(0, |tail| lines.len().saturating_sub(tail));
    follow::lines(&lines[from..])
}
