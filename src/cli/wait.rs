//! Waiting until what was asked for has come about, with a line for each thing that changes.

use std::{collections::BTreeMap, ops::ControlFlow, time::Duration};

use anyhow::anyhow;
use indicatif::ProgressBar;
use sampan_core::{
    quantity::{format_duration, parse_duration},
    view::{self, Verdict, Watched},
};

use super::{EXIT_FAILED, EXIT_UNREACHABLE, End, Stop, output::Output};
use crate::client::{Client, quoted};

/// A length of time on the command line.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

/// What is waited for.
pub(super) struct Goal {
    pub(super) name: String,
    pub(super) target: Target,
    /// Whether it has to come about. How another one is, is only said.
    pub(super) is_awaited: bool,
}

/// What of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The rollout of a service: of this revision, if it is a certain one.
    Service(Option<u64>),
    /// The end of a job.
    Job,
    /// The end of the run of a job with this number.
    Run(u64),
}

impl Goal {
    pub(super) fn new(name: String, target: Target) -> Self {
        Self {
            name,
            target,
            is_awaited: true,
        }
    }

    /// What it is of, with its kind: `service/web`.
    fn object(&self) -> String {
        match self.target {
            Target::Service(_) => format!("service/{}", self.name),
            Target::Job | Target::Run(_) => format!("job/{}", self.name),
        }
    }

    /// What a line of the watch says about it, if it does.
    fn verdict(&self, watched: &Watched) -> Option<Verdict> {
        match (self.target, watched) {
            (Target::Service(revision), Watched::Service(service)) if service.name == self.name => {
                Some(view::rollout_verdict(service, revision))
            }
            (Target::Job, Watched::Job(job)) if job.name == self.name => {
                Some(view::job_verdict(job))
            }
            (Target::Run(number), Watched::Job(job)) if job.name == self.name => {
                Some(view::run_verdict(job, number))
            }
            (Target::Service(_), Watched::ServiceGone { name, .. })
            | (Target::Job | Target::Run(_), Watched::JobGone { name, .. })
                if *name == self.name =>
            {
                Some(Verdict::Failed("it is gone".to_owned()))
            }
            (Target::Service(_) | Target::Job | Target::Run(_), _) => None,
        }
    }
}

/// How far everything is.
struct Progress<'a> {
    goals: Vec<Goal>,
    verdicts: Vec<Option<Verdict>>,
    bars: BTreeMap<usize, ProgressBar>,
    output: &'a Output,
    synced: bool,
}

/// Waits until all goals have come about, and fails when one does not or time is up.
pub(super) async fn until(
    client: &Client,
    app: &str,
    goals: Vec<Goal>,
    timeout: Option<Duration>,
    output: &Output,
) -> End {
    if !goals.iter().any(|goal| goal.is_awaited) {
        return Ok(());
    }
    let mut progress = Progress {
        verdicts: goals.iter().map(|_| None).collect(),
        goals,
        bars: BTreeMap::new(),
        output,
        synced: false,
    };
    let target = format!("/v1/watch?app={}", quoted(app));
    let mut bad = None;
    let following = client.lines(&target, |line| match serde_json::from_str(line) {
        Ok(watched) => progress.take(&watched),
        Err(error) => {
            bad = Some(error);
            ControlFlow::Break(())
        }
    });
    let followed = match timeout {
        None => Some(following.await),
        Some(timeout) => tokio::time::timeout(timeout, following).await.ok(),
    };
    progress.clear();
    if let Some(error) = bad {
        let error = anyhow!("a line of the watch cannot be understood: {error}");
        return Err(Stop::Because(EXIT_UNREACHABLE, error));
    }
    match followed {
        Some(followed) => followed?,
        None => return Err(progress.late(timeout.unwrap_or_default())),
    }
    progress.end()
}

