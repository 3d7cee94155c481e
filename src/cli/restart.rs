//! `sampan restart`: other pods just like the present ones, or a job once more.

use std::time::Duration;

use clap::Args;
use http::Method;
use sampan_core::view;

use super::{
    End,
    api::{AppArgument, Scope, all, one},
    completions::services_and_jobs,
    output::Output,
    process::runtime,
    wait::{self, Goal, Target, duration},
};
use crate::client::{Client, ClientError, quoted};

/// Replace all pods of services by others just like them, without a pause, or run jobs once more
///
/// A job runs from its first attempt, whatever came of it before; one that runs is cut short.
#[derive(Args)]
pub(super) struct Arguments {
    /// Which services and jobs: `NAME`, `APP/NAME`, `service/NAME` or `job/NAME`
    #[arg(value_name = "NAME", required = true, add = services_and_jobs())]
    names: Vec<String>,

    /// Wait until new pods have taken over and jobs have ended, and fail if that fails
    #[arg(long)]
    wait: bool,

    /// How long to wait
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    timeout: Duration,

    #[command(flatten)]
    scope: Scope,
}

/// What can be restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Service,
    Job,
}

/// A service or job.
#[derive(Debug)]
struct Found {
    app: String,
    name: String,
    kind: Kind,
}

/// A name of the command line, and what was written before it.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    kind: Option<Kind>,
    app: Option<&'a str>,
    name: &'a str,
}

impl<'a> Asked<'a> {
    fn parse(text: &'a str) -> Self {
        let (before, name) = match text.split_once('/') {
            Some((before, name)) => (Some(before), name),
            None => (None, text),
        };
        let kind = match before {
            Some("service" | "services" | "svc") => Some(Kind::Service),
            Some("job" | "jobs") => Some(Kind::Job),
            Some(_) | None => None,
        };
        Self {
            kind,
            app: before.filter(|_| kind.is_none()),
            name,
        }
    }

    fn find(&self, mut all: Vec<Found>) -> anyhow::Result<Found> {
        all.retain(|it| self.kind.is_none_or(|kind| kind == it.kind));
        all.retain(|it| self.app.is_none_or(|app| app == it.app));
        let mut named = all.iter().filter(|it| it.name == self.name);
        if let (Some(one), Some(other), None) = (named.next(), named.next(), named.next())
            && one.app == other.app
        {
            let (name, app) = (&one.name, &one.app);
            anyhow::bail!(
                "`{name}` is a service and a job of `{app}`; `service/{name}` and `job/{name}` say \
                 which"
            );
        }
        let what = match self.kind {
            Some(Kind::Service) => "service",
            Some(Kind::Job) => "job",
            None => "service or job",
        };
        one(what, all, self.name, |it| (&it.app, &it.name))
    }
}

pub(super) fn run(arguments: &Arguments, output: &Output) -> End {
    let client = arguments.scope.api.client()?;
    runtime()?.block_on(async {
        let mut goals = Vec::new();
        for text in &arguments.names {
            let all = everything(&client, &arguments.scope.app).await?;
            let found = Asked::parse(text).find(all)?;
            let target = restart(&client, &found, output).await?;
            goals.push((found.app, Goal::new(found.name, target)));
        }
        for (app, goal) in goals.into_iter().filter(|_| arguments.wait) {
            let timeout = Some(arguments.timeout);
            wait::until(&client, &app, vec![goal], timeout, output).await?;
        }
        Ok(())
    })
}

async fn everything(client: &Client, app: &AppArgument) -> Result<Vec<Found>, ClientError> {
    let services: Vec<view::Service> = all(client, "services", app).await?;
    let jobs: Vec<view::Job> = all(client, "jobs", app).await?;
    let found = |app, name, kind| Found { app, name, kind };
    let services = services.into_iter();
    let services = services.map(|it| found(it.app, it.name, Kind::Service));
    let jobs = jobs.into_iter();
    let jobs = jobs.map(|it| found(it.app, it.name, Kind::Job));
    Ok(services.chain(jobs).collect())
}

/// Restarts it, and says what there is to wait for.
async fn restart(client: &Client, found: &Found, output: &Output) -> Result<Target, ClientError> {
    let (app, name) = (quoted(&found.app), quoted(&found.name));
    match found.kind {
        Kind::Service => {
            let target = format!("/v1/apps/{app}/services/{name}/restart");
            let asked = client.change(Method::POST, &target, None::<&()>);
            let restarted: view::Service = asked.await?;
            let revision = restarted.revision;
            output.data(&format!(
                "service/{} restarted as revision {revision}\n",
                restarted.name
            ));
            Ok(Target::Service(Some(revision)))
        }
        Kind::Job => {
            let target = format!("/v1/apps/{app}/jobs/{name}/restart");
            let asked = client.change(Method::POST, &target, None::<&()>);
            let restarted: view::Job = asked.await?;
            output.data(&format!("job/{} runs once more\n", restarted.name));
            Ok(match restarted.schedule {
                // It comes to no end.
                Some(_) => Target::Run(restarted.run_count + 1),
                None => Target::Job,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str) -> Result<String, String> {
        let all = [
            ("shop", "web", Kind::Service),
            ("shop", "migrate", Kind::Job),
            ("shop", "both", Kind::Service),
            ("shop", "both", Kind::Job),
            ("blog", "web", Kind::Service),
        ];
        let all = all.map(|(app, name, kind)| Found {
            app: app.to_owned(),
            name: name.to_owned(),
            kind,
        });
        match Asked::parse(text).find(all.into()) {
            Ok(found) => Ok(format!("{}/{} {:?}", found.app, found.name, found.kind)),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn what_is_restarted_is_named_in_every_usual_way() {
        for (text, wanted) in [
            ("migrate", "shop/migrate Job"),
            ("job/migrate", "shop/migrate Job"),
            ("shop/migrate", "shop/migrate Job"),
            ("blog/web", "blog/web Service"),
            ("job/both", "shop/both Job"),
            ("service/both", "shop/both Service"),
        ] {
            assert_eq!(find(text).as_deref(), Ok(wanted), "{text}");
        }
        let refused = |text: &str| find(text).expect_err("not one thing");
        assert_eq!(
            refused("web"),
            "there is a service or job `web` in each of `shop`, `blog`; `--app` says which"
        );
        assert_eq!(
            refused("both"),
            "`both` is a service and a job of `shop`; `service/both` and `job/both` say which"
        );
        assert_eq!(
            refused("job/web"),
            "there is no job `web`; there are `migrate`, `both`"
        );
        assert_eq!(
            refused("blog/migrate"),
            "there is no service or job `migrate`; there are `web`"
        );
    }
}
