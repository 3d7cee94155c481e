//! Talks to a TCP server through the sockets of WASI 0.3.
//!
//! | request | answer |
//! |---|---|
//! | `GET /tcp?at=ADDRESS:PORT` | `connected`, or why not |
//! | `GET /say?at=ADDRESS:PORT&text=…` | what the server says after the text, until it closes the connection |
//! | `GET /lookup?name=HOST` | the addresses of the name, one a line |
//! | `GET /many?at=ADDRESS:PORT&count=N` | how many connections could be open at once |
//! | `GET /many?at=…&count=N&keep=streams` | the same, of which only the streams are kept |

use std::net::{IpAddr, SocketAddr};

use request_target::Target;
use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode as HttpError, Fields, Request, Response};
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
    TcpSocket,
};
use wasip3::wit_bindgen::rt::async_support::StreamResult;
use wasip3::wit_bindgen::spawn_local;
use wasip3::{wit_future, wit_stream};

/// The most that is read at a time, in bytes.
const PIECE: usize = 64 << 10;

struct Sockets;

wasip3::http::service::export!(Sockets);

impl Guest for Sockets {
    async fn handle(request: Request) -> Result<Response, HttpError> {
        let target = Target::parse(&request.get_path_with_query().unwrap_or_default());
        let Some(target) = target else {
            return Ok(text(400, "bad request target\n"));
        };
        let value = |name: &str| target.value(name).unwrap_or_default().to_owned();
        let at = value("at").parse::<SocketAddr>();
        let told = match (target.path.as_str(), at) {
            ("/tcp", Ok(at)) => connect(at).await.map(|_| "connected\n".to_owned()),
            ("/say", Ok(at)) => say(at, value("text")).await,
            ("/lookup", _) => lookup(value("name")).await,
            ("/many", Ok(at)) => {
                let count = target.number("count", 0).unwrap_or(0);
                many(at, count, value("keep") == "streams").await
            }
            ("/tcp" | "/say" | "/many", Err(_)) => return Ok(text(400, "`at` is no address\n")),
            _ => return Ok(text(404, "not found\n")),
        };
        Ok(match told {
            Ok(told) => text(200, &told),
            Err(error) => text(502, &format!("{error}\n")),
        })
    }
}

async fn connect(at: SocketAddr) -> Result<TcpSocket, String> {
    let (family, address) = match at {
        SocketAddr::V4(at) => {
            let [a, b, c, d] = at.ip().octets();
            let address = Ipv4SocketAddress {
                port: at.port(),
                address: (a, b, c, d),
            };
            (IpAddressFamily::Ipv4, IpSocketAddress::Ipv4(address))
        }
        SocketAddr::V6(at) => {
            let [a, b, c, d, e, f, g, h] = at.ip().segments();
            let address = Ipv6SocketAddress {
                port: at.port(),
                flow_info: 0,
                address: (a, b, c, d, e, f, g, h),
                scope_id: 0,
            };
            (IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(address))
        }
    };
    let socket = TcpSocket::create(family).map_err(|error| name(&error))?;
    socket
        .connect(address)
        .await
        .map_err(|error| name(&error))?;
    Ok(socket)
}

async fn say(at: SocketAddr, said: String) -> Result<String, String> {
    let socket = connect(at).await?;
    let (mut writer, reader) = wit_stream::new();
    let sent = socket.send(reader);
    let (mut answer, received) = socket.receive();
    writer.write_all(said.into_bytes()).await;
    drop(writer);
    sent.await.map_err(|error| name(&error))?;
    let mut told = Vec::new();
    let mut buffer = Vec::with_capacity(PIECE);
    while let (StreamResult::Complete(_), read) = answer.read(buffer).await {
        told.extend_from_slice(&read);
        buffer = read;
        buffer.clear();
    }
    received.await.map_err(|error| name(&error))?;
    Ok(String::from_utf8_lossy(&told).into_owned())
}

async fn lookup(host: String) -> Result<String, String> {
    let addresses = resolve_addresses(host)
        .await
        .map_err(|error| format!("{error:?}"))?;
    let lines = addresses.into_iter().map(|address| {
        let address: IpAddr = match address {
            IpAddress::Ipv4((a, b, c, d)) => [a, b, c, d].into(),
            IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => [a, b, c, d, e, f, g, h].into(),
        };
        format!("{address}\n")
    });
    Ok(lines.collect())
}

async fn many(at: SocketAddr, count: u64, streams_only: bool) -> Result<String, String> {
    let (mut sockets, mut streams) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let Ok(socket) = connect(at).await else {
            break;
        };
        match streams_only {
            true => streams.push(socket.receive()),
            false => sockets.push(socket),
        }
    }
    Ok(format!("{}\n", sockets.len() + streams.len()))
}

/// The name of an error, and what it says.
fn name(error: &ErrorCode) -> String {
    format!("{error:?}").replace("ErrorCode::", "")
}

fn text(status: u16, text: &str) -> Response {
    let headers = Fields::new();
    // `set` fails only for a malformed or forbidden header, and this one is neither.
    let _ = headers.set("content-type", &[b"text/plain".to_vec()]);
    let (mut body, body_reader) = wit_stream::new();
    let (_, no_trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(headers, Some(body_reader), no_trailers);
    let _ = response.set_status_code(status);
    let bytes = text.as_bytes().to_vec();
    spawn_local(async move {
        body.write_all(bytes).await;
    });
    response
}
