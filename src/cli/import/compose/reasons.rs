//! Why a key of a container has no counterpart for a guest.

/// Keys, and why they are left out. A key that is not here has nothing like it.
const REASONS: &[(&[&str], &str)] = &[
    (
        &[
            "networks",
            "network_mode",
            "links",
            "external_links",
            "extra_hosts",
            "dns",
            "dns_search",
            "dns_opt",
            "mac_address",
            "expose",
        ],
        "services of an app share one network, on which names are found; `allow` says what each may reach",
    ),
    (
        &[
            "privileged",
            "cap_add",
            "cap_drop",
            "devices",
            "device_cgroup_rules",
            "security_opt",
            "userns_mode",
            "user",
            "group_add",
            "sysctls",
            "gpus",
            "runtime",
            "cgroup",
            "cgroup_parent",
            "credential_spec",
        ],
        "a guest has no rights of the system's that could be given or taken: it has what `allow` lends",
    ),
    (
        &[
            "command",
            "entrypoint",
            "working_dir",
            "post_start",
            "pre_stop",
        ],
        "it starts a program in a container, and a component is one; `args` are for what exports `wasi:cli/run`",
    ),
    (
        &[
            "container_name",
            "hostname",
            "domainname",
            "labels",
            "label_file",
            "annotations",
            "attach",
        ],
        "pods have names of their own, and a service has one name, under which others call it",
    ),
    (
        &["logging"],
        "what guests print is kept by the node: `sampan logs`",
    ),
    (
        &[
            "tty",
            "stdin_open",
            "init",
            "ipc",
            "pid",
            "uts",
            "shm_size",
            "isolation",
            "platform",
            "pull_policy",
            "oom_score_adj",
            "oom_kill_disable",
            "stop_signal",
            "storage_opt",
            "mem_swappiness",
            "memswap_limit",
            "mem_reservation",
            "blkio_config",
            "cpu_shares",
            "cpuset",
            "cpu_count",
            "cpu_percent",
            "cpu_period",
            "cpu_quota",
            "ulimits",
            "pids_limit",
            "read_only",
        ],
        "a guest is no process: there is nothing like it here",
    ),
    (
        &["tmpfs"],
        "a guest has no file system of its own; a volume keeps files: `allow.files`",
    ),
    (
        &["develop"],
        "`watch` beside `build` names the sources whose change builds the component again",
    ),
    (
        &["extends"],
        "only this file was read: write here what the other one says of the service",
    ),
    (
        &["configs"],
        "a file is lent by `allow.files`, with its directory",
    ),
    (&["provider", "models"], "it is for Compose's own plugins"),
];

/// Why a key is left out.
pub(super) fn why(key: &str) -> &'static str {
    let found = REASONS.iter().find(|(keys, _)| keys.contains(&key));
    found.map_or("there is nothing like it here", |(_, why)| why)
}
