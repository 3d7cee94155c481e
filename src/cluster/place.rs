//! The files of a node that is one of a cluster, below its data directory.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::SystemTime,
};

use sampan_core::name::Name;
use sampan_peer::{
    ClusterSecret, FileError, Identity, IdentityError, SecretError, Sensitive, read_secret_file,
    write_secret_file,
};
use serde::{Deserialize, Serialize};

use super::etcd::FILES as ETCD_FILES;

/// Says that the node is one of a cluster, so it is written last and removed first.
const CLUSTER_FILE: &str = "cluster.toml";
/// The secret of the cluster.
const SECRET_FILE: &str = "cluster.secret";
/// The key with which values of apps' secrets are sealed, as a node that is alone has it.
const SECRETS_KEY_FILE: &str = "secrets.key";
/// The files of the node's own identity.
const IDENTITY_FILES: [&str; 3] = ["node.key", "node.crt", "ca.crt"];
/// What stands at the beginning of the file.
const HEAD: &str = "# Made by `sampan cluster`: this node is one of a cluster. `sampan cluster leave` takes it out.\n";

/// Where a node keeps what makes it one of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Place(PathBuf);

/// Which cluster, which node of it, and where its store is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterFile {
    /// The number of the cluster.
    pub(crate) cluster: String,
    /// The name of this node.
    pub(crate) node: Name,
    /// Where it listens for other nodes.
    pub(crate) peer: SocketAddr,
    /// Members of etcd, as URLs.
    pub(crate) etcd: Vec<String>,
}

/// Why what makes a node one of a cluster cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The node's certificate.
    #[error("cannot use the certificate of this node")]
    Identity(#[from] IdentityError),
    /// The secret.
    #[error("cannot use the secret of the cluster")]
    Secret(#[from] SecretError),
    /// It was written by hand, or by a later version.
    #[error("`{path}` is not what `sampan cluster` has written: {reason}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// The node is one of a cluster.
    #[error(
        "`{}` is the data of node `{node}` of a cluster already: `sampan cluster leave` takes it out, \
         or `--data` names another place", .path.display()
    )]
    Taken {
        /// Whose data.
        path: PathBuf,
        /// The node.
        node: Name,
    },
    /// The node is none of a cluster.
    #[error(
        "`{}` is not the data of a node of a cluster: `sampan cluster init` makes a cluster, and \
         `sampan cluster join` a node of one", .0.display()
    )]
    Alone(PathBuf),
}

impl Place {
    /// That of a node with its state in this directory.
    pub(crate) fn new(data: &Path) -> Self {
        Self(data.to_owned())
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Which cluster the node is of, if it is of one.
    pub(crate) fn read(&self) -> Result<Option<ClusterFile>, ClusterError> {
        let path = self.path(CLUSTER_FILE);
        let malformed = |reason: String| ClusterError::Malformed {
            path: path.clone(),
            reason,
        };
        // What it has is no secret, but written by this user alone.
        let bytes = match read_secret_file(&path) {
            Err(error) if error.is_absent() => return Ok(None),
            read => read?,
        };
        let text = std::str::from_utf8(&bytes);
        let text = text.map_err(|error| malformed(error.to_string()))?;
        let file = toml::from_str(text);
        file.map(Some)
            .map_err(|error| malformed(error.message().to_owned()))
    }

    /// The same of a node that has to be one of a cluster.
    pub(crate) fn member(&self) -> Result<ClusterFile, ClusterError> {
        self.read()?
            .ok_or_else(|| ClusterError::Alone(self.0.clone()))
    }

    /// That the node is of none yet.
    pub(crate) fn free(&self) -> Result<(), ClusterError> {
        match self.read()? {
            None => Ok(()),
            Some(file) => Err(ClusterError::Taken {
                path: self.0.clone(),
                node: file.node,
            }),
        }
    }

    /// Who the node is.
    pub(crate) fn identity(&self) -> Result<Identity, ClusterError> {
        Ok(Identity::read(&self.0, SystemTime::now())?)
    }

    /// The secret of the cluster.
    pub(crate) fn secret(&self) -> Result<ClusterSecret, ClusterError> {
        Ok(ClusterSecret::read(&self.path(SECRET_FILE))?)
    }

    /// Keeps another certificate of the node.
    pub(crate) fn renew(&self, identity: &Identity) -> Result<(), ClusterError> {
        Ok(identity.write_certificate(&self.0)?)
    }

    /// Makes the node one of a cluster. Until the last of this is done it is none.
    pub(crate) fn write(
        &self,
        file: &ClusterFile,
        identity: &Identity,
        secret: &ClusterSecret,
    ) -> Result<(), ClusterError> {
        identity.write(&self.0)?;
        secret.write(&self.path(SECRET_FILE))?;
        let text = toml::to_string(file).expect("it is plain data");
        let text = format!("{HEAD}{text}");
        Ok(write_secret_file(
            &self.path(CLUSTER_FILE),
            text.as_bytes(),
        )?)
    }

    /// Takes the node out of its cluster, as far as its own files go.
    pub(crate) fn remove(&self) -> std::io::Result<()> {
        let files = [CLUSTER_FILE, SECRET_FILE].into_iter();
        for file in files.chain(IDENTITY_FILES).chain(ETCD_FILES) {
            match std::fs::remove_file(self.path(file)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// What there is that shows etcd who this node is.
    pub(crate) fn etcd_files(&self) -> Result<BTreeMap<String, Sensitive>, ClusterError> {
        self.texts(&ETCD_FILES)
    }

    /// The key of apps' secrets, if there is one.
    pub(crate) fn secrets_key(&self) -> Result<Option<Sensitive>, ClusterError> {
        Ok(self.texts(&[SECRETS_KEY_FILE])?.remove(SECRETS_KEY_FILE))
    }

    fn texts(&self, files: &[&str]) -> Result<BTreeMap<String, Sensitive>, ClusterError> {
        let mut found = BTreeMap::new();
        for &file in files {
            let path = self.path(file);
            let bytes = match read_secret_file(&path) {
                Err(error) if error.is_absent() => continue,
                read => read?,
            };
            let text = std::str::from_utf8(&bytes).map_err(|_| ClusterError::Malformed {
                path,
                reason: "it is not text".to_owned(),
            })?;
            found.insert(file.to_owned(), Sensitive::new(text));
        }
        Ok(found)
    }

    /// Keeps what shows etcd who this node is, and nothing else.
    pub(crate) fn keep_etcd_files(
        &self,
        files: &BTreeMap<String, Sensitive>,
    ) -> Result<(), ClusterError> {
        for file in ETCD_FILES {
            if let Some(text) = files.get(file) {
                write_secret_file(&self.path(file), text.reveal().as_bytes())?;
            }
        }
        Ok(())
    }

    /// Keeps the key of apps' secrets, which all nodes of a cluster share.
    pub(crate) fn keep_secrets_key(&self, key: &Sensitive) -> Result<(), ClusterError> {
        let path = self.path(SECRETS_KEY_FILE);
        Ok(write_secret_file(&path, key.reveal().as_bytes())?)
    }
}
