//! The memory limit of an instance: all its linear memories and tables together.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use crate::{engine::MAX_TABLE_ELEMENTS, meter::PodMeter};

/// Host bytes one table element takes.
const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// Counts what an instance holds, refuses what is over its limit, and gives all of it back to the
/// pod's account when the instance is dropped.
#[derive(Debug)]
pub(crate) struct Limiter {
    limit: usize,
    held: usize,
    /// Bytes that were refused because of the limit, the last time.
    refused: Option<usize>,
    pod: Arc<PodMeter>,
}

impl Limiter {
    pub(crate) fn new(limit_bytes: u64, pod: Arc<PodMeter>) -> Self {
        Self {
            limit: usize::try_from(limit_bytes).unwrap_or(usize::MAX),
            held: 0,
            refused: None,
            pod,
        }
    }

    /// Bytes that were refused because of the limit, the last time that any were.
    pub(crate) fn refused(&self) -> Option<u64> {
        self.refused.map(|bytes| bytes as u64)
    }

    /// Bytes held, and the most that may be.
    pub(crate) fn held(&self) -> (u64, u64) {
        (self.held as u64, self.limit as u64)
    }

    fn grow(&mut self, bytes: usize) -> bool {
        let Some(held) = self
            .held
            .checked_add(bytes)
            .filter(|&held| held <= self.limit)
        else {
            self.refused = Some(bytes);
            return false;
        };
        self.held = held;
        self.pod.grow_memory(bytes as u64, held as u64);
        true
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // Growth past the memory's own maximum fails anyway, and must not be counted.
        let possible = maximum.is_none_or(|maximum| desired <= maximum);
        Ok(possible && self.grow(desired.saturating_sub(current)))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let possible =
            desired <= MAX_TABLE_ELEMENTS && maximum.is_none_or(|maximum| desired <= maximum);
        let bytes = desired
            .saturating_sub(current)
            .saturating_mul(TABLE_ELEMENT_BYTES);
        Ok(possible && self.grow(bytes))
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.pod.shrink_memory(self.held as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_and_tables_share_one_limit() {
        let pod = Arc::new(PodMeter::default());
        let mut limiter = Limiter::new(1000, Arc::clone(&pod));
        assert!(limiter.memory_growing(0, 600, None).expect("no trap"));
        assert!(!limiter.memory_growing(0, 600, None).expect("no trap"));
        assert!(limiter.table_growing(0, 50, None).expect("no trap"));
        assert!(!limiter.memory_growing(600, 601, None).expect("no trap"));
        assert!(!limiter.table_growing(50, 40, Some(30)).expect("no trap"));
        assert_eq!(pod.usage().memory_bytes, 1000);
        drop(limiter);
        assert_eq!(
            (pod.usage().memory_bytes, pod.usage().memory_peak_bytes),
            (0, 1000)
        );
    }
}
