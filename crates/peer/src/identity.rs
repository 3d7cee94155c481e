//! Who a node is: its key, its certificate, and the certificate of the cluster's authority.

use std::{
    fmt,
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use ring::digest;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime, pem::PemObject as _,
};
use sampan_core::name::Name;
use zeroize::Zeroizing;

use crate::{
    file::{FileError, read_file, read_secret_file, write_file, write_secret_file},
    node_name,
};

/// How long the certificate of a node is good for.
pub const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Bytes of a public key: a point of P-256, uncompressed.
const POINT_BYTES: usize = 65;
/// How such a point begins.
const UNCOMPRESSED: u8 = 4;
/// Bytes of the digest of a certificate.
const HASH_BYTES: usize = digest::SHA256_OUTPUT_LEN;

/// The files of an identity in the directory of a node.
const KEY_FILE: &str = "node.key";
const CERTIFICATE_FILE: &str = "node.crt";
const CA_FILE: &str = "ca.crt";

/// A certificate in DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate(pub(crate) CertificateDer<'static>);

/// The digest of the certificate of an authority, by which a token names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaHash([u8; HASH_BYTES]);

/// The key of a node, of the curve P-256. It never leaves the node.
pub struct NodeKey(KeyPair);

/// The public half of the key of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; POINT_BYTES]);

/// Who a node is, as it shows itself to others.
pub struct Identity {
    node: Name,
    key: NodeKey,
    certificate: Certificate,
    ca: Certificate,
}

/// Why something is no identity of a node.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of it.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system gives no random bytes.
    #[error("cannot make a key: the system gives no random bytes")]
    Random,
    /// It is no key of P-256.
    #[error("it is not a key of the curve P-256")]
    NoKey,
    /// It is no certificate.
    #[error("it is not a certificate")]
    NoCertificate,
    /// The certificate is not valid now.
    #[error(
        "the certificate of this node has expired, or the clock of this machine is wrong: \
         `sampan cluster remove` at another node and `sampan cluster join` give it another one"
    )]
    Expired,
    /// The certificate is of another authority or key.
    #[error("the certificate is not one of the cluster for this node: {0}")]
    Foreign(String),
}

impl Certificate {
    /// The certificate with these bytes.
    pub fn from_der(der: Vec<u8>) -> Self {
        Self(CertificateDer::from(der))
    }

    /// Its bytes.
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// Reads it from text (PEM).
    ///
    /// # Errors
    ///
    /// If that is something else.
    pub fn from_pem(text: &[u8]) -> Result<Self, IdentityError> {
        let read = CertificateDer::from_pem_slice(text);
        Ok(Self(read.map_err(|_| IdentityError::NoCertificate)?))
    }

    /// The certificate as text (PEM), which other programs read as well.
    pub fn to_pem(&self) -> String {
        pem("CERTIFICATE", &self.0).as_str().to_owned()
    }

    /// Its digest.
    pub fn hash(&self) -> CaHash {
        CaHash::of(&self.0)
    }

    /// The node that it is of.
    pub(crate) fn node(&self) -> Option<Name> {
        let certificate = webpki::EndEntityCert::try_from(&self.0).ok()?;
        // Two names would be two nodes.
        let mut names = certificate.valid_dns_names();
        let node = node_name::node(names.next()?)?;
        names.next().is_none().then_some(node)
    }

    /// Whether `ca` has made it, and it is valid at that time.
    fn verify(&self, ca: &Self, at: SystemTime) -> Result<(), IdentityError> {
        let foreign = |error: webpki::Error| IdentityError::Foreign(error.to_string());
        let certificate = webpki::EndEntityCert::try_from(&self.0).map_err(foreign)?;
        let anchors = [webpki::anchor_from_trusted_cert(&ca.0).map_err(foreign)?];
        let since = at.duration_since(SystemTime::UNIX_EPOCH);
        let verified = certificate.verify_for_usage(
            &[webpki::ring::ECDSA_P256_SHA256],
            &anchors,
            &[],
            UnixTime::since_unix_epoch(since.unwrap_or_default()),
            webpki::KeyUsage::client_auth(),
            None,
            None,
        );
        verified.map(drop).map_err(|error| match error {
            webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
                IdentityError::Expired
            }
            error => foreign(error),
        })
    }
}

impl CaHash {
    pub(crate) fn of(der: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, der);
        let bytes = digest.as_ref().try_into();
        Self(bytes.expect("a SHA-256 has 32 bytes"))
    }

    /// Reads 64 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; HASH_BYTES];
        let decoded = base16ct::lower::decode(text, &mut bytes).ok()?.len();
        (decoded == HASH_BYTES).then_some(Self(bytes))
    }

    /// Its hex digits.
    pub fn to_hex(self) -> String {
        base16ct::lower::encode_string(&self.0)
    }
}

impl fmt::Display for CaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl NodeKey {
    /// Another key.
    ///
    /// # Errors
    ///
    /// If the system gives no random bytes.
    pub fn draw() -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        Ok(Self(key.map_err(|_| IdentityError::Random)?))
    }

    /// The key with these bytes (PKCS #8).
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let der = PrivatePkcs8KeyDer::from(der);
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256);
        Ok(Self(key.map_err(|_| IdentityError::NoKey)?))
    }

    pub(crate) fn to_der(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.serialize_der())
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }

    /// Its public half, which others may know.
    pub fn public(&self) -> PublicKey {
        let point = self.0.public_key_raw().try_into();
        PublicKey(point.expect("a key of P-256 is a point of 65 bytes"))
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(***)")
    }
}