impl Progress<'_> {
    /// Takes in a line; breaks when there is nothing more to wait for.
    fn take(&mut self, watched: &Watched) -> ControlFlow<()> {
        self.synced |= matches!(watched, Watched::Synced { .. });
        for number in 0..self.goals.len() {
            if let Some(verdict) = self.goals[number].verdict(watched) {
                self.say(number, verdict);
            }
        }
        if self.synced && self.is_settled() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// Whether all have come about, one never will, or one is not there at all.
    fn is_settled(&self) -> bool {
        let failed = |it: &Option<Verdict>| matches!(it, None | Some(Verdict::Failed(_)));
        let done = |it: &Option<Verdict>| matches!(it, Some(Verdict::Done(_)));
        let mut awaited = self.of(true).map(|(_, verdict)| verdict);
        awaited.clone().any(failed) || awaited.all(done)
    }

    /// Goals that are awaited or not, and how far they are.
    fn of(&self, is_awaited: bool) -> impl Iterator<Item = (&Goal, &Option<Verdict>)> + Clone {
        let pairs = self.goals.iter().zip(&self.verdicts);
        pairs.filter(move |(goal, _)| goal.is_awaited == is_awaited)
    }

    fn say(&mut self, number: usize, verdict: Verdict) {
        if self.verdicts[number].as_ref() == Some(&verdict) {
            return;
        }
        let goal = &self.goals[number];
        let name = goal.object();
        match &verdict {
            _ if !goal.is_awaited => {}
            Verdict::Going(text) if self.output.is_live() => {
                let line = format!("{name}: {text}");
                match self.bars.get(&number) {
                    Some(bar) => bar.set_message(line),
                    None => {
                        self.bars.insert(number, self.output.spinner(line));
                    }
                }
            }
            Verdict::Going(text) => self.output.talk(&format!("{name}: {text}")),
            Verdict::Done(text) => {
                self.drop_bar(number);
                self.output.talk(&format!("{name}: {text}"));
            }
            // It is told at the end, as the reason why this fails.
            Verdict::Failed(_) => self.drop_bar(number),
        }
        self.verdicts[number] = Some(verdict);
    }

    fn drop_bar(&mut self, number: usize) {
        if let Some(bar) = self.bars.remove(&number) {
            bar.finish_and_clear();
        }
    }

    fn clear(&mut self) {
        for (_, bar) in std::mem::take(&mut self.bars) {
            bar.finish_and_clear();
        }
    }

    /// How far each is that has not come about, of those that are awaited or of the others.
    fn rest(&self, is_awaited: bool) -> Vec<String> {
        let rest = self.of(is_awaited).filter_map(|(goal, verdict)| {
            let text = match verdict {
                None => "it is not there",
                Some(Verdict::Going(text) | Verdict::Failed(text)) => text,
                Some(Verdict::Done(_)) => return None,
            };
            Some(format!("{}: {text}", goal.object()))
        });
        rest.collect()
    }

    fn late(&self, timeout: Duration) -> Stop {
        let rest = self.rest(true).join("; ");
        let timeout = format_duration(timeout);
        Stop::Because(EXIT_FAILED, anyhow!("not done after {timeout}: {rest}"))
    }

    fn end(&self) -> End {
        if !self.synced {
            let reason = anyhow!("the node went away before it said how anything is");
            return Err(Stop::Because(EXIT_UNREACHABLE, reason));
        }
        let mut failed = Vec::new();
        for (goal, verdict) in self.of(true) {
            let text = match verdict {
                None => "it is not there",
                Some(Verdict::Failed(text)) => text,
                Some(Verdict::Going(_) | Verdict::Done(_)) => continue,
            };
            failed.push(format!("{}: {text}", goal.object()));
        }
        if !failed.is_empty() {
            return Err(Stop::Because(EXIT_FAILED, anyhow!(failed.join("; "))));
        }
        match self.is_settled() {
            true => {
                for other in self.rest(false) {
                    self.output.talk(&format!("{other}; this was not changed"));
                }
                Ok(())
            }
            false => Err(Stop::Because(
                EXIT_UNREACHABLE,
                anyhow!("the node went away; so far: {}", self.rest(true).join("; ")),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(phase: view::Phase, revision: u64, reason: Option<&str>) -> Watched {
        Watched::Service(Box::new(view::Service {
            app: "shop".to_owned(),
            name: "web".to_owned(),
            generation: 2,
            observed_generation: 2,
            kind: "http".to_owned(),
            phase,
            reason: reason.map(str::to_owned),
            revision,
            previous: None,
            last_good: None,
            replicas: 2,
            autoscale: None,
            pods: 2,
            updated: 2,
            ready: 2,
            available: 2,
            updated_available: 2,
            paused: false,
            deleting: false,
            routes: Vec::new(),
            conditions: Vec::new(),
            refused: None,
            scalings: Vec::new(),
        }))
    }

    const SYNCED: Watched = Watched::Synced { revision: 1 };

    /// What the wait for revision 2 comes to with these lines: nothing while it goes on.
    fn comes_to(lines: &[Watched]) -> Option<Result<(), (u8, String)>> {
        comes_to_of(&["web"], &[], lines)
    }

    /// The same with others, of which some are not awaited.
    fn comes_to_of(
        awaited: &[&str],
        others: &[&str],
        lines: &[Watched],
    ) -> Option<Result<(), (u8, String)>> {
        let output = Output::new();
        let goal = |name: &&str| Goal::new((*name).to_owned(), Target::Service(Some(2)));
        let others = others.iter().map(goal).map(|goal| Goal {
            is_awaited: false,
            ..goal
        });
        let goals: Vec<_> = awaited.iter().map(goal).chain(others).collect();
        let mut progress = Progress {
            verdicts: goals.iter().map(|_| None).collect(),
            goals,
            bars: BTreeMap::new(),
            output: &output,
            synced: false,
        };
        let mut lines = lines.iter();
        let ended = lines.any(|line| progress.take(line).is_break());
        ended.then(|| match progress.end() {
            Ok(()) => Ok(()),
            Err(Stop::Because(code, reason)) => Err((code, reason.to_string())),
            Err(Stop::Quiet(code)) => Err((code, String::new())),
        })
    }

    #[test]
    fn what_was_not_changed_fails_no_wait() {
        let named = |name: &str, phase, reason| {
            let Watched::Service(mut named) = service(phase, 2, reason) else {
                unreachable!("it is a service");
            };
            named.name = name.to_owned();
            Watched::Service(named)
        };
        use view::Phase;
        let done = || named("web", Phase::Complete, None);
        let bad = || named("bad", Phase::Failed, Some("not ready in time"));
        let slow = || named("bad", Phase::Waiting, Some("for job `seed` to complete"));
        for other in [bad(), slow()] {
            let lines = [other, done(), SYNCED];
            assert_eq!(comes_to_of(&["web"], &["bad"], &lines), Some(Ok(())));
            assert_ne!(comes_to_of(&["web", "bad"], &[], &lines), Some(Ok(())));
        }
        let lines = [bad(), SYNCED];
        let ended = comes_to_of(&["web"], &["bad"], &lines);
        let missing = "service/web: it is not there".to_owned();
        assert_eq!(ended, Some(Err((1, missing))));
    }

    #[test]
    fn a_wait_ends_with_what_it_waits_for_or_why_it_never_comes() {
        use view::Phase;
        let failed = |text: &str| Some(Err((1, format!("service/web: {text}"))));
        let (going, done) = (
            service(Phase::Progressing, 2, None),
            service(Phase::Complete, 2, None),
        );
        assert_eq!(
            comes_to(std::slice::from_ref(&done)),
            None,
            "what comes next is not known"
        );
        assert_eq!(comes_to(&[done.clone(), SYNCED]), Some(Ok(())));
        assert_eq!(comes_to(&[going.clone(), SYNCED]), None);
        assert_eq!(
            comes_to(&[going.clone(), SYNCED, done.clone()]),
            Some(Ok(()))
        );
        assert_eq!(comes_to(&[SYNCED]), failed("it is not there"));
        let gone = Watched::ServiceGone {
            app: "shop".to_owned(),
            name: "web".to_owned(),
        };
        assert_eq!(
            comes_to(&[going.clone(), SYNCED, gone]),
            failed("it is gone")
        );
        let back = service(
            Phase::RollingBack,
            1,
            Some("revision 2 failed: not ready in time"),
        );
        assert_eq!(
            comes_to(&[going.clone(), SYNCED, back]),
            failed("going back to revision 1: revision 2 failed: not ready in time")
        );
        let other = service(Phase::Progressing, 3, None);
        assert_eq!(
            comes_to(&[going.clone(), SYNCED, other]),
            failed("another change has taken its place: revision 3")
        );
        let held = service(Phase::Paused, 2, Some("not ready in time"));
        assert_eq!(
            comes_to(&[going, SYNCED, held]),
            failed("paused, because the rollout has failed: not ready in time")
        );
        let Watched::Service(mut refused) = done else {
            unreachable!("it is a service");
        };
        refused.refused = Some(view::Refusal {
            reason: "it imports `wasi:nothing`".to_owned(),
            time: String::new(),
        });
        assert_eq!(
            comes_to(&[Watched::Service(refused), SYNCED]),
            failed("the last change was refused: it imports `wasi:nothing`")
        );
    }
}
