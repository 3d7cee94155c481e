//! What can go wrong with a request at its pod, or with what its client sends.

use std::fmt;

/// What happened to a request that got no response head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamErrorKind {
    /// The guest trapped. Answered 500.
    Trapped,
    /// The guest returned without a response. Answered 500.
    NoResponse,
    /// The request was blocked beyond its time. Answered 504.
    TimedOut,
    /// The guest burnt its CPU time. Answered 504.
    Spinning,
    /// The request was the victim of a proven deadlock. Answered 508.
    Deadlocked,
    /// The pod could not take the request: it stopped, or the host has no instance for it. Answered
    /// 503.
    Unavailable,
    /// The host failed between gateway and guest. Answered 500.
    Host,
    /// The request body is larger than allowed. Answered 413.
    BodyTooLarge,
    /// The request cannot be expressed to the guest, or its body is malformed. Answered 400.
    BadRequest,
    /// The client went away. The answer has no reader.
    ClientGone,
    /// The client sent its body too slowly.
    ClientSlow,
}

impl UpstreamErrorKind {
    /// Whether it is the pod that failed. What its client did wrong says nothing about it, and
    /// neither does what the host lacks.
    pub(crate) fn is_of_pod(self) -> bool {
        match self {
            Self::BodyTooLarge
            | Self::BadRequest
            | Self::ClientGone
            | Self::ClientSlow
            | Self::Unavailable
            | Self::Host => false,
            Self::Trapped
            | Self::NoResponse
            | Self::TimedOut
            | Self::Spinning
            | Self::Deadlocked => true,
        }
    }
}

impl fmt::Display for UpstreamErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trapped => "the guest trapped",
            Self::NoResponse => "the guest returned without a response",
            Self::TimedOut => "the request timed out",
            Self::Spinning => "the guest burnt its CPU time",
            Self::Deadlocked => "the request was part of a deadlock",
            Self::Unavailable => "the pod could not take the request",
            Self::Host => "the host failed",
            Self::BodyTooLarge => "the request body is too large",
            Self::BadRequest => "the request is malformed",
            Self::ClientGone => "the client went away",
            Self::ClientSlow => "the client sent its body too slowly",
        })
    }
}
