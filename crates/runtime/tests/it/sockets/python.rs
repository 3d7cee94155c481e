//! A guest in Python that uses a driver from PyPI, which `.ci/python-guest` builds.

use std::path::Path;

use sampan_core::object::Isolation;

use super::{
    super::rig::plan,
    rule,
    servers::{Postgres, Redis, required},
    told,
};

/// As `postgresql` and `redis` with the guest in Rust: of one pod, because the component is large.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_talks_to_postgresql_and_redis() {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/ci/py-database.wasm");
    let component = required(std::fs::read(built).ok(), "target/ci/py-database.wasm");
    let (Some(component), Some(mut postgres), Some(mut redis)) =
        (component, Postgres::start(), Redis::start())
    else {
        return;
    };
    let mut plan = plan(component).isolation(Isolation::Pod).memory(256 << 20);
    let ports = [postgres.port, redis.port];
    plan.grants.outbound = ports.map(|port| rule("127.0.0.1", port)).to_vec();
    let pod = plan.start().await;

    let [port, redis_port] = ports;
    let query = async |sql: &str| {
        let sql = sql.replace(' ', "+");
        let path = format!("/postgres?at=127.0.0.1:{port}&user=sampan&sql={sql}");
        told(&pod, &path).await
    };
    let made = query("CREATE TABLE t (n int); BEGIN; INSERT INTO t VALUES (1),(2); COMMIT").await;
    assert_eq!(made, (200, String::new()));
    // A transaction of several requests, over the connection that is kept.
    for sql in ["BEGIN", "INSERT INTO t VALUES (3)", "ROLLBACK"] {
        assert_eq!(query(sql).await, (200, String::new()), "{sql}");
    }
    assert_eq!(
        query("SELECT sum(n), count(*) FROM t").await,
        (200, "3\t2\n".to_owned())
    );
    // Four megabytes.
    let (status, large) = query("SELECT n, repeat('x', 79) FROM generate_series(1, 50000) n").await;
    assert_eq!((status, large.lines().count()), (200, 50_000));
    assert!(large.len() > 4 << 20, "{}", large.len());
    let (status, wrong) = query("SELECT * FROM nowhere").await;
    assert_eq!(status, 502);
    assert!(wrong.contains("DatabaseError"), "{wrong}");
    postgres.restart();
    assert_eq!(
        query("SELECT count(*) FROM t").await,
        (200, "2\n".to_owned())
    );

    let path = format!("/redis?at=127.0.0.1:{redis_port}&get=visits");
    for wanted in 1..=20 {
        assert_eq!(told(&pod, &path).await, (200, format!("{wanted}\n")));
    }
    redis.restart();
    // It keeps nothing on disk here, and so begins anew.
    assert_eq!(told(&pod, &path).await, (200, "1\n".to_owned()));
}
