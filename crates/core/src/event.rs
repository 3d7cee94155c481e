//! What can happen to apps, services, jobs and pods: each reason of an event, in one word.

use std::fmt;

macro_rules! reasons {
    ($($(#[$what:meta])* $name:ident,)*) => {
        /// Why something changed, in one word. Where Kubernetes has the word it means the same.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[$what])* $name,)*
        }

        impl Reason {
            /// The word.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

reasons! {
    /// A pod's instance is there, and a probe is waited for.
    Started,
    /// A pod's instance could not be made, or has ended badly; or a job has ended badly for good.
    Failed,
    /// A pod's instance, or a job, has ended well.
    Completed,
    /// A pod gets requests.
    Ready,
    /// A pod gets none for now.
    Unready,
    /// A probe failed.
    Unhealthy,
    /// A probe got no answer because the pod got no CPU.
    Starved,
    /// A pod's instance is ended because it does not do what it should.
    Killing,
    /// A pod or a job waits before it is started again.
    BackOff,
    /// A pod waits, and not for the first time in a row.
    CrashLoopBackOff,
    /// A pod is started again.
    Restarting,
    /// A pod gets no more requests and ends those it has.
    Draining,
    /// A pod is gone, or a job was ended before its end.
    Stopped,
    /// Instances waited for each other for ever, and one of them had to fail.
    Deadlocked,
    /// A component is being compiled.
    Compiling,
    /// A component can be instantiated.
    Loaded,
    /// Pods of a new revision have taken the place of the old ones.
    Replaced,
    /// A change was refused, and what ran before stays.
    Refused,
    /// Everything of an app has started.
    Up,
    /// A pod is to be there.
    PodCreated,
    /// A pod is to go.
    PodStopped,
    /// No node has room for a pod, which waits.
    FailedScheduling,
    /// A pod that waited has got a node.
    Scheduled,
    /// Another revision is rolled out.
    RolloutStarted,
    /// A rollout waits for what it depends on.
    RolloutWaiting,
    /// A rollout is held.
    RolloutPaused,
    /// A rollout that was held goes on.
    RolloutResumed,
    /// All pods are of the wanted revision.
    RolloutComplete,
    /// A rollout has not got on for too long.
    ProgressDeadlineExceeded,
    /// The last good revision runs again.
    RolledBack,
    /// Another number of pods is wanted.
    Scaled,
    /// Some pods of a service that was rolled out do not serve.
    Degraded,
    /// None of them does.
    Unavailable,
    /// They serve again.
    Available,
    /// A job waits for what it depends on.
    JobWaiting,
    /// The first attempt of a job has begun.
    JobStarted,
    /// A further attempt of a job has begun.
    JobRetried,
    /// An attempt that ended with the node has begun again.
    JobResumed,
    /// A job has failed without an attempt.
    JobFailed,
    /// A run of a job is left out, because another one is under way.
    JobSkipped,
    /// A run of a job is to begin when the one under way has ended.
    JobQueued,
    /// A spec was applied.
    Applied,
    /// A service or job was added.
    Added,
    /// A service or job was changed.
    Changed,
    /// An app, service or job is to go.
    Deleted,
    /// A rollout is to be held.
    Paused,
    /// A rollout is to go on.
    Resumed,
    /// All pods of a service, or a job, are to start once more.
    Restarted,
    /// A job is to run now.
    RunAsked,
    /// A service is to go back to an earlier revision.
    Undone,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