impl PublicKey {
    /// Reads its hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut point = [0; POINT_BYTES];
        let decoded = base16ct::lower::decode(text, &mut point).ok()?.len();
        (decoded == POINT_BYTES && point[0] == UNCOMPRESSED).then_some(Self(point))
    }

    /// Its hex digits.
    pub fn to_hex(&self) -> String {
        base16ct::lower::encode_string(&self.0)
    }
}

impl PublicKeyData for PublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl Identity {
    /// The identity of a node, if the authority has made the certificate for this key and it is
    /// valid now.
    ///
    /// # Errors
    ///
    /// If it has not or is not.
    pub fn new(
        key: NodeKey,
        certificate: Certificate,
        ca: Certificate,
        now: SystemTime,
    ) -> Result<Self, IdentityError> {
        let identity = Self::unchecked(key, certificate, ca)?;
        identity.certificate.verify(&identity.ca, now)?;
        Ok(identity)
    }

    /// The same without a look at the time or at who made the certificate: one that has expired has
    /// to be read to be told of.
    fn unchecked(
        key: NodeKey,
        certificate: Certificate,
        ca: Certificate,
    ) -> Result<Self, IdentityError> {
        let node = certificate.node();
        let node = node.ok_or_else(|| IdentityError::Foreign("it has no name of a node".into()))?;
        let parsed = webpki::EndEntityCert::try_from(&certificate.0);
        let parsed = parsed.map_err(|_| IdentityError::NoCertificate)?;
        if *parsed.subject_public_key_info() != *key.0.subject_public_key_info() {
            return Err(IdentityError::Foreign("it is of another key".into()));
        }
        Ok(Self {
            node,
            key,
            certificate,
            ca,
        })
    }

    /// Reads it from the directory of a node.
    ///
    /// # Errors
    ///
    /// If a file is missing or is something else, others may read the key, or the certificate is
    /// not valid now.
    pub fn read(directory: &Path, now: SystemTime) -> Result<Self, IdentityError> {
        let key = read_secret_file(&directory.join(KEY_FILE))?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(&key).map_err(|_| IdentityError::NoKey)?;
        let key = NodeKey::from_der(key.secret_pkcs8_der())?;
        let certificate = Certificate::from_pem(&read_file(&directory.join(CERTIFICATE_FILE))?)?;
        let ca = Certificate::from_pem(&read_file(&directory.join(CA_FILE))?)?;
        Self::new(key, certificate, ca, now)
    }

    /// Writes it into the directory of a node: the key for this user alone.
    ///
    /// # Errors
    ///
    /// What the system says against it.
    pub fn write(&self, directory: &Path) -> Result<(), IdentityError> {
        let key = pem("PRIVATE KEY", &self.key.to_der());
        write_secret_file(&directory.join(KEY_FILE), key.as_bytes())?;
        write_file(&directory.join(CA_FILE), self.ca.to_pem().as_bytes())?;
        self.write_certificate(directory)
    }

    /// Writes the certificate alone, of which there is another after a renewal.
    ///
    /// # Errors
    ///
    /// What the system says against it.
    pub fn write_certificate(&self, directory: &Path) -> Result<(), IdentityError> {
        let pem = self.certificate.to_pem();
        Ok(write_file(
            &directory.join(CERTIFICATE_FILE),
            pem.as_bytes(),
        )?)
    }

    /// The same node with a newer certificate for the same key.
    ///
    /// # Errors
    ///
    /// If the certificate is of another key, node or authority, or not valid now.
    pub fn renewed(
        &self,
        certificate: Certificate,
        now: SystemTime,
    ) -> Result<Self, IdentityError> {
        let key = NodeKey::from_der(&self.key.to_der())?;
        let renewed = Self::new(key, certificate, self.ca.clone(), now)?;
        if renewed.node != self.node {
            let text = format!("it is of the node `{}`", renewed.node);
            return Err(IdentityError::Foreign(text));
        }
        Ok(renewed)
    }

    /// Whether less than a third of a certificate's time is left, so that it is time for another.
    pub fn is_due(&self, now: SystemTime) -> bool {
        let third = CERTIFICATE_LIFETIME / 3;
        self.certificate.verify(&self.ca, now + third).is_err()
    }

    /// The name of the node.
    pub fn node(&self) -> &Name {
        &self.node
    }

    /// The certificate of the cluster's authority.
    pub fn ca(&self) -> &Certificate {
        &self.ca
    }

    /// The public half of its key, to ask for another certificate with.
    pub fn public_key(&self) -> PublicKey {
        self.key.public()
    }

    /// What is shown to others: the node's certificate, and whose it is.
    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.certificate.0.clone(), self.ca.0.clone()]
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        let der = self.key.to_der();
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec()))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Identity");
        shown.field("node", &self.node).finish_non_exhaustive()
    }
}

/// Bytes as text between two lines that say what they are (RFC 7468).
fn pem(what: &str, der: &[u8]) -> Zeroizing<String> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    const LINE: usize = 64;
    let encoded = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(2 * encoded.len() + 128));
    text.push_str(&format!("-----BEGIN {what}-----\n"));
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, behind) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = behind;
    }
    text.push_str(&format!("-----END {what}-----\n"));
    text
}

#[cfg(test)]
mod tests;
