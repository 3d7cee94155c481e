//! `sampan init --from`: Compose files and manifests of Spin as specs.

use std::{fs, path::Path, process::Stdio};

use crate::rig::{directory, err, out, sampan};

fn run(place: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = sampan(arguments);
    command.current_dir(place).stdin(Stdio::null());
    command.output().expect("it starts")
}

/// The spec that a file becomes, which is good, and what is checked of it as JSON.
fn imported(files: &[(&str, &[u8])], from: &str) -> (String, serde_json::Value) {
    let place = directory(files);
    let made = run(place.path(), &["init", "--from", from]);
    assert!(made.status.success(), "{}", err(&made));
    let text = fs::read_to_string(place.path().join("sampan.toml")).expect("readable");
    let profiles = ["validate", "--json", "--profile", "debug"];
    let checked = run(place.path(), &profiles);
    assert!(checked.status.success(), "{}{text}", err(&checked));
    let json = serde_json::from_str(&out(&checked)).expect("JSON");
    (text, json)
}

const COMPOSE: &str = r#"
name: My Shop
x-common: &common
  restart: on-failure:5
  logging: { driver: json-file }
services:
  web:
    <<: *common
    build: ./web
    ports: ["8080:80", "9000:9000/udp"]
    environment:
      API: http://api_v2:3000/
      DATABASE: postgres://app:${PASSWORD:?no password}@db/app
      GREETING: ${GREETING-hello} for $$5
      TOKEN:
      ODD: ${A:+b}
    depends_on:
      api_v2: { condition: service_healthy }
      migrate: { condition: service_completed_successfully }
      db: { condition: service_healthy }
    volumes:
      - uploads:/uploads
      - ./static/:/static:ro
      - ./nginx.conf:/etc/nginx.conf
      - /var/run/docker.sock:/var/run/docker.sock
      - ${NOWHERE}:/nowhere
    networks: [front]
    privileged: true
  api_v2:
    image: example.com/team/api:1.2
    env_file: [api.env, { path: gone.env, required: false }]
    scale: 3
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost:3000/healthz"]
      interval: 1m30s
      timeout: 2s
      retries: 5
    deploy:
      resources: { limits: { cpus: "0.50", memory: 256M }, reservations: { memory: 8M } }
      update_config: { failure_action: pause, parallelism: 2 }
  debugger:
    image: example.com/team/debugger
    profiles: [debug]
  migrate:
    build: { context: ./db, dockerfile: Dockerfile.migrate }
    restart: "on-failure:3"
    command: ["./migrate", "up"]
  db:
    image: postgres:16
    ports: ["15432:5432"]
    volumes: ["data:/var/lib/postgresql/data"]
volumes:
  uploads: { driver: local }
  data:
networks: { front: {} }
"#;

#[test]
fn a_compose_file_becomes_a_spec_with_comments_on_what_it_cannot_say() {
    let files: &[(&str, &[u8])] = &[("compose.yaml", COMPOSE.as_bytes()), ("api.env", b"A=1\n")];
    let place = directory(files);
    let refused = run(place.path(), &["init", "--from", "compose.yaml"]);
    assert!(refused.status.success(), "{}", err(&refused));
    let told = err(&refused);
    assert!(
        told.contains("could not be carried over: see the comments"),
        "{told}"
    );
    let text = fs::read_to_string(place.path().join("sampan.toml")).expect("readable");
    // What has to be set is for the user who runs it, as it was.
    let unset = run(place.path(), &["validate"]);
    assert!(err(&unset).contains("no password"), "{}", err(&unset));
    let mut command = sampan(&["validate", "--json", "--profile", "debug"]);
    command.current_dir(place.path()).env("PASSWORD", "secret");
    let checked = command.output().expect("it starts");
    assert!(checked.status.success(), "{}{text}", err(&checked));
    let app: serde_json::Value = serde_json::from_str(&out(&checked)).expect("JSON");

    assert_eq!(app["name"], "my-shop");
    let (web, api) = (&app["services"]["web"], &app["services"]["api-v2"]);
    assert_eq!(web["component"]["path"], "web/web.wasm");
    assert_eq!(web["routes"][0]["prefix"], "/");
    assert_eq!(web["depends_on"]["api-v2"], "ready");
    assert_eq!(web["depends_on"]["migrate"], "completed");
    assert_eq!(web["restart"]["policy"], "on-failure");
    let grants = &web["grants"];
    assert_eq!(grants["env"]["DATABASE"], "postgres://app:secret@db/app");
    assert_eq!(grants["env"]["GREETING"], "hello for $5");
    assert_eq!(grants["env"]["TOKEN"], "");
    assert_eq!(grants["outbound"][0]["port"], 15432);
    assert_eq!(grants["outbound"][0]["scheme"], "tcp");
    assert_eq!(grants["services"][0], "api-v2");
    let mounted = grants["files"].as_array().expect("a list");
    assert_eq!(mounted.len(), 2, "{grants}");
    assert_eq!(mounted[0]["volume"]["name"], "uploads");
    assert_eq!(mounted[1]["access"], "read-only");
    assert_eq!(api["replicas"], 3);
    assert_eq!(api["readiness"]["check"]["http"], "/healthz");
    assert_eq!(api["readiness"]["period"], "1m30s");
    assert_eq!(api["readiness"]["failures"], 5);
    assert_eq!(api["rollout"]["on_failure"], "pause");
    assert_eq!(api["limits"]["memory"], "256MiB");
    assert_eq!(app["jobs"]["migrate"]["retries"], 3);
    assert!(app["services"]["db"].is_null());
    assert_eq!(app["services"]["debugger"]["profiles"][0], "debug");

    for line in [
        "# line 5: `logging`: what guests print is kept by the node: `sampan logs`",
        "# line 10: port `9000:9000/udp`: it is no port of TCP",
        "# line 16: variable `ODD`: `${A:+b}` has no counterpart, and is empty",
        "# line 24: volume `./nginx.conf:/etc/nginx.conf`: it is a file",
        "# line 25: volume `/var/run/docker.sock:/var/run/docker.sock`: a guest is lent directories",
        "# line 28: `privileged`: a guest has no rights of the system's",
        "# line 31: `env_file` `gone.env`: there is no such file",
        "# line 29: service `api_v2`: a name here has `a-z`, `0-9` and `-`: it is `api-v2`",
        "# line 48: service `db` of the image `postgres:16`: it stays a container",
        "host = \"${NOWHERE:-}\"",
        "a variable names `api_v2`: a guest calls it as http://api-v2/",
    ] {
        let joined = text.replace("\n# ", " ");
        let found = text.contains(line) || joined.contains(line.trim_start_matches("# "));
        assert!(found, "`{line}` is not in {text}");
    }
}

