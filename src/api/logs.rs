//! Lines that pods have printed, those of pods that are gone too.

use std::{
    collections::HashMap,
    ops::RangeInclusive,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{Uri, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
};
use futures::{Stream, StreamExt as _, stream};
use regex::{Regex, RegexBuilder};
use sampan_core::{
    time::Utc,
    view::{self, LineKind},
};
use sampan_store::{LinesOf, LogSource, LoggedLine};
use serde::Deserialize;

use super::{
    Api, LineFilter, LinePart, MAX_LARGE_ANSWERS, Shared,
    body::Asked,
    error::{ApiError, Code},
    everywhere, follow,
    wanted::Of,
};

/// What a regular expression may take when it is compiled, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;
/// The most bytes of this node's lines that are put among those of others.
const MAX_MERGED_BYTES: usize = 64 << 20;
/// How long to wait before the next part of an answer, when too much is read already.
const BUSY: Duration = Duration::from_millis(50);

/// Which lines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    app: Option<String>,
    service: Option<String>,
    pod: Option<String>,
    #[serde(default)]
    follow: bool,
    /// Only the last so many of those that there are.
    tail: Option<usize>,
    /// Only what was printed in the last so many seconds.
    since: Option<u64>,
    /// Only what this regular expression matches.
    grep: Option<String>,
    /// Only what pods have printed before their last restart.
    #[serde(default)]
    previous: bool,
}

/// What is read: of which pods, which of their lines, and in which range.
#[derive(Clone)]
struct Reading {
    of: LinesOf,
    filter: LineFilter,
    from: u64,
    through: u64,
}

impl Which {
    fn of(&self) -> LinesOf {
        LinesOf {
            app: self.app.clone(),
            service: self.service.clone(),
            pod: self.pod.clone(),
        }
    }

    fn pattern(&self) -> Result<Option<Regex>, ApiError> {
        let Some(text) = &self.grep else {
            return Ok(None);
        };
        let pattern = RegexBuilder::new(text)
            .size_limit(MAX_PATTERN_BYTES)
            .build();
        pattern.map(Some).map_err(|error| {
            let message = format!("`{text}` is no regular expression: {error}");
            ApiError::new(Code::BadRequest, message)
                .hint("a backslash before a character takes its meaning, as in `\\[`")
        })
    }

