//! TLS among nodes: version 1.3, both certificates, and no session that is taken up again, because
//! that would pass over the look at the certificates.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, ring, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier},
    version::TLS13,
};

use crate::{
    identity::{CaHash, Certificate, Identity},
    node_name,
};

/// What nodes speak.
pub(crate) const HTTP2: &[u8] = b"h2";
/// What a new node speaks, which has no certificate yet.
pub(crate) const JOIN: &[u8] = b"sampan-join/1";

/// Who this node is for now, for its server and its client: a renewal replaces it for both.
pub struct Credentials(ArcSwap<Kit>);

/// An identity, and TLS with it.
pub(crate) struct Kit {
    pub(crate) identity: Arc<Identity>,
    /// For nodes that call.
    pub(crate) server: Arc<ServerConfig>,
    /// For those that want to join.
    pub(crate) joining: Arc<ServerConfig>,
    /// For calling nodes.
    pub(crate) client: Arc<ClientConfig>,
}

impl Credentials {
    /// Shows others this identity.
    ///
    /// # Errors
    ///
    /// If TLS does not take its key or a certificate.
    pub fn new(identity: Identity) -> Result<Self, rustls::Error> {
        Ok(Self(ArcSwap::from_pointee(Kit::new(identity)?)))
    }

    /// Shows another identity from the next connection on.
    ///
    /// # Errors
    ///
    /// If TLS does not take its key or a certificate; it is the former one then.
    pub fn renew(&self, identity: Identity) -> Result<(), rustls::Error> {
        self.0.store(Arc::new(Kit::new(identity)?));
        Ok(())
    }

    /// Who this node is.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.0.load().identity)
    }

    pub(crate) fn kit(&self) -> Arc<Kit> {
        self.0.load_full()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials")
            .field(&self.identity())
            .finish()
    }
}

impl Kit {
    fn new(identity: Identity) -> Result<Self, rustls::Error> {
        Ok(Self {
            server: Arc::new(server(&identity, true)?),
            joining: Arc::new(server(&identity, false)?),
            client: Arc::new(client(&identity)?),
            identity: Arc::new(identity),
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(ca: &Certificate) -> Result<Arc<RootCertStore>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.0.clone())?;
    Ok(Arc::new(roots))
}

/// The server's side: with `mutual` for nodes, without for those that have no certificate yet.
fn server(identity: &Identity, mutual: bool) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&[&TLS13])?;
    let builder = if mutual {
        let roots = roots(identity.ca())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
        let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(identity.chain(), identity.private_key())?;
    config.alpn_protocols = vec![if mutual { HTTP2 } else { JOIN }.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// The client's side of a node. Which node it reaches is checked by name.
fn client(identity: &Identity) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&[&TLS13])?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(identity.ca())?, provider());
    let verifier = verifier.build();
    let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
    let builder = builder.with_webpki_verifier(verifier);
    let mut config = builder.with_client_auth_cert(identity.chain(), identity.private_key())?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The client's side of a new node, which knows nothing but the digest of the authority's
/// certificate.
pub(crate) fn joining(ca: CaHash) -> Result<ClientConfig, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_protocol_versions(&[&TLS13])?;
    let provider = provider();
    let verifier = Arc::new(ByHash { ca, provider });
    let builder = builder
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![JOIN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

/// Takes any node of the authority whose certificate has this digest.
#[derive(Debug)]
struct ByHash {
    ca: CaHash,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByHash {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut authorities = intermediates.iter();
        let ca = authorities.find(|&shown| CaHash::of(shown) == self.ca);
        let ca = ca.ok_or_else(|| {
            let text = "it is not a node of the cluster that the token is of";
            rustls::Error::General(text.to_owned())
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &[], now, algorithms)?;
        let shown = Certificate(end_entity.clone().into_owned());
        if shown.node().is_none() {
            let text = "its certificate has no name of a node";
            return Err(rustls::Error::General(text.to_owned()));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        None
    }
}

/// The name of a node as TLS compares it.
pub(crate) fn server_name(node: &sampan_core::name::Name) -> ServerName<'static> {
    let name = ServerName::try_from(node_name::host(node));
    name.expect("the name of a node is a label of a host name")
}
