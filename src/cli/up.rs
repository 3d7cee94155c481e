//! `sampan up`: a whole app in the foreground.

mod again;
mod arguments;
mod detached;
mod edits;
mod look;
mod sources;
mod summary;
mod watch;
mod whole;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use sampan_core::{
    name::Name,
    object::{App, SecretSource},
    spec::{SpecText, node::Node as NodeLimits},
    view,
};

use super::{
    EXIT_FAILED, End, Stop,
    background::is_alive,
    build,
    interrupts::Interrupts,
    node,
    output::{Output, one_line},
    process::runtime,
    spec::Read,
};
use crate::{
    client::Client,
    config,
    file::site::SiteError,
    serve::{
        AppSource,
        app::{self, ComponentError, FirstStart, Listening, NotRunning, RunningApp},
        context::NodeContext,
        control::{self, Api, Control},
    },
};
use arguments::scaled;
use edits::{Edit, Edits};
use printer::Printer;

pub(super) use arguments::{Arguments, Scale};

pub(super) mod printer;

pub(super) fn run(arguments: Arguments, output: &Output) -> End {
    let mut read = arguments.spec.read(output)?;
    if arguments.detach {
        // A file that is not good is told here.
        arguments.node.load(output)?;
        return runtime()?.block_on(detached::up(read, &arguments, output));
    }
    scaled(&mut read.app, &arguments.scale)?;
    let limits = arguments.node.load(output)?;
    let printer = Printer::new(output, &read.app, arguments.json);
    runtime()?.block_on(up(read, limits, &arguments, &printer, output))
}

/// An app on its way up, and what is needed to see it through.
struct Session<'a> {
    arguments: &'a Arguments,
    printer: &'a Printer,
    output: &'a Output,
    interrupts: Interrupts,
    /// With `--watch`.
    edits: Option<Edits>,
}

async fn up(
    read: Read,
    limits: NodeLimits,
    arguments: &Arguments,
    printer: &Printer,
    output: &Output,
) -> End {
    let mut session = Session {
        arguments,
        printer,
        output,
        interrupts: Interrupts::listen()?,
        edits: None,
    };
    refuse_background(&read.app.name).await?;
    let source = session.built(read).await?;
    let node = match arguments.watch {
        // The spec may come to ask for more than it does now.
        true => node::open_for_edits(limits)?,
        false => node::open(&source, limits)?,
    };
    let http = arguments.http.unwrap_or(config::DEFAULT_HTTP);
    let listening = node::listen(&node, Some(&source), http, "--http").await?;
    let context = NodeContext::foreground(node).await?;
    let (node, journal) = (&context.node, &context.journal);
    let api = control::api(&context, Some(listening.address));
    let _control = open_control(&api, &source.app.name, arguments.api.as_deref(), printer)?;
    let printing = tokio::spawn(printer.clone().events(Arc::clone(journal)));
    let logging = tokio::spawn(printer.clone().logs(Arc::clone(node.runtime.logs())));
    let mut last = source.clone();
    let end = session.run(&context, &api, source, listening, &mut last);
    let end = end.await;
    if let Some(edits) = &mut session.edits {
        edits.stop().await;
    }
    let summary = app::summary(&context, &last);
    printer.end_of_events(printing, journal).await;
    printer.end_of_logs(logging, node.runtime.logs()).await;
    match end {
        Ok(()) => {
            printer.talk(&summary::table(&summary));
            Ok(())
        }
        Err(Failure::NotRunning(reason)) => {
            not_running(reason, &last.app, arguments.build, output);
            Err(Stop::Quiet(EXIT_FAILED))
        }
        Err(Failure::Broken(reason)) => Err(reason.into()),
        Err(Failure::Told) => {
            printer.talk(&summary::table(&summary));
            Err(Stop::Quiet(EXIT_FAILED))
        }
    }
}

/// An app is run by one node at a time.
async fn refuse_background(app: &Name) -> anyhow::Result<()> {
    let socket = config::daemon_socket();
    if !is_alive(&socket) {
        return Ok(());
    }
    let client = Client::Socket(socket.clone());
    let found: Result<view::App, _> = client.get(&format!("/v1/apps/{app}")).await;
    match found {
        // It may be about to end, or be something else: what both need is locked.
        Err(_) => Ok(()),
        Ok(_) => anyhow::bail!(
            "app `{app}` runs in the background, at `{}`: `sampan up -d` applies changes to it, and \
             after `sampan down {app}` it can be run here",
            socket.display()
        ),
    }
}

