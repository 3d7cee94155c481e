//! The authority of a cluster: makes the certificates of its nodes.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use sampan_core::name::Name;
use time::OffsetDateTime;

use crate::{
    identity::{CERTIFICATE_LIFETIME, Certificate, Identity, IdentityError, NodeKey, PublicKey},
    node_name,
    random::{self, NoRandomness},
    secret::{ClusterSecret, SecretError},
};

/// How long before its making a certificate begins, for nodes whose clocks are behind.
const CLOCKS_DIFFER_BY: Duration = Duration::from_secs(24 * 60 * 60);
/// Random bytes of the number of a certificate.
const SERIAL_BYTES: usize = 16;

/// The authority of a cluster.
pub struct Authority {
    cluster: String,
    key: NodeKey,
    certificate: Certificate,
}

/// Why a certificate cannot be made, or an authority not be opened.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// What rcgen says.
    #[error("cannot make a certificate for `{subject}`")]
    Certificate {
        /// Of what.
        subject: String,
        /// Why.
        source: rcgen::Error,
    },
    /// The system gives no random bytes.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// What the store has is not the key of the authority.
    #[error("cannot open the key of the cluster's authority")]
    Sealed(#[source] SecretError),
    /// Its key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl Authority {
    /// The authority of a new cluster, with another key.
    ///
    /// # Errors
    ///
    /// If the system gives no random bytes.
    pub fn create(cluster: &str) -> Result<Self, IssueError> {
        let key = NodeKey::draw()?;
        let subject = subject(cluster);
        let failed = |source| IssueError::Certificate {
            subject: subject.clone(),
            source,
        };
        let mut about = about(cluster);
        about.serial_number = Some(serial()?);
        let certificate = about.self_signed(key.pair()).map_err(failed)?;
        Ok(Self {
            cluster: cluster.to_owned(),
            key,
            certificate: Certificate(certificate.der().clone()),
        })
    }

    /// The key as the store keeps it: sealed with the secret of the cluster.
    ///
    /// # Errors
    ///
    /// If the system gives no random bytes.
    pub fn seal(&self, secret: &ClusterSecret) -> Result<Vec<u8>, SecretError> {
        secret.seal(&purpose(&self.cluster), &self.key.to_der())
    }

    /// The authority whose key the store keeps.
    ///
    /// # Errors
    ///
    /// If it was sealed with another secret, or is of another certificate.
    pub fn open(
        cluster: &str,
        certificate: Certificate,
        sealed: &[u8],
        secret: &ClusterSecret,
    ) -> Result<Self, IssueError> {
        let key = secret
            .open(&purpose(cluster), sealed)
            .map_err(IssueError::Sealed)?;
        Ok(Self {
            cluster: cluster.to_owned(),
            key: NodeKey::from_der(&key)?,
            certificate,
        })
    }

    /// Its own certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// A certificate for a node, for [`CERTIFICATE_LIFETIME`].
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub fn issue(
        &self,
        node: &Name,
        key: &PublicKey,
        now: SystemTime,
    ) -> Result<Certificate, IssueError> {
        let host = node_name::host(node);
        let failed = |source| IssueError::Certificate {
            subject: host.clone(),
            source,
        };
        let mut about = CertificateParams::new([host.clone()]).map_err(failed)?;
        about.distinguished_name = named(&format!("sampan node {node}"));
        about.serial_number = Some(serial()?);
        about.not_before = calendar(now.checked_sub(CLOCKS_DIFFER_BY).unwrap_or(now));
        about.not_after = calendar(now + CERTIFICATE_LIFETIME);
        about.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        about.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        about.use_authority_key_identifier_extension = true;
        let issuer = Issuer::new(self::about(&self.cluster), self.key.pair());
        let certificate = about.signed_by(key, &issuer).map_err(failed)?;
        Ok(Certificate(certificate.der().clone()))
    }

    /// The identity of the node that makes the cluster.
    ///
    /// # Errors
    ///
    /// If its key or certificate cannot be made.
    pub fn identity(&self, node: &Name, now: SystemTime) -> Result<Identity, IssueError> {
        let key = NodeKey::draw()?;
        let certificate = self.issue(node, &key.public(), now)?;
        Ok(Identity::new(
            key,
            certificate,
            self.certificate.clone(),
            now,
        )?)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Authority");
        shown
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// What the key of an authority is sealed for.
fn purpose(cluster: &str) -> String {
    format!("sampan cluster ca 1\0{cluster}")
}

fn subject(cluster: &str) -> String {
    format!("sampan cluster {cluster}")
}

/// What the certificate of an authority says, the same each time it is asked for.
fn about(cluster: &str) -> CertificateParams {
    let mut about = CertificateParams::default();
    about.distinguished_name = named(&subject(cluster));
    // Nothing looks at the time of an authority that is trusted as such; RFC 5280 §4.1.2.5 has this
    // for what has no end.
    about.not_before = date_time_ymd(2020, 1, 1);
    about.not_after = date_time_ymd(9999, 12, 31);
    about.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    about.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    about
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// Another number: positive, and of no other certificate of this authority.
fn serial() -> Result<SerialNumber, NoRandomness> {
    let mut bytes = random::bytes::<SERIAL_BYTES>()?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&*bytes))
}

fn calendar(at: SystemTime) -> OffsetDateTime {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(date_time_ymd(9999, 12, 31))
}
