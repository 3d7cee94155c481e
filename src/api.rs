//! The API: HTTP and JSON on a Unix socket of this user, and with a token on a port of loopback.
//!
//! `routes` has all requests, with what goes in and comes out; `GET /v1/openapi.json` is made from
//! it. What is wanted is in the store, and is changed there by `apply` and `rollout`. What runs is
//! what the node says through [`Views`].

mod answer;
mod apply;
mod archive;
mod artifacts;
mod body;
mod claims;
mod cluster;
mod components;
mod confided;
mod connections;
mod ending;
mod error;
mod everywhere;
mod follow;
mod guard;
mod keeper;
mod kept;
mod keyvalue;
mod logs;
mod merged;
mod objects;
mod observed;
mod openapi;
mod pace;
mod quota;
mod rollout;
mod route;
mod routes;
mod socket;
mod stale;
mod state;
mod stop;
mod token;
mod top;
mod turns;
mod volumes;
mod wanted;
mod watch;
mod work;

use std::os::unix::net::UnixListener;

use axum::{Router, middleware};

pub(crate) use {
    apply::Checked,
    ending::Ending,
    guard::{Port, PortError},
    socket::{BindError, Socket},
    state::{
        Admission, Answered, Api, Cluster, Keeper, Kept, KeptError, KeptLines, LineFilter,
        LinePart, Lines, Parts, Views,
    },
    token::{Token, TokenError},
};

use state::{MAX_BODY_BYTES, MAX_CHANGES, MAX_FOLLOWERS, MAX_LARGE_ANSWERS, MAX_UPLOADS, Shared};

impl Api {
    /// All requests, as those see them who may ask.
    fn router(&self) -> Router {
        let routes = routes::all().into_iter();
        routes
            .fold(Router::new(), |router, route| route.target.added(router))
            .fallback(error::no_path)
            .method_not_allowed_fallback(error::no_method)
            .layer(middleware::from_fn_with_state(self.clone(), keeper::ask))
            .layer(middleware::from_fn(guard::same_origin))
            .layer(middleware::from_fn(pace::keep))
            .layer(middleware::from_fn_with_state(self.clone(), stale::mark))
            .with_state(self.clone())
    }

    /// The requests of other nodes of the cluster: those for how things are on this one.
    pub(crate) fn peers(&self) -> Router {
        let routes = routes::for_peers().into_iter();
        routes
            .fold(Router::new(), |router, route| route.target.added(router))
            .fallback(error::no_path)
            .method_not_allowed_fallback(error::no_method)
            .with_state(self.clone())
            .layer(middleware::from_fn(error::finish))
    }

    /// The requests as they come through the Unix socket.
    pub(crate) fn local(&self) -> Router {
        self.router().layer(middleware::from_fn(error::finish))
    }

    /// The requests as they come through a port of loopback, with the token.
    pub(crate) fn remote(&self, gate: guard::Gate) -> Router {
        self.router()
            .layer(middleware::from_fn_with_state(gate, guard::admit))
            .layer(middleware::from_fn(error::finish))
    }
}

/// Answers requests on a socket, until this is dropped.
pub(crate) async fn serve(listener: UnixListener, api: Api) -> std::io::Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    connections::serve(listener, api.local(), api.0.connections).await;
    Ok(())
}

/// Answers requests with the token on the port, until this is dropped.
pub(crate) async fn serve_port(port: Port, token: Token, api: Api) -> std::io::Result<()> {
    let (listener, gate) = port.open(token)?;
    connections::serve(listener, api.remote(gate), api.0.connections).await;
    Ok(())
}

#[cfg(test)]
mod tests;
