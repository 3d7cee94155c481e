//! What the verbs have in common that ask something that runs.

use std::path::PathBuf;

use clap::Args;
use sampan_core::view;

use super::{EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE, Stop};
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
    pub(super) fn client(&self) -> Result<Client, Stop> {
        let directory = config::socket_directory();
        Client::find(self.api.as_deref(), self.token_file.as_deref(), &directory).map_err(stop)
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

/// What an error of the client comes to.
pub(super) fn stop(error: ClientError) -> Stop {
    let code = match &error {
        ClientError::Refused(refused) if refused.code == "InvalidSpec" => EXIT_USAGE,
        ClientError::Refused(_) => EXIT_FAILED,
        ClientError::Elsewhere(_) | ClientError::Address(_) | ClientError::NoToken { .. } => {
            EXIT_USAGE
        }
        ClientError::NoDaemon(_)
        | ClientError::Unsafe(_)
        | ClientError::Several(_)
        | ClientError::Unreachable { .. }
        | ClientError::Broken { .. } => EXIT_UNREACHABLE,
    };
    Stop::Because(code, error.into())
}

/// The one service of this name.
pub(super) async fn service(
    client: &Client,
    app: &AppArgument,
    name: &str,
) -> Result<view::Service, Stop> {
    let services: Vec<view::Service> = client
        .get(&format!("/v1/services{}", app.query(&[])))
        .await
        .map_err(stop)?;
    one("service", services, name, |it| (&it.app, &it.name)).map_err(Stop::from)
}

/// The one job of this name.
pub(super) async fn job(client: &Client, app: &AppArgument, name: &str) -> Result<view::Job, Stop> {
    let jobs: Vec<view::Job> = client
        .get(&format!("/v1/jobs{}", app.query(&[])))
        .await
        .map_err(stop)?;
    one("job", jobs, name, |it| (&it.app, &it.name)).map_err(Stop::from)
}

/// The one object of this name, or an error that says which there are.
pub(super) fn one<T>(
    kind: &str,
    objects: Vec<T>,
    name: &str,
    names: impl Fn(&T) -> (&String, &String),
) -> anyhow::Result<T> {
    let known: Vec<_> = objects
        .iter()
        .map(|object| format!("`{}`", names(object).1))
        .collect();
    let mut named: Vec<_> = objects
        .into_iter()
        .filter(|object| names(object).1 == name)
        .collect();
    match named.len() {
        1 => Ok(named.remove(0)),
        0 if known.is_empty() => anyhow::bail!("there is no {kind} `{name}`; there are none"),
        0 => anyhow::bail!(
            "there is no {kind} `{name}`; there are {}",
            known.join(", ")
        ),
        _ => {
            let apps: Vec<_> = named
                .iter()
                .map(|object| format!("`{}`", names(object).0))
                .collect();
            anyhow::bail!(
                "there is a {kind} `{name}` in each of {}; `--app` says which",
                apps.join(", ")
            )
        }
    }
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
