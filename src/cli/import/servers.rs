//! Images of servers that stay containers, and where a guest finds them.

/// A server that people run from a published image.
pub(super) struct Server {
    /// A part of the last word of its image.
    image: &'static str,
    /// Its usual port, and how it is spoken to; none for what no guest calls.
    pub(super) port: Option<(u16, &'static str)>,
}

const fn tcp(image: &'static str, port: u16) -> Server {
    Server {
        image,
        port: Some((port, "tcp")),
    }
}

const fn http(image: &'static str, port: u16) -> Server {
    Server {
        image,
        port: Some((port, "http")),
    }
}

const fn uncalled(image: &'static str) -> Server {
    Server { image, port: None }
}

/// Longer words first where one is in another.
const SERVERS: [Server; 47] = [
    uncalled("pgadmin"),
    uncalled("phpmyadmin"),
    uncalled("adminer"),
    uncalled("mongo-express"),
    uncalled("redis-commander"),
    uncalled("redisinsight"),
    uncalled("portainer"),
    uncalled("watchtower"),
    uncalled("nginx"),
    uncalled("traefik"),
    uncalled("caddy"),
    uncalled("haproxy"),
    uncalled("envoy"),
    uncalled("cloudflared"),
    uncalled("cadvisor"),
    uncalled("node-exporter"),
    http("prometheus", 9090),
    uncalled("grafana"),
    tcp("postgres", 5432),
    tcp("postgis", 5432),
    tcp("timescaledb", 5432),
    tcp("pgvector", 5432),
    tcp("mysql", 3306),
    tcp("mariadb", 3306),
    tcp("mssql", 1433),
    tcp("mongo", 27017),
    tcp("redis", 6379),
    tcp("valkey", 6379),
    tcp("memcached", 11211),
    tcp("rabbitmq", 5672),
    tcp("nats", 4222),
    tcp("kafka", 9092),
    tcp("redpanda", 9092),
    tcp("zookeeper", 2181),
    tcp("cassandra", 9042),
    tcp("mosquitto", 1883),
    tcp("neo4j", 7687),
    tcp("etcd", 2379),
    http("elasticsearch", 9200),
    http("opensearch", 9200),
    http("clickhouse", 8123),
    http("influxdb", 8086),
    http("minio", 9000),
    http("localstack", 4566),
    http("ollama", 11434),
    tcp("mailhog", 1025),
    tcp("mailpit", 1025),
];

impl Server {
    /// The server that an image has, by its name without registry, tag and digest.
    pub(super) fn of(image: &str) -> Option<&'static Self> {
        let image = image.split('@').next().unwrap_or_default();
        let last = image.rsplit('/').next().unwrap_or_default();
        let word = last.split(':').next().unwrap_or_default();
        SERVERS.iter().find(|server| word.contains(server.image))
    }

    /// Whether it stands in front of services and hands requests on.
    pub(super) fn is_proxy(&self) -> bool {
        matches!(
            self.image,
            "nginx" | "traefik" | "caddy" | "haproxy" | "envoy"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_last_word() {
        let port = |image| Server::of(image).map(|it| it.port.map(|(port, _)| port));
        for (image, wanted) in [
            ("postgres:16-alpine", Some(Some(5432))),
            ("docker.io/bitnami/redis@sha256:00", Some(Some(6379))),
            ("mongo-express", Some(None)),
            ("localhost:5000/team/api:1", None),
            ("nginx", Some(None)),
        ] {
            assert_eq!(port(image), wanted, "{image}");
        }
        assert!(Server::of("nginx").is_some_and(Server::is_proxy));
    }
}