/// Why an app does not come to a good end.
enum Failure {
    /// It does not run.
    NotRunning(NotRunning),
    /// Something has ended that must not.
    Broken(anyhow::Error),
    /// It was told why.
    Told,
}

impl Session<'_> {
    /// The app whose components are built, if that is asked for, and watched from now on.
    async fn built(&mut self, read: Read) -> Result<AppSource, Stop> {
        let source = AppSource {
            base: self.arguments.spec.base(),
            app: read.app.clone(),
            secrets: read.secrets.clone(),
            spec: self.text(&read),
        };
        let Arguments { watch, build, .. } = self.arguments;
        if *watch {
            self.edits = Some(Edits::new(&source.app, &source.base, self.printer));
        }
        match (&mut self.edits, build) {
            (Some(edits), true) => {
                edits
                    .build(&source.app, false, &mut self.interrupts)
                    .await?
            }
            (None, true) => {
                let builds = build::Build::of(&source.app);
                let interrupts = &mut self.interrupts;
                build::Build::all(&builds, &source.base, self.printer, interrupts).await?;
            }
            (_, false) => {}
        }
        let texts = self.texts(&read);
        if let Some(edits) = &mut self.edits {
            edits.follow(&source.app, texts);
        }
        Ok(source)
    }

    /// The spec, for the places of what does not fit a component.
    fn text(&self, read: &Read) -> SpecText {
        SpecText {
            path: self.arguments.spec.file.display().to_string(),
            text: read.text.clone(),
        }
    }

    /// The spec, and the files that it takes variables and secrets from.
    fn texts(&self, read: &Read) -> Vec<PathBuf> {
        let spec = &self.arguments.spec;
        let files = read.files.keys().map(|path| spec.base().join(path));
        let secrets = read.app.secrets.values().filter_map(|source| match source {
            SecretSource::File(path) => Some(spec.base().join(path)),
            SecretSource::Env(_) => None,
        });
        files.chain(secrets).chain([spec.file.clone()]).collect()
    }

    /// Starts an app and sees it through its life: until it is interrupted, or has nothing more to
    /// do. Whatever ends it, what is in flight is answered first. `last` becomes what it was in the
    /// end.
    async fn run(
        &mut self,
        context: &NodeContext,
        api: &Api,
        source: AppSource,
        listening: Listening,
        last: &mut AppSource,
    ) -> Result<(), Failure> {
        let begun = tokio::select! {
            begun = RunningApp::begin(context, api, source) => begun,
            _ = self.interrupts.next() => {
                self.printer.talk("interrupted while starting");
                return Err(Failure::Told);
            }
        };
        let mut running = begun.map_err(Failure::NotRunning)?;
        let end = tokio::select! {
            good = running.settled(FirstStart::May) => match (good, running.stays()) {
                (false, _) => Err(Failure::NotRunning(NotRunning::Failed)),
                // All its jobs have ended.
                (true, false) => Ok(()),
                (true, true) => {
                    running.tell_up(&listening);
                    let address = listening.address;
                    self.until_interrupted(&mut running, address).await
                        .map_err(Failure::Broken)
                }
            },
            _ = self.interrupts.next() => {
                self.printer.talk("interrupted while starting");
                Err(Failure::Told)
            }
        };
        if running.stays() {
            self.printer.talk("draining; Ctrl-C again stops at once");
        }
        *last = running.source().clone();
        tokio::select! {
            () = running.drain(listening) => end,
            _ = self.interrupts.again() => end.and(Err(Failure::Told)),
        }
    }

    /// Applies what is edited until Ctrl-C.
    async fn until_interrupted(
        &mut self,
        running: &mut RunningApp,
        address: SocketAddr,
    ) -> anyhow::Result<()> {
        // Whether the spec asks for something that could not be had: a component that changes may
        // be what was missing.
        let mut is_behind = false;
        loop {
            let edit = async {
                match &mut self.edits {
                    Some(edits) => edits.next().await,
                    None => std::future::pending().await,
                }
            };
            let edit = tokio::select! {
                _ = self.interrupts.next() => return Ok(()),
                reason = running.failed() => anyhow::bail!(reason),
                edit = edit => edit,
            };
            match edit {
                Edit::Components(names) if !is_behind => tokio::select! {
                    _ = self.interrupts.next() => return Ok(()),
                    () = running.reload(&names) => {}
                },
                Edit::Components(_) | Edit::Spec => {
                    let Some(read) = self.read_again(running) else {
                        continue;
                    };
                    if let Err(error) = self.build_missing(&read).await {
                        self.output.error(&error);
                    }
                    let text = self.text(&read);
                    let changed = tokio::select! {
                        _ = self.interrupts.next() => return Ok(()),
                        changed = running.change(read.app.clone(), read.secrets.clone(), text) => changed,
                    };
                    is_behind = changed.is_err();
                    self.tell(changed, &read.app, address);
                }
            }
        }
    }

    /// Reads a spec that has changed. One that is not good has been told.
    fn read_again(&self, running: &RunningApp) -> Option<Read> {
        const STAYS: &str = "what runs goes on as before";
        let read = self.arguments.spec.read(self.output).and_then(|mut read| {
            scaled(&mut read.app, &self.arguments.scale)?;
            let (before, now) = (&running.source().app.name, &read.app.name);
            if before != now {
                return Err(Stop::usage(anyhow::anyhow!(
                    "the spec is of app `{now}` now, and `{before}` runs: start `up` again for it"
                )));
            }
            Ok(read)
        });
        match read {
            Ok(read) => return Some(read),
            // Its problems have been printed.
            Err(Stop::Quiet(_)) => {}
            Err(Stop::Because(_, reason)) => self.output.error(&reason),
        }
        self.printer.talk(&format!("the spec is not good: {STAYS}"));
        None
    }

    /// Watches what a changed spec names, and builds what is not there of it.
    async fn build_missing(&mut self, read: &Read) -> anyhow::Result<()> {
        let texts = self.texts(read);
        let Some(edits) = &mut self.edits else {
            return Ok(());
        };
        self.printer.know(&read.app);
        edits.follow_sources(&read.app);
        let built = edits.build(&read.app, true, &mut self.interrupts).await;
        edits.follow(&read.app, texts);
        built
    }

    /// Says what a changed spec has come to.
    fn tell(&self, changed: Result<view::Plan, NotRunning>, app: &App, address: SocketAddr) {
        let plan = match changed {
            Ok(plan) => plan,
            Err(reason) => {
                not_running(reason, app, true, self.output);
                self.printer
                    .talk("nothing was changed; what runs goes on as before");
                return;
            }
        };
        self.printer.new_routes(app, address);
        let changes = plan.changes.iter();
        for change in changes.filter(|change| change.verb != view::Verb::Unchanged) {
            let (reason, verb) = match change.verb {
                view::Verb::Added => ("Added", "added"),
                view::Verb::Changed | view::Verb::Unchanged => ("Changed", "changed"),
                view::Verb::Deleted => ("Deleted", "deleted"),
            };
            let told = match &*change.pods {
                "nothing" => format!("{verb} by the spec; its pods stay"),
                pods => format!("{verb} by the spec: {}", one_line(pods)),
            };
            if let Ok(name) = Name::parse(&change.name) {
                self.printer.own(&name, reason, &told);
            }
        }
        if !plan.changed {
            self.printer
                .talk("the spec asks for what runs: nothing changes");
        }
    }
}

