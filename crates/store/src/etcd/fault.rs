//! What the error of a call means: whether another member may answer, and whether the request may
//! have been carried out.

use tonic::{Code, ConnectError, Status};

use super::options::chain;
use crate::error::StoreError;
use crate::transaction::TransactionError;

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// This member does not do it; another may.
    Member {
        /// Whether the request may have been carried out all the same.
        sent: bool,
    },
    /// The member forgot who the client is, and has done nothing.
    Token,
    /// The cluster has answered: not so.
    Answer,
}

/// Errors with which a member says that it has done nothing.
const NOT_DONE: [&str; 4] = [
    "etcdserver: no leader",
    "etcdserver: not capable",
    "etcdserver: too many requests",
    "etcdserver: rpc not supported for learner",
];

/// Errors that a client with an old token gets.
const OLD_TOKENS: [&str; 2] = [
    "etcdserver: invalid auth token",
    "etcdserver: revision of auth store is old",
];

/// What an answer says that would be larger than the client takes.
const TOO_LARGE: &str = "decoded message length too large";

impl Fault {
    pub(super) fn of(status: &Status) -> Self {
        let message = status.message();
        if OLD_TOKENS.iter().any(|it| message.contains(it)) {
            return Self::Token;
        }
        if NOT_DONE.iter().any(|it| message.contains(it)) {
            return Self::Member { sent: false };
        }
        match status.code() {
            Code::Unavailable => Self::Member {
                sent: !never_connected(status),
            },
            Code::OutOfRange if is_too_large(status) => Self::Answer,
            // What breaks below etcd has these codes, as do some of its own errors: it is asked
            // again elsewhere, which does no harm.
            Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal => {
                Self::Member { sent: true }
            }
            _ => Self::Answer,
        }
    }
}

/// Whether there was no connection on which a request could have been sent.
fn never_connected(status: &Status) -> bool {
    let mut error: Option<&dyn std::error::Error> = Some(status);
    while let Some(it) = error {
        if it.is::<ConnectError>() {
            return true;
        }
        error = it.source();
    }
    false
}

/// Whether the answer is larger than the client takes.
pub(super) fn is_too_large(status: &Status) -> bool {
    status.code() == Code::OutOfRange && status.message().contains(TOO_LARGE)
}

/// Whether what was asked about has been compacted.
pub(super) fn is_compacted(status: &Status) -> bool {
    status
        .message()
        .contains("required revision has been compacted")
}

/// Whether what was asked about has not happened yet.
pub(super) fn is_future(status: &Status) -> bool {
    status
        .message()
        .contains("required revision is a future revision")
}

/// Whether there is no such lease.
pub(super) fn is_no_lease(status: &Status) -> bool {
    status.message().contains("requested lease not found")
}

/// The reason in an error, for people.
pub(super) fn reason(status: &Status) -> String {
    let text = match std::error::Error::source(status) {
        Some(source) => chain(source),
        None => String::new(),
    };
    match (status.message(), &*text) {
        ("", "") => status.code().description().to_owned(),
        ("", text) => text.to_owned(),
        (message, text) if text.is_empty() || text.contains(message) => match text {
            "" => message.to_owned(),
            text => text.to_owned(),
        },
        (message, text) => format!("{message}: {text}"),
    }
}

/// The error of the store that an error of a call is.
pub(super) fn error(place: &str, status: &Status) -> StoreError {
    let (place, message) = (place.to_owned(), status.message());
    let reason = reason(status);
    if message.contains("database space exceeded") {
        return StoreError::Full { place, reason };
    }
    let refused = [
        "too many operations in txn request",
        "request is too large",
        "received message larger than max",
    ];
    if refused.iter().any(|it| message.contains(it)) {
        return TransactionError::Settings { place, reason }.into();
    }
    StoreError::Failed { place, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_certainly_not_done_may_be_done_again() {
        let unconnected = ConnectError("refused".into());
        let unconnected = Status::from_error(Box::new(unconnected));
        for (status, fault) in [
            (unconnected, Fault::Member { sent: false }),
            (
                Status::unavailable("etcdserver: no leader"),
                Fault::Member { sent: false },
            ),
            (
                Status::unavailable(
                    "etcdserver: request timed out, possibly due to previous leader failure",
                ),
                Fault::Member { sent: true },
            ),
            (
                Status::unavailable("etcdserver: leader changed"),
                Fault::Member { sent: true },
            ),
            (
                Status::unknown("transport error"),
                Fault::Member { sent: true },
            ),
            (
                Status::deadline_exceeded("late"),
                Fault::Member { sent: true },
            ),
            (
                Status::unauthenticated("etcdserver: invalid auth token"),
                Fault::Token,
            ),
            (
                Status::permission_denied("etcdserver: permission denied"),
                Fault::Answer,
            ),
            (
                Status::resource_exhausted("etcdserver: mvcc: database space exceeded"),
                Fault::Answer,
            ),
            (
                Status::out_of_range("etcdserver: mvcc: required revision has been compacted"),
                Fault::Answer,
            ),
        ] {
            assert_eq!(Fault::of(&status), fault, "{status}");
        }
    }

    #[test]
    fn errors_say_what_etcd_said_and_what_to_do() {
        let place = "http://a:1";
        let full = Status::resource_exhausted("etcdserver: mvcc: database space exceeded");
        assert!(matches!(error(place, &full), StoreError::Full { .. }));
        let large = Status::invalid_argument("etcdserver: too many operations in txn request");
        let StoreError::Refused(refused) = error(place, &large) else {
            panic!("it can never be committed");
        };
        assert!(refused.to_string().contains("--max-txn-ops"), "{refused}");
        let other = Status::permission_denied("etcdserver: permission denied");
        assert_eq!(
            error(place, &other).to_string(),
            "the store `http://a:1` failed: etcdserver: permission denied"
        );
    }
}