    /// The earliest time that is asked for, in milliseconds since the beginning of 1970.
    fn since_ms(&self) -> u64 {
        let Some(since) = self.since else {
            return 0;
        };
        let Utc(now) = SystemTime::now().into();
        let from = now.saturating_sub(Duration::from_secs(since));
        u64::try_from(from.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Where the run of each pod is that was before the present one.
type Previous = HashMap<Arc<LogSource>, RangeInclusive<u64>>;

fn filter(since_ms: u64, pattern: Option<Regex>, previous: Option<Previous>) -> LineFilter {
    Arc::new(move |line: &LoggedLine| {
        let is_previous = previous.as_ref().is_none_or(|previous| {
            let range = line.source.as_ref().and_then(|source| previous.get(source));
            range.is_some_and(|range| range.contains(&line.seq))
        });
        let matches = |pattern: &Regex| pattern.is_match(&line.text);
        line.time_ms >= since_ms && is_previous && pattern.as_ref().is_none_or(matches)
    })
}

/// `GET /v1/logs`
pub(super) async fn lines(
    State(api): Shared,
    asked: Uri,
    Asked(which): Asked<Which>,
) -> Result<Response, ApiError> {
    if which.previous && which.follow {
        let message = "what was printed before a restart is followed by nothing";
        return Err(ApiError::new(Code::BadRequest, message)
            .hint("`previous` and `follow` exclude each other"));
    }
    if api.0.cluster.is_some() && !which.follow {
        return api.lines_of_all(&asked, &which).await;
    }
    let reading = api.reading(&which).await?;
    let (first, next) = api.part(&reading, reading.from).await?;
    if which.follow {
        let place = api.follower()?;
        let start = reading.through.saturating_add(1);
        let more = api
            .rest(reading.clone(), next)
            .map(|text| text.unwrap_or_default());
        let (theirs, others) = api.following(&asked).await;
        let more = more.chain(following(api, reading, start));
        let more = stream::select(more, theirs);
        return Ok(others.noted(follow::forever(place, first, more)));
    }
    if next > reading.through {
        return api.whole(follow::JSON_LINES, first);
    }
    let place = api.0.large.clone().try_acquire_owned();
    let place = place.map_err(|_| ApiError::busy("large answers", MAX_LARGE_ANSWERS))?;
    let rest = api.rest(reading, next);
    let text = stream::iter([Ok(first)]).chain(rest).map(move |text| {
        // Given back when the client goes.
        let _place = &place;
        text
    });
    Ok((
        [(CONTENT_TYPE, follow::JSON_LINES)],
        Body::from_stream(text),
    )
        .into_response())
}

/// `GET /v1/logs/pods`
pub(super) async fn pods(
    State(api): Shared,
    asked: Uri,
    Asked(of): Asked<Of>,
) -> Result<Response, ApiError> {
    let mut others = api.everywhere(&asked).await;
    let theirs = others.documents::<Vec<view::LogPod>>();
    let of = LinesOf {
        app: of.app,
        service: of.service,
        pod: None,
    };
    let answer = api.json(|| {
        let pods = api.0.lines.pods(&of).into_iter();
        let pods = pods.map(|it| view::LogPod {
            app: it.source.app.clone(),
            service: it.source.service.clone(),
            pod: it.source.pod.clone(),
            last: it.last_ms.map(time),
            bytes: it.bytes,
        });
        let theirs = theirs.into_iter().flat_map(|(_, pods)| pods);
        pods.chain(theirs).collect::<Vec<_>>()
    });
    Ok(others.noted(answer.await?))
}

/// What comes after what there was.
fn following(api: Api, reading: Reading, from: u64) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold((api, reading, from), |(api, reading, from)| async move {
        let (of, filter) = (reading.of.clone(), Arc::clone(&reading.filter));
        let part = Arc::clone(&api.0.lines).next(of, from, filter).await;
        let (text, next) = written(part);
        Some((text, (api, reading, next)))
    })
}

impl Api {
    /// What is to be read.
    async fn reading(&self, which: &Which) -> Result<Reading, ApiError> {
        let (of, since_ms, pattern) = (which.of(), which.since_ms(), which.pattern()?);
        let (lists, lines) = (&self.0.lists, &self.0.lines);
        let (first, through) = lines.span().into_inner();
        let mut from = first;
        if which.since.is_some() {
            from = from.max(lists.run(|| lines.since(since_ms)).await?);
        }
        let previous = match which.previous {
            true => Some(self.previous(which, &of, first).await?),
            false => None,
        };
        let filter = filter(since_ms, pattern, previous);
        if let Some(tail) = which.tail {
            from = match tail {
                0 => through.saturating_add(1),
                _ => {
                    let tail = self.tail(&of, from..=through, tail, &filter);
                    tail.await?.unwrap_or(from)
                }
            };
        }
        Ok(Reading {
            of,
            filter,
            from,
            through,
        })
    }

    /// The number of the first of the last so many lines, if there are so many.
    async fn tail(
        &self,
        of: &LinesOf,
        range: RangeInclusive<u64>,
        tail: usize,
        filter: &LineFilter,
    ) -> Result<Option<u64>, ApiError> {
        let (from, mut through) = range.into_inner();
        let mut left = tail;
        let (lists, lines) = (&self.0.lists, &self.0.lines);
        while from <= through {
            let back = lists.run(|| lines.back(of, from..=through, left, filter));
            let back = back.await?;
            left -= back.found.min(left);
            if left == 0 {
                return Ok(Some(back.at));
            }
            if back.is_all || back.at <= from {
                break;
            }
            through = back.at - 1;
        }
        Ok(None)
    }

    /// Where the run of each pod is that was before the present one.
    async fn previous(
        &self,
        which: &Which,
        of: &LinesOf,
        first: u64,
    ) -> Result<Previous, ApiError> {
        let (lists, lines) = (&self.0.lists, &self.0.lines);
        let all: LineFilter = Arc::new(|_| true);
        let mut previous = Previous::new();
        for pod in lists.run(|| lines.pods(of)).await? {
            let mut begins = pod.begins.iter().rev();
            let Some(last) = begins.next() else {
                continue;
            };
            let range = begins.next().copied().unwrap_or(first)..=last.saturating_sub(1);
            let only = LinesOf {
                app: Some(pod.source.app.clone()),
                service: Some(pod.source.service.clone()),
                pod: Some(pod.source.pod.clone()),
            };
            // The beginning of the one before may be gone, and some of its lines still there.
            let is_there =
                pod.begins.len() > 1 || self.tail(&only, range.clone(), 1, &all).await?.is_some();
            if is_there {
                previous.insert(pod.source, range);
            }
        }
        match previous.is_empty() {
            false => Ok(previous),
            true => {
                let of = match (&which.pod, &which.service) {
                    (Some(pod), _) => format!("pod `{pod}` has not been restarted"),
                    (None, Some(service)) => format!("no pod of `{service}` has been restarted"),
                    (None, None) => "no pod has been restarted".to_owned(),
                };
                let message = format!("{of}, as far as lines are kept");
                Err(ApiError::new(Code::NotFound, message)
                    .hint("without `previous` there is all that its pods have printed"))
            }
        }
    }

    /// The lines of all nodes by their time.
    async fn lines_of_all(&self, asked: &Uri, which: &Which) -> Result<Response, ApiError> {
        let mut others = self.everywhere(asked).await;
        let theirs = others.lines::<view::LogLine>().into_iter();
        let mut all: Vec<_> = theirs.map(|(_, line)| line).collect();
        // A node that has printed nothing of it has no such pod.
        let reading = match self.reading(which).await {
            Err(error) if all.is_empty() => return Err(error),
            reading => reading.ok(),
        };
        if let Some(reading) = reading {
            let (mut from, mut bytes) = (reading.from, 0);
            while from <= reading.through && bytes <= MAX_MERGED_BYTES {
                let (text, next) = self.part(&reading, from).await?;
                let lines = text.split(|&byte| byte == b'\n');
                all.extend(lines.filter_map(|line| serde_json::from_slice(line).ok()));
                (from, bytes) = (next, bytes + text.len());
            }
        }
        let tail = which.tail;
        let text = || everywhere::by_time(all, |line: &view::LogLine| &line.time, tail);
        Ok(others.noted(self.answer(follow::JSON_LINES, text).await?))
    }

    /// A part of what is read, as text, and where the next one begins.
    async fn part(&self, reading: &Reading, from: u64) -> Result<(Bytes, u64), ApiError> {
        if from > reading.through {
            return Ok((Bytes::new(), from));
        }
        let (of, filter) = (&reading.of, &reading.filter);
        let range = from..=reading.through;
        let read = || written(self.0.lines.part(of, range, filter));
        self.0.lists.run(read).await
    }

    /// All parts from there on.
    fn rest(
        &self,
        reading: Reading,
        from: u64,
    ) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static {
        let api = self.clone();
        stream::unfold((api, reading, from), |(api, reading, from)| async move {
            if from > reading.through {
                return None;
            }
            loop {
                match api.part(&reading, from).await {
                    Ok((text, next)) => return Some((Ok(text), (api, reading, next))),
                    // An answer that has begun waits for its turn.
                    Err(_) => tokio::time::sleep(BUSY).await,
                }
            }
        })
    }
}

fn time(millis: u64) -> String {
    Utc(Duration::from_millis(millis)).to_string()
}

/// Lines as text, after one that says how many are missing before them, and where the next begin.
fn written(part: LinePart) -> (Bytes, u64) {
    let mut lines: Vec<_> = part.lines.into_iter().map(shown).collect();
    if part.missed > 0 {
        let missed = part.missed;
        let note = view::LogLine {
            time: Utc::from(SystemTime::now()).to_string(),
            app: String::new(),
            service: String::new(),
            pod: String::new(),
            stream: LineKind::Host.stream().to_owned(),
            level: None,
            request: None,
            text: format!("{missed} lines were dropped, because they were read too slowly"),
            partial: false,
        };
        lines.insert(0, note);
    }
    (follow::lines(&lines), part.next)
}

fn shown(line: LoggedLine) -> view::LogLine {
    let kind = LineKind::of(line.kind);
    let of = |part: fn(&LogSource) -> &String| {
        let source = line.source.as_ref();
        source
            .map(|source| part(source).clone())
            .unwrap_or_default()
    };
    view::LogLine {
        time: time(line.time_ms),
        app: of(|it| &it.app),
        service: of(|it| &it.service),
        pod: of(|it| &it.pod),
        stream: kind.stream().to_owned(),
        level: kind.level().map(str::to_owned),
        request: line.request,
        text: line.text,
        partial: line.partial,
    }
}