const SPIN: &str = r#"
spin_manifest_version = 2

[application]
name = "url-shortener"
version = "1.0.0"

[variables]
host = { default = "example.com" }

[[trigger.http]]
route = "/api/..."
component = "short_api"

[[trigger.http]]
route = "/users/:id"
component = "short_api"

[[trigger.http]]
route = { private = true }
component = "hidden"

[[trigger.redis]]
address = "redis://localhost:6379"
channel = "news"
component = "listener"

[[trigger.cron]]
cron_expression = "0 */5 * * * *"
component = "nightly"

[component.short_api]
source = "target/wasm32-wasip1/release/api.wasm"
allowed_outbound_hosts = [
    "https://{{ host }}", "postgres://localhost", "http://hidden.spin.internal", "https://*:*", "*://any:*",
]
key_value_stores = ["default"]
files = ["assets/**/*", { source = "static", destination = "/" }, "*.txt"]
environment = { PRICE = "5$" }
sqlite_databases = ["default"]
[component.short_api.variables]
url = "https://{{ host }}/x"
[component.short_api.build]
command = "cargo build --target wasm32-wasip1 --release"
workdir = "api"
watch = ["src/**/*.rs", "Cargo.toml"]

[component.hidden]
source = { url = "https://example.com/hidden.wasm", digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef" }

[component.listener]
source = "listener.wasm"

[component.nightly]
source = "nightly.wasm"
"#;

#[test]
fn a_manifest_of_spin_becomes_a_spec() {
    let (text, app) = imported(&[("spin.toml", SPIN.as_bytes())], "spin.toml");
    assert_eq!(app["name"], "url-shortener");
    let api = &app["services"]["short-api"];
    assert_eq!(
        api["component"]["path"],
        "target/wasm32-wasip1/release/api.wasm"
    );
    let prefixes: Vec<_> = (0..2)
        .map(|it| api["routes"][it]["prefix"].clone())
        .collect();
    assert_eq!(prefixes, ["/api", "/users"]);
    let grants = &api["grants"];
    assert_eq!(grants["keyvalue"][0], "default");
    assert_eq!(grants["env"]["PRICE"], "5$");
    assert_eq!(grants["config"]["url"], "https://example.com/x");
    assert_eq!(grants["services"][0], "hidden");
    let ports = [0, 1].map(|it| grants["outbound"][it]["port"].clone());
    assert_eq!(ports, [443, 5432], "{grants}");
    assert_eq!(grants["files"][1]["guest"], "/");
    let build = &app["builds"]["short-api"];
    assert_eq!(
        build["command"],
        "cd api && cargo build --target wasm32-wasip1 --release"
    );
    assert_eq!(build["watch"][0], "api/src");
    let hidden = &app["services"]["hidden"];
    assert_eq!(hidden["routes"].as_array().map(Vec::len), Some(0));
    assert!(hidden["component"]["digest"].is_string());
    assert_eq!(
        app["jobs"]["nightly"]["schedule"]["expression"],
        "*/5 * * * *"
    );
    for line in [
        "trigger `redis`",
        "`sqlite_databases`",
        "route `/users/:id`",
        "curl -L -o hidden.wasm",
    ] {
        assert!(text.contains(line), "`{line}` is not in {text}");
    }
}

#[test]
fn what_is_no_such_file_is_refused_with_its_name() {
    let place = directory(&[
        ("none.yaml", b"a: 1\n"),
        ("bad.yml", b"a: b: c\n"),
        ("old.toml", b"spin_manifest_version = '1'\n"),
        ("other.txt", b""),
        ("compose.yaml", COMPOSE.as_bytes()),
        ("sampan.toml", b"app = 'mine'\n"),
    ]);
    for (file, told) in [
        ("none.yaml", "`none.yaml`: there are no `services` in it"),
        ("bad.yml", "`bad.yml`: it is no YAML"),
        ("old.toml", "`spin doctor` makes a manifest of version 2"),
        ("other.txt", "its name tells nothing"),
        ("gone.yaml", "cannot read `gone.yaml`"),
        ("compose.yaml", "sampan.toml` is already there"),
    ] {
        let refused = run(place.path(), &["init", "--from", file]);
        assert_eq!(refused.status.code(), Some(2), "{file}");
        assert!(err(&refused).contains(told), "{}", err(&refused));
    }
    // In another directory paths are still those of the file.
    let made = run(place.path(), &["init", "new", "--from", "compose.yaml"]);
    assert!(made.status.success(), "{}", err(&made));
    let text = fs::read_to_string(place.path().join("new/sampan.toml")).expect("readable");
    let base = fs::canonicalize(place.path()).expect("there");
    assert!(
        text.contains(&format!("component = \"{}/web/web.wasm\"", base.display())),
        "{text}"
    );
}

const SECRETS: &str = r#"
services:
  web:
    build: .
    secrets:
      - db_password
      - source: token
        target: api-token
        mode: 0400
      - { source: token, target: /etc/token }
      - kept_by_swarm
      - undeclared
      - odd
  worker:
    build: .
    secrets: [db_password, later]
  db:
    image: postgres
    secrets: [db_password]
secrets:
  db_password: { file: ./secrets/db.txt }
  token: { environment: API_TOKEN }
  later: { file: later.txt }
  kept_by_swarm: { external: true }
  odd: { file: "${HOME}/odd" }
  unused: { file: unused.txt }
"#;

#[test]
fn secrets_of_a_compose_file_become_files_below_run_secrets() {
    let files: &[(&str, &[u8])] = &[
        ("compose.yaml", SECRETS.as_bytes()),
        ("secrets/db.txt", b"hush"),
    ];
    let place = directory(files);
    let made = run(place.path(), &["init", "--from", "compose.yaml"]);
    assert!(made.status.success(), "{}", err(&made));
    let text = fs::read_to_string(place.path().join("sampan.toml")).expect("readable");
    // What is not there yet is asked for, by its name.
    let unset = run(place.path(), &["validate"]);
    for asked in ["the variable `API_TOKEN`", "the file `later.txt`"] {
        assert!(err(&unset).contains(asked), "{}", err(&unset));
    }
    fs::write(place.path().join("later.txt"), "value").expect("written");
    let mut command = sampan(&["validate", "--json"]);
    command.current_dir(place.path()).env("API_TOKEN", "value");
    let checked = command.output().expect("it starts");
    assert!(checked.status.success(), "{}{text}", err(&checked));
    let app: serde_json::Value = serde_json::from_str(&out(&checked)).expect("JSON");
    assert_eq!(
        app["secrets"]["db-password"]["file"], "secrets/db.txt",
        "{app}"
    );
    assert_eq!(app["secrets"]["token"]["env"], "API_TOKEN");
    let secrets = app["secrets"].as_object().map(serde_json::Map::len);
    assert_eq!(secrets, Some(3), "{text}");
    let seen = |service: &str| {
        let files = app["services"][service]["grants"]["files"].as_array();
        let files = files.expect("a list").iter().map(|file| {
            let (secret, guest) = (&file["secret"]["name"], &file["guest"]);
            format!("{} {}", secret.as_str().unwrap(), guest.as_str().unwrap())
        });
        files.collect::<Vec<_>>()
    };
    let wanted = [
        "db-password /run/secrets/db_password",
        "token /run/secrets/api-token",
        "token /etc/token",
    ];
    assert_eq!(seen("web"), wanted);
    let wanted = [
        "db-password /run/secrets/db_password",
        "later /run/secrets/later",
    ];
    assert_eq!(seen("worker"), wanted);
    let joined = text.replace("\n# ", " ");
    for line in [
        "line 9: `mode` of secret `token`: a guest has no users",
        "line 11: secret `kept_by_swarm`: it is external: the container engine keeps its value",
        "line 12: secret `undeclared`: there is no such secret in the file",
        "line 13: secret `odd`: `file` of a secret is a path without variables",
        "line 23: there is no file `later.txt` yet",
    ] {
        assert!(joined.contains(line), "`{line}` is not in {text}");
    }
}
