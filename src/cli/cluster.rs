//! `sampan cluster`: several nodes that keep one set of apps, on an etcd.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use http::Method;
use sampan_core::{name::Name, spec::node::LogLimits, view};
use sampan_peer::{Certificate, ClusterSecret, Identity, JoinRequest, NodeKey, Token};

use super::{End, api::ApiArguments, etcd::EtcdArguments, output::Output, process::runtime};
use crate::{
    client::quoted,
    cluster::{
        ClusterFile, Found, Place, Registrar, RegistrarError, etcd_files, hand_over,
        make_secrets_key, newcomer, open_etcd, take_along,
    },
    config,
    serve::{data, etcd::EtcdOptions},
};

/// Where a node listens for others if nothing else is said.
const DEFAULT_PEER: &str = "127.0.0.1:8701";
/// Random bytes of the number of a cluster.
const ID_BYTES: usize = 8;

/// Make a node one of several that keep one set of apps, on an etcd
///
/// `init` makes a cluster with its first node, `token` at a node that runs prints what another one
/// joins with. After that `sampan serve --data DIR` is one of them.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a cluster, and this node its first; what the node has is taken along
    ///
    /// The node must not run. Its apps, revisions and secrets are copied into etcd, and pods are made
    /// anew; key-value stores and volumes stay with the node.
    Init(Box<Init>),
    /// Print a token with which one node can join in the next hour
    Token {
        #[command(flatten)]
        api: ApiArguments,
    },
    /// Make this node one of a cluster
    Join {
        /// What `sampan cluster token` has printed
        token: String,

        /// The name of the node in the cluster
        #[arg(long, value_parser = name)]
        node: Name,

        #[command(flatten)]
        own: Own,
    },
    /// Take this node, which must not run, out of its cluster
    Leave {
        /// Where its state is [default: $XDG_STATE_HOME/sampan]
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Take another node, which must not run, out of the cluster
    ///
    /// Its certificate is refused from then on, and its pods are made elsewhere. It still has the
    /// secret of the cluster: where it is in wrong hands, make another cluster.
    Remove {
        /// Which node
        #[arg(value_parser = name)]
        node: Name,

        #[command(flatten)]
        api: ApiArguments,
    },
}

/// A cluster with its first node.
#[derive(Args)]
#[command(mut_arg("members", |members| members.required(true)))]
struct Init {
    /// The name of the node in the cluster
    #[arg(long, value_parser = name)]
    node: Name,

    #[command(flatten)]
    etcd: EtcdArguments,

    #[command(flatten)]
    own: Own,
}

/// What a node says of itself.
#[derive(Args)]
struct Own {
    /// Where to listen for the other nodes, which have to reach it there
    #[arg(long, value_name = "ADDR", default_value = DEFAULT_PEER)]
    peer: SocketAddr,

    /// What to call the node by beside its name, as `zone=a`; may be given several times
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,

    /// Where its state is [default: $XDG_STATE_HOME/sampan]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

fn name(text: &str) -> Result<Name, String> {
    Name::parse(text).map_err(|error| error.to_string())
}

/// A label: both sides are names, so that they can stand anywhere.
fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("it is written as `NAME=VALUE`")?;
    for part in [key, value] {
        name(part)?;
    }
    Ok((key.to_owned(), value.to_owned()))
}

impl Own {
    fn labels(&self) -> BTreeMap<String, String> {
        self.labels.iter().cloned().collect()
    }

    /// The address, if other nodes can reach one.
    fn address(&self) -> anyhow::Result<SocketAddr> {
        if self.peer.ip().is_unspecified() || self.peer.port() == 0 {
            bail!(
                "`--peer {}` is no address at which others can reach this node: name the one of this \
                 machine, and a port",
                self.peer
            );
        }
        Ok(self.peer)
    }
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    runtime()?.block_on(async {
        match &arguments.verb {
            Verb::Init(arguments) => {
                let Init { node, etcd, own } = &**arguments;
                // The number of the cluster says where in etcd it is.
                let etcd = etcd.options("")?;
                let etcd = etcd.context("`--etcd` has to name the members of an etcd")?;
                init(node, &etcd, own, output).await
            }
            Verb::Token { api } => {
                let invited: view::Invitation = api
                    .client()?
                    .change(Method::POST, "/v1/cluster/tokens", None::<&()>)
                    .await?;
                output.data(&format!("{}\n", invited.token));
                Ok(())
            }
            Verb::Join { token, node, own } => join(token, node, own, output).await,
            Verb::Leave { data } => leave(data.as_deref(), output).await,
            Verb::Remove { node, api } => {
                let target = format!("/v1/cluster/nodes/{}", quoted(node.as_str()));
                api.client()?.remove(&target).await?;
                output.data(&format!("node `{node}` is out of the cluster\n"));
                Ok(())
            }
        }
    })
}

fn directory(data: Option<&Path>) -> anyhow::Result<PathBuf> {
    match data {
        Some(data) => Ok(data.to_owned()),
        None => config::data_directory().context("`--data` has to name a place for the state"),
    }
}

