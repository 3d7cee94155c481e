//! A URL with a user and a password in it, as a request that says them where servers look.

use std::borrow::Cow;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{
    HeaderValue, Request, Uri,
    header::{AUTHORIZATION, HOST},
    uri::{Authority, Scheme},
};
use percent_encoding::percent_decode_str;

/// Makes the authority of a request a host, with a port if that is not the usual one, in its URL
/// and in its `Host` field. A user and a password before it become `Authorization: Basic`
/// (RFC 7617), unless the guest has set that field: in a URL they are not sent (RFC 9110 §4.2.4),
/// and would be in logs.
pub(super) fn from_url<B>(mut request: Request<B>) -> Request<B> {
    let Some(authority) = request.uri().authority() else {
        return request;
    };
    let is_https = request.uri().scheme() == Some(&Scheme::HTTPS);
    let text = authority.as_str();
    let (credentials, server) = match text.rsplit_once('@') {
        Some((credentials, server)) => (Some(credentials), server),
        None => (None, text),
    };
    let usual = if is_https { ":443" } else { ":80" };
    let host = authority.host();
    let server = match server.strip_prefix(host) {
        Some(port) if port == usual || port == ":" => host,
        _ => server,
    };
    let basic = credentials.and_then(basic);
    let Some((authority, field)) = parsed(server) else {
        return request;
    };
    let headers = request.headers_mut();
    headers.insert(HOST, field);
    if let Some(basic) = basic
        && !headers.contains_key(AUTHORIZATION)
    {
        headers.insert(AUTHORIZATION, basic);
    }
    let mut parts = request.uri().clone().into_parts();
    parts.authority = Some(authority);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

fn parsed(server: &str) -> Option<(Authority, HeaderValue)> {
    Some((server.parse().ok()?, server.parse().ok()?))
}

/// The field for a user and a password, as they stand in a URL: percent-encoded. `None` if there is
/// neither.
fn basic(credentials: &str) -> Option<HeaderValue> {
    if matches!(credentials, "" | ":") {
        return None;
    }
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let [user, password] = [user, password].map(|text| Cow::from(percent_decode_str(text)));
    let pair = [&user, b":".as_slice(), &password].concat();
    let value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair)));
    let mut value = value.ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// URL, `Host` and `Authorization` of a request for a URL, made as the host makes it for a guest.
    fn sent(url: &str, own: Option<&'static str>) -> (String, String, Option<String>) {
        let uri: Uri = url.parse().expect("a URL");
        let authority = uri.authority().expect("an authority").as_str().to_owned();
        let mut request = Request::builder().uri(uri).header(HOST, authority);
        if let Some(own) = own {
            request = request.header(AUTHORIZATION, own);
        }
        let request = from_url(request.body(()).expect("a request"));
        let field = |name| {
            let mut values = request.headers().get_all(&name).iter();
            let value = values
                .next()
                .map(|it| it.to_str().expect("text").to_owned());
            assert!(values.next().is_none(), "twice: {name}");
            value
        };
        let host = field(HOST).expect("a host");
        (request.uri().to_string(), host, field(AUTHORIZATION))
    }

    /// URLs as guests make them, and then URL, `Host` and `Authorization` as they go out.
    const OUT: &[(&str, &str, &str, Option<&str>)] = &[
        (
            "http://a.example/x?y",
            "http://a.example/x?y",
            "a.example",
            None,
        ),
        (
            "http://a.example:80/",
            "http://a.example/",
            "a.example",
            None,
        ),
        (
            "http://a.example:443/",
            "http://a.example:443/",
            "a.example:443",
            None,
        ),
        (
            "https://a.example:443/",
            "https://a.example/",
            "a.example",
            None,
        ),
        (
            "https://a.example:80/",
            "https://a.example:80/",
            "a.example:80",
            None,
        ),
        ("http://a.example:/", "http://a.example/", "a.example", None),
        (
            "http://[2001:db8::1]:8080/",
            "http://[2001:db8::1]:8080/",
            "[2001:db8::1]:8080",
            None,
        ),
        (
            "http://[2001:db8::1]:80/",
            "http://[2001:db8::1]/",
            "[2001:db8::1]",
            None,
        ),
        // The example of RFC 7617 §2.
        (
            "http://Aladdin:open%20sesame@a.example/",
            "http://a.example/",
            "a.example",
            Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ),
        (
            "https://user@a.example:8443/",
            "https://a.example:8443/",
            "a.example:8443",
            Some("Basic dXNlcjo="),
        ),
        (
            "http://u:p:q@a.example/",
            "http://a.example/",
            "a.example",
            Some("Basic dTpwOnE="),
        ),
        (
            "http://:@a.example/",
            "http://a.example/",
            "a.example",
            None,
        ),
        ("http://@a.example/", "http://a.example/", "a.example", None),
    ];

    #[test]
    fn what_goes_out_for_each_authority() {
        for (url, seen, host, authorization) in OUT {
            let authorization = authorization.map(str::to_owned);
            let wanted = ((*seen).to_owned(), (*host).to_owned(), authorization);
            assert_eq!(sent(url, None), wanted, "{url}");
        }
    }

    #[test]
    fn the_guests_own_authorization_stays() {
        let (url, host, authorization) = sent("http://u:p@a.example/", Some("Bearer x"));
        assert_eq!(
            (url.as_str(), host.as_str()),
            ("http://a.example/", "a.example")
        );
        assert_eq!(authorization.as_deref(), Some("Bearer x"));
    }
}
