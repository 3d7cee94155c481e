//! How an etcd is reached: its members, certificates and users, from what a person has typed.

use std::{fmt, net::IpAddr, time::Duration};

use http::Uri;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// How long a connection may take to stand.
const CONNECT: Duration = Duration::from_secs(1);

/// Bytes of a stream that may be on their way: what a watch holds that is not read.
const STREAM_WINDOW: u32 = 1 << 20;

/// The same of a connection. Watches that are not read leave room for the calls beside them.
const CONNECTION_WINDOW: u32 = 64 << 20;

/// How to reach an etcd, and what of it to use.
#[derive(Clone)]
pub struct EtcdOptions {
    /// URLs of members: `https://HOST:PORT`, or `http://` on loopback.
    pub members: Vec<String>,
    /// What all keys begin with. Two that share an etcd have each its own.
    pub prefix: String,
    /// Certificates, as PEM, for members with `https://`.
    pub tls: EtcdTls,
    /// A user of etcd and its password, if etcd asks for one.
    pub user: Option<(String, String)>,
}

/// Whom to believe, and who the client is.
#[derive(Clone, Default)]
pub struct EtcdTls {
    /// The certificates of authorities that members' certificates must come from; those of the
    /// system if there are none.
    pub authorities: Option<Vec<u8>>,
    /// The client's certificate and its key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for EtcdOptions {
    /// Neither keys nor passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdOptions")
            .field("members", &self.members)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

/// Why an etcd cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// No member is named.
    #[error("no member of etcd is named")]
    NoMembers,
    /// Not the URL of a member.
    #[error("`{url}` is no URL of a member of etcd: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate or a key cannot be used.
    #[error("the certificates for etcd cannot be used: {0}")]
    Certificates(String),
    /// The prefix is longer than a key may be, or has no byte.
    #[error("the prefix `{0}` for keys in etcd is empty, or longer than {MAX_PREFIX_BYTES} bytes")]
    Prefix(String),
    /// No member answers.
    #[error("cannot reach etcd: {0}")]
    Unreachable(String),
    /// It refuses the client: a wrong password, or a user without rights.
    #[error("etcd at `{place}` refuses: {reason}")]
    Refused {
        /// The members.
        place: String,
        /// What etcd said.
        reason: String,
    },
    /// It is too old.
    #[error("etcd at `{place}` is version `{version}`, and at least 3.4 is needed")]
    Old {
        /// The members.
        place: String,
        /// What it says it is.
        version: String,
    },
}

/// Bytes of the prefix of all keys.
pub const MAX_PREFIX_BYTES: usize = 256;

/// A member of etcd.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) url: String,
    pub(super) endpoint: Endpoint,
}

/// Of these members those whose URL sends everything as plain text to another machine.
pub fn exposed(members: &[String]) -> impl Iterator<Item = &str> {
    let exposed = |url: &&String| {
        let uri: Result<Uri, _> = url.parse();
        uri.is_ok_and(|uri| uri.scheme_str() == Some("http") && !is_loopback(&uri))
    };
    members.iter().filter(exposed).map(String::as_str)
}

impl EtcdOptions {
    /// Host and port of each member.
    pub fn hosts(&self) -> impl Iterator<Item = (String, u16)> {
        let uris = self.members.iter().filter_map(|url| url.parse().ok());
        uris.filter_map(|uri: Uri| {
            let host = uri.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
            Some((host, uri.port_u16()?))
        })
    }

    /// The members as the client asks them.
    pub(super) fn endpoints(&self) -> Result<Vec<Member>, EtcdError> {
        if self.members.is_empty() {
            return Err(EtcdError::NoMembers);
        }
        self.members.iter().map(|url| self.endpoint(url)).collect()
    }

    fn endpoint(&self, url: &str) -> Result<Member, EtcdError> {
        let wrong = |reason: &str| EtcdError::Url {
            url: url.to_owned(),
            reason: reason.to_owned(),
        };
        let uri: Uri = url.parse().map_err(|_| wrong("it is none"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("it begins with neither `https://` nor `http://`")),
        };
        if uri.host().is_none_or(str::is_empty) || uri.port_u16().is_none() {
            return Err(wrong("it has no host or no port"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(wrong("it has a path"));
        }
        let endpoint = Endpoint::from(uri)
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let endpoint = match secure {
            true => {
                let secured = endpoint.tls_config(self.tls.config());
                secured.map_err(|error| EtcdError::Certificates(chain(&error)))?
            }
            false => endpoint,
        };
        let url = url.trim_end_matches('/').to_owned();
        Ok(Member { url, endpoint })
    }
}

impl EtcdTls {
    fn config(&self) -> ClientTlsConfig {
        let config = ClientTlsConfig::new();
        let config = match &self.authorities {
            Some(pem) => config.ca_certificate(Certificate::from_pem(pem)),
            None => config.with_enabled_roots(),
        };
        match &self.identity {
            Some((certificate, key)) => config.identity(Identity::from_pem(certificate, key)),
            None => config,
        }
    }
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address: Result<IpAddr, _> = host.trim_matches(['[', ']']).parse();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// What an error says, with its reasons.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(reason) = source {
        let more = reason.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = reason.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(members: &[&str]) -> EtcdOptions {
        EtcdOptions {
            members: members.iter().map(ToString::to_string).collect(),
            prefix: "/sampan".to_owned(),
            tls: EtcdTls::default(),
            user: None,
        }
    }

    #[test]
    fn what_is_no_member_is_refused_with_a_reason() {
        for (url, reason) in [
            ("127.0.0.1 2379", "it is none"),
            (
                "127.0.0.1:2379",
                "it begins with neither `https://` nor `http://`",
            ),
            (
                "ftp://a:1",
                "it begins with neither `https://` nor `http://`",
            ),
            ("http://a", "it has no host or no port"),
            ("http://a:1/v3", "it has a path"),
        ] {
            let error = options(&[url]).endpoints().expect_err(url);
            assert!(error.to_string().ends_with(reason), "{error}");
        }
        assert!(options(&[]).endpoints().is_err());
        let members = options(&["http://a:1/", "http://[::1]:2"]).endpoints();
        let members = members.expect("two URLs");
        let urls: Vec<_> = members.iter().map(|it| it.url.as_str()).collect();
        assert_eq!(urls, ["http://a:1", "http://[::1]:2"]);
    }

    #[test]
    fn plain_text_to_other_machines_is_told_from_loopback() {
        let members = [
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "http://localhost:1",
            "https://10.0.0.1:1",
            "http://10.0.0.1:1",
            "http://localhost.example:1",
        ]
        .map(str::to_owned);
        let exposed: Vec<_> = exposed(&members).map(str::to_owned).collect();
        assert_eq!(exposed, ["http://10.0.0.1:1", "http://localhost.example:1"]);
    }

    #[test]
    fn neither_passwords_nor_keys_are_shown() {
        let mut secret = options(&["https://a:1"]);
        secret.user = Some(("root".to_owned(), "hunter2".to_owned()));
        secret.tls.identity = Some((b"certificate".to_vec(), b"hunter2".to_vec()));
        assert!(!format!("{secret:?}").contains("hunter2"));
        let error = secret.endpoints().expect_err("no certificate");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