/// Opens the control socket. Without one the app runs all the same, unless one was asked for.
fn open_control(
    api: &Api,
    app: &Name,
    asked: Option<&Path>,
    printer: &Printer,
) -> Result<Option<Control>, Stop> {
    let usual = config::app_socket(app);
    match (Control::at_socket(api, asked.unwrap_or(&usual)), asked) {
        (Ok(control), _) => Ok(Some(control)),
        (Err(error), Some(_)) => Err(error.into()),
        (Err(error), None) => {
            let error = anyhow::Error::new(error);
            printer.talk(&format!(
                "no control socket: {error:#}; `--api` names another place for it"
            ));
            Ok(None)
        }
    }
}

fn not_running(reason: NotRunning, app: &App, has_built: bool, output: &Output) {
    match reason {
        NotRunning::Components(refused) => {
            for (name, error) in refused {
                let remedy = match &error {
                    ComponentError::Read { source, .. } => {
                        build::remedy(app, &name, source, has_built)
                    }
                    ComponentError::Files {
                        source: SiteError::Directory(source),
                        ..
                    } => build::remedy(app, &name, source, has_built),
                    ComponentError::Load { .. } | ComponentError::Files { .. } => None,
                };
                let error = anyhow::Error::new(error).context(name.to_string());
                output.error(&match remedy {
                    Some(remedy) => anyhow::anyhow!("{error:#}; {remedy}"),
                    None => error,
                });
            }
        }
        NotRunning::Refused(reason) => output.error(&anyhow::anyhow!(reason)),
        NotRunning::Failed => {
            output.error(&anyhow::anyhow!("the app does not run: see above"));
        }
    }
}
