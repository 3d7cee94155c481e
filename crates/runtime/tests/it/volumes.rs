//! Volumes as guests see them.

use std::{fs, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use sampan_core::{
    name::Name,
    object::{Access, Grants, Mount, MountSource, VolumeUse},
    quantity::ByteSize,
};
use sampan_runtime::{Runtime, RuntimeConfig, StartError, VolumesConfig, command::Exit, pod::Pod};
use tempfile::TempDir;

use super::commands::run_with;
use super::files::FILES;
use super::rig::{ask, config, in_time, limits, lines, plan, pod_name, text_of, workload};
use super::text::component;

const BLOCK: usize = 4096;

fn runtime(folder: &TempDir, disk_percent: u8) -> Arc<Runtime> {
    let volumes = VolumesConfig {
        disk_percent,
        ..VolumesConfig::at(folder.path().join("volumes"))
    };
    let runtime = Runtime::new(RuntimeConfig {
        volumes: Some(volumes),
        ..config()
    });
    runtime.expect("a runtime")
}

fn grants(blocks: usize) -> Grants {
    let name = |text| Name::parse(text).expect("a name");
    let source = MountSource::Volume(VolumeUse {
        app: name("shop"),
        name: name("data"),
        quota: ByteSize((blocks * BLOCK) as u64),
    });
    Grants {
        files: vec![Mount {
            source,
            guest: "/data".to_owned(),
            access: Access::ReadWrite,
        }],
        ..Grants::default()
    }
}

async fn pod(runtime: &Arc<Runtime>, blocks: usize) -> Pod {
    let mut plan = plan(workload("env-and-files"));
    plan.runtime = Arc::clone(runtime);
    plan.grants = grants(blocks);
    plan.start().await
}

async fn put(pod: &Pod, path: &str, bytes: usize) -> u16 {
    let request = http::Request::put(format!("http://test/file/{path}"));
    let request = request.body(Full::new(Bytes::from(vec![b'x'; bytes])));
    let response = in_time(pod.call(request.expect("a request"), None)).await;
    let response = response.expect("an answer");
    let status = response.status().as_u16();
    text_of(response.into_body()).await.expect("a whole body");
    status
}

/// Blocks of what is in the volume.
fn blocks(folder: &TempDir) -> usize {
    let entries = fs::read_dir(folder.path().join("volumes/shop/data")).expect("a volume");
    let lengths = entries.map(|entry| entry.expect("an entry").metadata().expect("there").len());
    lengths.map(|it| 1 + (it as usize).div_ceil(BLOCK)).sum()
}

#[tokio::test]
async fn ten_writers_in_two_pods_fill_a_volume_to_the_block() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = runtime(&folder, 100);
    let pods = [pod(&runtime, 100).await, pod(&runtime, 100).await];
    let writes = (0..10).map(|n| {
        let pod = &pods[n % 2];
        async move { put(pod, &n.to_string(), 30 * BLOCK).await }
    });
    let statuses = futures::future::join_all(writes).await;
    assert!(statuses.contains(&507), "{statuses:?}");
    assert_eq!(blocks(&folder), 100);
    let said = lines(&runtime, pods[0].name());
    let told =
        "no space left: volume `data` may have 400KiB; `quota` in `[volume.data]` allows more";
    assert!(said.iter().any(|it| it.text.starts_with(told)), "{said:?}");
    // The pods go on, and what is there can be read and replaced.
    let (status, _) = in_time(ask(&pods[1], "/env")).await.expect("an answer");
    assert_eq!(status, 200);
    for n in 0..10 {
        // One that came when all was full found no block for its name either.
        let place = folder.path().join(format!("volumes/shop/data/{n}"));
        let expected = if place.exists() { 204 } else { 201 };
        assert_eq!(put(&pods[0], &n.to_string(), 1).await, expected);
    }
    assert_eq!(blocks(&folder), 20);
    let answer = in_time(ask(&pods[1], "/file/3")).await;
    assert_eq!(answer, Ok((200, "x".to_owned())));
}

#[tokio::test]
async fn what_is_in_a_volume_outlives_pods_and_the_runtime() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = runtime(&folder, 100);
    assert_eq!(put(&pod(&first, 10).await, "kept", 4 * BLOCK).await, 201);
    let second = pod(&first, 10).await;
    let (status, text) = in_time(ask(&second, "/file/kept"))
        .await
        .expect("an answer");
    assert_eq!((status, text.len()), (200, 4 * BLOCK));
    drop((second, first));
    // It is counted again, and the quota holds.
    let later = runtime(&folder, 100);
    let pod = pod(&later, 10).await;
    assert_eq!(put(&pod, "more", 4 * BLOCK).await, 201);
    assert_eq!(put(&pod, "too-much", 0).await, 507);
    assert_eq!(blocks(&folder), 10);
}

#[tokio::test]
async fn a_full_disk_takes_no_more_and_other_pods_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = runtime(&folder, 0);
    let pod = pod(&runtime, 10).await;
    assert_eq!(put(&pod, "file", 1).await, 507);
    let said = lines(&runtime, pod.name());
    let told = "no space left: the disk of volume `data` is 0 % full";
    assert!(said.iter().any(|it| it.text.starts_with(told)), "{said:?}");
    let (status, _) = in_time(ask(&pod, "/env")).await.expect("an answer");
    assert_eq!(status, 200);
}

/// The streams of WASI 0.3 are Sampan's own.
#[tokio::test]
async fn a_guest_of_wasi_0_3_uses_a_volume() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = runtime(&folder, 100);
    let text: String = (0..60_000).map(|n| format!("{n} ")).collect();
    let path = |name: &str| folder.path().join("volumes/shop/data").join(name);
    fs::create_dir_all(path("")).expect("made");
    fs::write(path("in"), &text).expect("written");
    fs::write(path("out"), "so far: ").expect("written");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .expect("made");
    let bytes = component(&FILES.replace("ENTRIES", "3"));
    let loaded = runtime.load(bytes.into(), Default::default(), || {}).await;
    let loaded = loaded.expect("a good component");
    for (blocks, code) in [(1000, 0), (100, 1)] {
        let name = pod_name();
        let (grants, limits) = (grants(blocks), limits());
        let ended = run_with(&runtime, &loaded, name.clone(), &[], &grants, &limits).await;
        let ended = ended.expect("a start");
        let good = ended.exit == Exit::Code(0);
        assert_eq!(
            good,
            code == 0,
            "{:?} {:?}",
            ended.exit,
            lines(&runtime, &name)
        );
    }
}

#[tokio::test]
async fn without_a_place_for_volumes_none_is_lent() {
    let mut plan = plan(workload("env-and-files"));
    plan.grants = grants(10);
    let error = plan.try_start().await.err().expect("no place");
    assert!(matches!(error, StartError::Mount(_)), "{error:?}");
    let text = error.to_string();
    assert_eq!(text, "cannot use the volume `data` for the guest's `/data`");
}
