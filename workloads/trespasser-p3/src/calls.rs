//! Requests to servers and services, by `wasi:http/client`.

use wasip3::http::client;
use wasip3::http::types::{Fields, Request, Response, Scheme};
use wasip3::wit_future;

use super::{Told, all, name};

/// A GET of `url`.
pub(crate) async fn call(url: &str) -> Told {
    let Some(request) = get(url) else {
        return Err("no URL".to_owned());
    };
    let response = client::send(request).await.map_err(|error| name(&error))?;
    let (_, done) = wit_future::new(|| Ok(()));
    let (body, _) = Response::consume_body(response, done);
    Ok(String::from_utf8_lossy(&all(body).await).into_owned())
}

fn get(url: &str) -> Option<Request> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let path = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/{path}"),
    };
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, no_trailers, None);
    request.set_scheme(Some(&scheme)).ok()?;
    request.set_authority(Some(authority)).ok()?;
    request.set_path_with_query(Some(&path)).ok()?;
    Some(request)
}
