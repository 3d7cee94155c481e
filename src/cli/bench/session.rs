//! What all measurements share: their arguments, how they end, and what becomes of their figures.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use sampan_core::{quantity::parse_duration, time::Utc};

use super::{compare::Comparison, page, table};
use crate::{
    cli::{
        EXIT_FAILED, End, Stop,
        interrupts::{Interrupt, Interrupts},
        output::Output,
        process::runtime,
        version,
    },
    file,
    serve::bench::{
        BenchError, Component,
        machine::machine,
        recorder::{Part, Recorder},
        report::{Ending, Program, Report, SCHEMA},
    },
};

/// Parts of a run that are told one by one where no bar can be shown.
const STEPS: f64 = 10.0;
/// The largest report that is read.
const MAX_REPORT_BYTES: u64 = 64 << 20;

/// What every measurement takes.
#[derive(Args)]
pub(super) struct ReportArguments {
    /// Print the report as JSON; `sampan schema --bench` prints its schema
    #[arg(long)]
    json: bool,

    /// Compare with an earlier report, a file that `--json` has made
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,

    /// Write a page with plots too, which needs no network
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// End after this time with what there is, if it is not done before
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    time_limit: Option<Duration>,
}

/// The component in this file; without one, the small one that is built in.
pub(super) fn component_or_own(path: Option<&Path>) -> anyhow::Result<Component> {
    path.map_or_else(|| Ok(Component::own()), component)
}

/// The component in this file.
pub(super) fn component(path: &Path) -> anyhow::Result<Component> {
    let name = path.display().to_string();
    let bytes = file::component(path);
    let bytes = bytes.with_context(|| format!("cannot read the component `{name}`"))?;
    Ok(Component {
        name,
        bytes: Bytes::from(bytes),
    })
}

/// Runs one measurement as the only part of a report. It says whether all went well.
pub(super) fn one(
    (name, title): (&'static str, &'static str),
    common: &ReportArguments,
    limit: Duration,
    output: &Output,
    measure: impl AsyncFnOnce(&Part) -> Result<bool, BenchError>,
) -> End {
    run(common, limit, output, async |recorder: &Recorder| {
        let part = recorder.part(name, title, (0.0, 1.0));
        let is_good = measure(&part).await?;
        part.end();
        Ok(is_good)
    })
}

/// Measures until it is done, a signal interrupts it or the time is over, and shows what there is
/// then. What was made for it is removed either way.
pub(super) fn run(
    common: &ReportArguments,
    limit: Duration,
    output: &Output,
    measure: impl AsyncFnOnce(&Recorder) -> Result<bool, BenchError>,
) -> End {
    let before = common.compare.as_deref().map(earlier).transpose()?;
    if let Some(path) = &common.report {
        writable(path)?;
    }
    let bar = output.bar("starting".to_owned());
    let (shown, said) = (bar.clone(), output.clone());
    let told = AtomicU64::new(0);
    let recorder = Recorder::new(Box::new(move |done, what| {
        shown.set_position((done * shown.length().unwrap_or(0) as f64) as u64);
        if !what.is_empty() {
            shown.set_message(what.to_owned());
        }
        // Without a terminal a line for each tenth, so that it is seen to go on.
        let step = (done * STEPS) as u64;
        if shown.is_hidden() && !what.is_empty() && told.fetch_max(step, Relaxed) < step {
            said.talk(&format!("{:3.0} %: {what}", done * 100.0));
        }
    }));
    let (began, start) = (Utc::from(SystemTime::now()).to_string(), Instant::now());
    let limit = common.time_limit.unwrap_or(limit);
    let ended = ended(&recorder, limit, measure)?;
    let end = ended.ending();
    bar.finish_and_clear();
    let report = Report {
        schema: SCHEMA,
        began,
        took_s: (start.elapsed().as_secs_f64() * 1e3).round() / 1e3,
        end,
        program: program(),
        machine: machine(),
        sections: recorder.sections(),
    };
    if end != Ending::Failed || !report.sections.is_empty() {
        let comparison = before.map(|(name, before)| Comparison::new(name, &before, &report));
        let comparison = comparison.as_ref();
        output.answer(common.json, &report, || table::text(&report, comparison))?;
        if let (true, Some(comparison)) = (common.json, comparison) {
            output.talk(table::comparison(comparison).trim_end());
        }
        if let Some(path) = &common.report {
            let written = fs::write(path, page::html(&report, comparison));
            written.with_context(|| format!("cannot write `{}`", path.display()))?;
            output.talk(&format!("the page is in `{}`", path.display()));
        }
    }
    match ended {
        Ended::Done(true) | Ended::Late => Ok(()),
        Ended::Done(false) => Err(Stop::Quiet(EXIT_FAILED)),
        Ended::Failed(error) => Err(error.into()),
        Ended::Interrupted(signal) => Err(Stop::Quiet(signal.exit_code())),
    }
}

/// How the measuring came to its end.
enum Ended {
    /// All was measured. Whether all went well.
    Done(bool),
    Failed(BenchError),
    Interrupted(Interrupt),
    /// The time is over.
    Late,
}

impl Ended {
    fn ending(&self) -> Ending {
        match self {
            Self::Done(_) => Ending::Complete,
            Self::Failed(_) => Ending::Failed,
            Self::Interrupted(_) => Ending::Interrupted,
            Self::Late => Ending::TimeLimit,
        }
    }
}

/// Measures, and says how that ended.
fn ended(
    recorder: &Recorder,
    limit: Duration,
    measure: impl AsyncFnOnce(&Recorder) -> Result<bool, BenchError>,
) -> anyhow::Result<Ended> {
    runtime()?.block_on(async {
        let mut interrupts = Interrupts::listen()?;
        Ok(tokio::select! {
            measured = measure(recorder) => measured.map_or_else(Ended::Failed, Ended::Done),
            signal = interrupts.next() => Ended::Interrupted(signal),
            () = tokio::time::sleep(limit) => Ended::Late,
        })
    })
}

fn program() -> Program {
    let build = match cfg!(debug_assertions) {
        true => "debug",
        false => "release",
    };
    Program {
        sampan: env!("CARGO_PKG_VERSION").to_owned(),
        wasmtime: version::WASMTIME.to_owned(),
        target: version::target(),
        build: build.to_owned(),
    }
}

/// The report in a file, and the file's name.
fn earlier(path: &Path) -> anyhow::Result<(String, Report)> {
    let name = path.display().to_string();
    let read = || {
        let size = fs::metadata(path)?.len();
        anyhow::ensure!(
            size <= MAX_REPORT_BYTES,
            "it has {size} bytes, and {MAX_REPORT_BYTES} is the most"
        );
        let value: serde_json::Value = serde_json::from_slice(&fs::read(path)?)?;
        match value["schema"].as_u64() {
            Some(schema) if schema == u64::from(SCHEMA) => Ok(serde_json::from_value(value)?),
            Some(schema) => anyhow::bail!(
                "it has version {schema} of the schema, and this program reads version {SCHEMA}"
            ),
            None => anyhow::bail!("it is no report of `sampan bench … --json`"),
        }
    };
    let report = read().with_context(|| format!("cannot compare with `{name}`"))?;
    Ok((name, report))
}

/// Finds out before the measuring whether a file can be written after it.
fn writable(path: &Path) -> anyhow::Result<()> {
    let mut options = fs::OpenOptions::new();
    let opened = options.create(true).append(true).open(path);
    opened.with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(())
}