async fn init(node: &Name, etcd: &EtcdOptions, own: &Own, output: &Output) -> End {
    let address = own.address()?;
    let directory = directory(own.data.as_deref())?;
    // Locked from here on, so the node does not run.
    let alone = data::open(&directory, LogLimits::default()).await?;
    let place = Place::new(&directory);
    place.free().map_err(anyhow::Error::new)?;
    let mut id = [0; ID_BYTES];
    getrandom::fill(&mut id).context("the system gives no random bytes")?;
    let id = base16ct::lower::encode_string(&id);
    let files = etcd_files(etcd);
    let store = open_etcd(&id, &etcd.members, &files)
        .await
        .map_err(anyhow::Error::new)?;
    let found = Found::draw(&id).map_err(anyhow::Error::new)?;
    let identity = found.authority.identity(node, SystemTime::now());
    let identity = identity.map_err(anyhow::Error::new)?;
    let taken = take_along(&*alone.store, &*store).await;
    let taken = taken.context("cannot write what the node has to etcd")?;
    let about = newcomer(address, own.labels(), env!("CARGO_PKG_VERSION"));
    found
        .write(&*store, &id, node, about)
        .await
        .map_err(anyhow::Error::new)?;
    make_secrets_key(&place).map_err(anyhow::Error::new)?;
    place.keep_etcd_files(&files).map_err(anyhow::Error::new)?;
    let file = ClusterFile {
        cluster: id.clone(),
        node: node.clone(),
        peer: address,
        etcd: etcd.members.clone(),
    };
    place
        .write(&file, &identity, &found.secret)
        .map_err(anyhow::Error::new)?;
    let handed = hand_over(&*alone.store).await;
    handed
        .context("the cluster is made; what it has taken along is still in the node's database")?;
    let shown = directory.display();
    output.data(&format!("cluster `{id}` with node `{node}` is made\n"));
    if taken > 1 {
        output.data(&format!("{taken} objects of the node were taken along\n"));
    }
    output.data(&format!("start it: sampan serve --data {shown}\n"));
    Ok(())
}

async fn join(token: &str, node: &Name, own: &Own, output: &Output) -> End {
    let token = Token::parse(token).map_err(anyhow::Error::new)?;
    let address = own.address()?;
    let directory = directory(own.data.as_deref())?;
    let alone = data::open(&directory, LogLimits::default()).await?;
    let place = Place::new(&directory);
    place.free().map_err(anyhow::Error::new)?;
    let apps = alone
        .store
        .list("/apps/")
        .await
        .context("cannot read what the node has")?;
    if !apps.entries.is_empty() {
        Err(anyhow::anyhow!(
            "`{}` has {} apps of its own, which the cluster would not have: delete them first, or \
             `--data` names another place",
            directory.display(),
            apps.entries.len()
        ))?;
    }
    let key = NodeKey::draw().map_err(anyhow::Error::new)?;
    let version = env!("CARGO_PKG_VERSION");
    let request = JoinRequest::new(
        &token,
        node.clone(),
        &key.public(),
        address,
        own.labels(),
        version,
    );
    let answer = sampan_peer::join(&token, &request)
        .await
        .map_err(anyhow::Error::new)?;
    let read = || -> anyhow::Result<(Identity, ClusterSecret)> {
        let certificate = Certificate::from_pem(answer.certificate.as_bytes())?;
        let ca = Certificate::from_pem(answer.ca.as_bytes())?;
        if ca.hash() != token.ca {
            bail!("the node that was asked has answered with another authority than the token's");
        }
        let identity = Identity::new(key, certificate, ca, SystemTime::now())?;
        Ok((identity, ClusterSecret::from_hex(answer.secret.reveal())?))
    };
    let (identity, secret) = read()?;
    place
        .keep_etcd_files(&answer.store_files)
        .map_err(anyhow::Error::new)?;
    if let Some(key) = &answer.secrets_key {
        place.keep_secrets_key(key).map_err(anyhow::Error::new)?;
    }
    let file = ClusterFile {
        cluster: answer.cluster.clone(),
        node: node.clone(),
        peer: address,
        etcd: answer.store.clone(),
    };
    place
        .write(&file, &identity, &secret)
        .map_err(anyhow::Error::new)?;
    output.data(&format!(
        "node `{node}` has joined cluster `{}`\nstart it: sampan serve --data {}\n",
        answer.cluster,
        directory.display()
    ));
    Ok(())
}

async fn leave(data: Option<&Path>, output: &Output) -> End {
    let directory = directory(data)?;
    // Locked from here on, so the node does not run.
    let _alone = data::open(&directory, LogLimits::default()).await?;
    let place = Place::new(&directory);
    let file = place.member().map_err(anyhow::Error::new)?;
    let files = place.etcd_files().map_err(anyhow::Error::new)?;
    let store = open_etcd(&file.cluster, &file.etcd, &files)
        .await
        .map_err(anyhow::Error::new)?;
    let registrar = Registrar {
        store,
        place: place.clone(),
        etcd: file.etcd,
    };
    match registrar.remove(&file.node).await {
        // Another node has removed it: what is left is here.
        Ok(()) | Err(RegistrarError::Absent(_)) => {}
        Err(error) => Err(anyhow::Error::new(error))?,
    }
    let removed = place.remove();
    removed.with_context(|| format!("cannot remove files in `{}`", directory.display()))?;
    output.data(&format!(
        "node `{}` has left cluster `{}`\n",
        file.node, file.cluster
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_names() {
        assert_eq!(label("zone=a"), Ok(("zone".to_owned(), "a".to_owned())));
        for bad in ["zone", "=a", "zone=", "zone=A b", "a=b=c"] {
            assert!(label(bad).is_err(), "{bad}");
        }
    }
}
