//! What happens to a guest that runs at an epoch tick: it goes on, gives way, or is ended.

use wasmtime::{StoreContextMut, UpdateDeadline, WasmBacktrace};

use crate::{
    host::state::State,
    lane::FAST_SLICE,
    meter::{Excess, Over, Standing},
    observe::{cell::Cell, turn::Turn},
    report::{Sample, stack},
};

/// A guest that used its CPU budget up. The error of the epoch callback, so of the call.
#[derive(Debug, thiserror::Error)]
#[error("the guest's CPU budget is spent")]
pub(crate) struct OverBudget(pub(crate) Over);

/// In how many parts a budget is cut; at the end of each but the last it is noted where the guest is.
const SAMPLES: u32 = 4;

/// What happens to a guest that runs at an epoch tick.
pub(crate) fn on_epoch_tick(
    mut store: StoreContextMut<'_, State>,
) -> wasmtime::Result<UpdateDeadline> {
    let is_turn = Turn::look(&mut store);
    let standing = store.data().cell.cpu.now();
    if let Some(Excess { over, .. }) = standing.excess {
        return Err(wasmtime::Error::new(OverBudget(over)));
    }
    sample(&mut store, &standing);
    let state = store.data();
    let is_long = standing.spent >= FAST_SLICE;
    if is_long {
        state.pace.set(true);
    }
    let is_soon = standing.running < FAST_SLICE && !is_throttled(&state.cell, &standing);
    if is_soon && (is_turn || !is_long) {
        // It was resumed a moment ago.
        return Ok(UpdateDeadline::Continue(1));
    }
    state.cell.run.expect_wake();
    // Not wasmtime's own yield: tokio may run a task that woke itself next, and again.
    Ok(UpdateDeadline::YieldCustom(
        1,
        Box::pin(tokio::task::yield_now()),
    ))
}

/// Whether the guest, once it has yielded, is held back.
fn is_throttled(cell: &Cell, standing: &Standing) -> bool {
    let quota = cell.cpu.quota();
    quota.is_some_and(|quota| quota.is_spent_after(standing.running))
}

/// Notes where a guest is that has used a quarter more of its budget, since it last waited, than
/// when that was last noted.
fn sample(store: &mut StoreContextMut<'_, State>, standing: &Standing) {
    let samples = &mut store.data_mut().samples;
    if samples
        .last()
        .is_some_and(|last| last.cpu > standing.unwaited)
    {
        // It has waited since.
        samples.clear();
    }
    let taken = samples.len();
    let due = standing.budget / SAMPLES * u32::try_from(taken + 1).unwrap_or(u32::MAX);
    if taken + 1 >= SAMPLES as usize || standing.unwaited < due {
        return;
    }
    let backtrace = stack::frames(&WasmBacktrace::force_capture(&mut *store));
    let state = store.data_mut();
    state.samples.push(Sample {
        cpu: standing.unwaited,
        host_calls: state.recorder.made(),
        backtrace,
    });
}
