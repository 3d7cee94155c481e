//! What the verbs have in common that ask something that runs.

use std::{fmt::Display, path::PathBuf};

use anyhow::anyhow;
use clap::Args;
use sampan_core::view;
use serde::de::DeserializeOwned;

use crate::{
    client::{Client, ClientError, quoted},
    config,
};

/// Whom to ask.
#[derive(Args)]
pub(super) struct ApiArguments {
    /// The control socket of what runs, or `localhost:PORT`; also `SAMPAN_API`. By default
    /// that of `sampan serve`, else the only one of this user
    #[arg(long, value_name = "PLACE")]
    api: Option<String>,

    /// The file with the token for a port; or the token is in `SAMPAN_TOKEN`
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl ApiArguments {
    /// Whether a place is named.
    pub(super) fn is_asked(&self) -> bool {
        self.api.is_some() || Client::is_asked()
    }

    pub(super) fn client(&self) -> Result<Client, ClientError> {
        let directory = config::socket_directory();
        Client::find(self.api.as_deref(), self.token_file.as_deref(), &directory)
    }
}

/// Of which app something is.
#[derive(Args)]
pub(super) struct AppArgument {
    /// The app, where the name alone could mean several
    #[arg(long, value_name = "APP")]
    pub(super) app: Option<String>,
}

impl AppArgument {
    /// The query that asks for what is of the app, with `rest`.
    pub(super) fn query(&self, rest: &[(&str, &str)]) -> String {
        let app = self.app.as_deref().map(|app| ("app", app));
        let pairs = app.into_iter().chain(rest.iter().copied());
        let pairs = pairs.map(|(name, value)| format!("{name}={}", quoted(value)));
        let pairs: Vec<_> = pairs.collect();
        match pairs.is_empty() {
            true => String::new(),
            false => format!("?{}", pairs.join("&")),
        }
    }
}

/// Whom to ask, and of which app.
#[derive(Args)]
pub(super) struct Scope {
    #[command(flatten)]
    pub(super) app: AppArgument,

    #[command(flatten)]
    pub(super) api: ApiArguments,
}

/// All objects of a kind, of the app if one is named.
pub(super) async fn all<T: DeserializeOwned>(
    client: &Client,
    kind: &str,
    app: &AppArgument,
) -> Result<Vec<T>, ClientError> {
    client.get(&format!("/v1/{kind}{}", app.query(&[]))).await
}

/// The one service of this name.
pub(super) async fn service(
    client: &Client,
    app: &AppArgument,
    name: &str,
) -> anyhow::Result<view::Service> {
    let services = all(client, "services", app).await?;
    one("service", services, name, |it: &view::Service| {
        (&it.app, &it.name)
    })
}

/// The one object of this name, or an error that says which there are.
pub(super) fn one<T>(
    kind: &str,
    objects: Vec<T>,
    name: &str,
    names: impl Fn(&T) -> (&String, &String),
) -> anyhow::Result<T> {
    let is_named = |object: &T| names(object).1 == name;
    match objects.iter().filter(|it| is_named(it)).count() {
        1 => {
            let mut named = objects.into_iter().filter(is_named);
            Ok(named.next().expect("there is one"))
        }
        0 => Err(absent(kind, name, objects.iter().map(|it| names(it).1))),
        _ => {
            let named = objects.iter().filter(|it| is_named(it));
            let apps: Vec<_> = named.map(|it| format!("`{}`", names(it).0)).collect();
            anyhow::bail!(
                "there is a {kind} `{name}` in each of {}; `--app` says which",
                apps.join(", ")
            )
        }
    }
}

/// There is nothing of this name; `known` are the names that there are.
pub(super) fn absent(
    kind: &str,
    name: &str,
    known: impl Iterator<Item = impl Display>,
) -> anyhow::Error {
    let known: Vec<_> = known.map(|it| format!("`{it}`")).collect();
    let known = match known.is_empty() {
        true => "none".to_owned(),
        false => known.join(", "),
    };
    anyhow!("there is no {kind} `{name}`; there are {known}")
}

/// The target of a service's own requests.
pub(super) fn target(service: &view::Service, rest: &str) -> String {
    let (app, name) = (quoted(&service.app), quoted(&service.name));
    format!("/v1/apps/{app}/services/{name}/{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_one_thing() {
        let objects = || {
            let pairs = [("shop", "web"), ("shop", "api"), ("blog", "web")];
            pairs
                .map(|(app, name)| (app.to_owned(), name.to_owned()))
                .to_vec()
        };
        let find = |objects: Vec<(String, String)>, name: &str| {
            let found = one("service", objects, name, |(app, name)| (app, name));
            found.map(|(app, _)| app).map_err(|error| error.to_string())
        };
        assert_eq!(find(objects(), "api"), Ok("shop".to_owned()));
        assert_eq!(
            find(objects(), "web"),
            Err(
                "there is a service `web` in each of `shop`, `blog`; `--app` says which".to_owned()
            )
        );
        assert_eq!(
            find(objects(), "wbe"),
            Err("there is no service `wbe`; there are `web`, `api`, `web`".to_owned())
        );
        assert_eq!(
            find(Vec::new(), "web"),
            Err("there is no service `web`; there are none".to_owned())
        );
    }
}
