//! How many memory maps instances have, as the kernel counts them.

use std::{env, fs, process::Command, sync::Arc};

use sampan_core::object::Isolation;
use sampan_runtime::{PoolSize, Runtime, RuntimeConfig, pod::Pod};

use super::{
    rig::{config, plan},
    text::handler,
};

/// What the budget counts for a memory.
const MAPS_PER_MEMORY: usize = 5;
/// Maps that come and go beside: code, threads and their allocators.
const OTHER_MAPS: usize = 50;

/// The maps are those of a process, in which other tests may run.
#[test]
fn no_guest_takes_more_maps_than_it_is_charged() {
    for test in [
        "a_memory_never_takes_more_maps_than_are_counted_for_it",
        "thousands_of_pods_share_the_maps_of_their_guards",
    ] {
        let name = format!("it::maps::{test}");
        let mut command = Command::new(env::current_exe().expect("a running binary"));
        command.args(["--ignored", "--exact", &name, "--test-threads=1"]);
        let output = command.output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        let passed = output.status.success() && said.contains("1 passed");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(passed, "{test}: {said}{errors}");
    }
}

fn maps() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").expect("its own maps");
    maps.lines().count()
}

/// A guest with so many memories of four pages, whose data are at an offset. It writes before and
/// behind them and has the memories grow before it is a pod.
fn guest(memories: usize, data: usize) -> Vec<u8> {
    let each = |text: &dyn Fn(usize) -> String| (0..memories).map(text).collect::<String>();
    let declared = each(&|index| format!("(memory $m{index} 4)"));
    let data = each(&|index| format!(r#"(data (memory $m{index}) (i32.const {data}) "data")"#));
    let touched = each(&|index| {
        let stores = [0, 65_536, 131_072, 262_140, 300_000]
            .map(|at| format!("(i32.store $m{index} (i32.const {at}) (i32.const 1))"));
        format!(
            "(drop (memory.grow $m{index} (i32.const 2))) {}",
            stores.concat()
        )
    });
    handler(&format!(
        r#"{declared} {data} (func $start {touched}) (start $start)
           (func (export "handle") (param i32 i32))"#
    ))
}

async fn pods(runtime: &Arc<Runtime>, guest: Vec<u8>, count: usize) -> Vec<Pod> {
    let mut pods = Vec::new();
    for _ in 0..count {
        let mut plan = plan(guest.clone()).isolation(Isolation::Pod);
        plan.runtime = Arc::clone(runtime);
        pods.push(plan.start().await);
    }
    pods
}

fn runtime(instances: u32) -> Arc<Runtime> {
    let pool = PoolSize { instances };
    Runtime::new(RuntimeConfig { pool, ..config() }).expect("a runtime")
}

/// Guests whose data lie elsewhere each time, in slots that others have left: of all ways to use a
/// slot the one that takes the most maps.
#[tokio::test]
#[ignore = "run by `no_guest_takes_more_maps_than_it_is_charged`, in a process of its own"]
async fn a_memory_never_takes_more_maps_than_are_counted_for_it() {
    const PODS: usize = 100;
    let runtime = runtime(PODS as u32);
    drop(pods(&runtime, guest(1, 0), 1).await);
    let before = maps();
    // All slots of the pool have been used after the first.
    let most = 2 * PODS * MAPS_PER_MEMORY;
    let mut seen = 0;
    for (memories, data) in [
        (2, 131_072),
        (1, 0),
        (2, 65_536),
        (2, 196_608),
        (1, 4096),
        (2, 131_072),
        (2, 258_048),
        (2, 69_632),
    ] {
        let pods = pods(&runtime, guest(memories, data), PODS).await;
        let taken = maps() - before;
        assert!(
            taken <= most + OTHER_MAPS,
            "{taken} maps with data at {data}"
        );
        seen = seen.max(taken);
        drop(pods);
    }
    assert!(seen > most / 2, "{seen} maps: these guests are too kind");
}

/// More pods than there are maps for with a guard for each stack.
#[tokio::test]
#[ignore = "run by `no_guest_takes_more_maps_than_it_is_charged`, in a process of its own"]
async fn thousands_of_pods_share_the_maps_of_their_guards() {
    const PODS: usize = 3000;
    let runtime = runtime(PODS as u32);
    let before = maps();
    let pods = pods(&runtime, guest(1, 65_536), PODS).await;
    let each = (maps() - before) as f64 / PODS as f64;
    assert!((3.9..7.0).contains(&each), "{each} maps a pod");
    if folds() {
        // Four of its memory, and what the first thousand stacks keep.
        assert!(each < 4.7, "{each} maps a pod");
    }
    drop(pods);
}

/// Linux 6.13 and later.
fn folds() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
    let mut numbers = release.split(['.', '-']).map_while(|it| it.parse().ok());
    (numbers.next(), numbers.next()) >= (Some(6_u32), Some(13_u32))
}
