//! Services at zero for which requests wait at other nodes, as those have told the node that leads.
//!
//! | state | written | read |
//! |---|---|---|
//! | the services, and when each was told of last | by requests of other nodes | by the autoscaler, whole |

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use sampan_core::name::ServiceKey;
use tokio::{sync::Notify, time::Instant};

/// How long a call counts. Then a report of the node says whether requests still wait.
const CALL_LASTS: Duration = Duration::from_secs(2);
/// The most services that are called at once. The others come with the next reports.
const MAX_CALLED: usize = 10_000;

/// Calls for services at zero.
#[derive(Default)]
pub(crate) struct Calls {
    services: Mutex<BTreeMap<ServiceKey, Instant>>,
    came: Notify,
}

impl Calls {
    /// Takes calls. Several for one service are one.
    pub(crate) fn take(&self, services: impl IntoIterator<Item = ServiceKey>) {
        let now = Instant::now();
        let mut called = self.services.lock();
        for service in services {
            if called.len() < MAX_CALLED || called.contains_key(&service) {
                called.insert(service, now);
            }
        }
        drop(called);
        self.came.notify_one();
    }

    /// Says that a request waits at this node itself, whose gateway knows where.
    pub(crate) fn here(&self) {
        self.came.notify_one();
    }

    /// Resolves when there are more, at once if there were since the last call of this.
    pub(crate) async fn came(&self) {
        self.came.notified().await;
    }

    /// Forgets the calls for a service that is woken now: later a report says whether requests wait.
    pub(crate) fn answered(&self, service: &ServiceKey) {
        self.services.lock().remove(service);
    }

    /// The services that are called.
    pub(crate) fn services(&self) -> Vec<ServiceKey> {
        let now = Instant::now();
        let mut called = self.services.lock();
        called.retain(|_, at| now - *at < CALL_LASTS);
        called.keys().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn key(number: usize) -> ServiceKey {
        ServiceKey::parse(&format!("shop/web{number}")).expect("a key")
    }

    #[tokio::test(start_paused = true)]
    async fn several_calls_for_one_service_are_one_and_end() {
        let calls = Calls::default();
        calls.take([key(1), key(2)]);
        calls.take([key(1)]);
        assert!(calls.came().now_or_never().is_some());
        assert!(calls.came().now_or_never().is_none());
        assert_eq!(calls.services(), [key(1), key(2)]);
        tokio::time::advance(CALL_LASTS / 2).await;
        calls.take([key(2), key(3)]);
        tokio::time::advance(CALL_LASTS / 2).await;
        assert_eq!(calls.services(), [key(2), key(3)]);
        calls.answered(&key(3));
        assert_eq!(calls.services(), [key(2)]);
        tokio::time::advance(CALL_LASTS).await;
        assert!(calls.services().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_much_is_left_to_the_reports() {
        let calls = Calls::default();
        calls.take((0..MAX_CALLED + 5).map(key));
        assert_eq!(calls.services().len(), MAX_CALLED);
        let known = calls.services().remove(0);
        calls.take([known]);
        assert_eq!(calls.services().len(), MAX_CALLED);
    }
}
