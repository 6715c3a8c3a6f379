//! Sockets: talks by TCP as it is told, and says plainly what became of each step.

use exprsn_sdk::bindings::exprsn::sockets::types::TlsMode;
use exprsn_sdk::prelude::*;
use exprsn_sdk::sockets::{Connection, Error};
use serde_json::Value as Any;

#[derive(Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[garde(allow_unvalidated)]
struct Talk {
    host: String,
    port: u16,
    #[serde(default)]
    tls: bool,
    timeout_ms: Option<u64>,
    #[serde(default)]
    steps: Vec<Step>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Step {
    Send(String),
    /// That many bytes.
    SendZeros(usize),
    Receive(u32),
    /// Until the peer sends no more.
    ReceiveAll,
    Line(usize),
    TimeoutMs(u64),
    StartTls,
    Shutdown,
    Peer,
    Secure,
}

#[derive(Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
#[garde(allow_unvalidated)]
struct Hold {
    port: u16,
    count: usize,
}

fn routes() -> Router {
    Router::new("Exprsn Sockets", env!("CARGO_PKG_VERSION"))
        .post("/talk", talk)
        .post("/hold", hold)
}

/// Connects and takes the steps one after the other, also after one has failed.
async fn talk(Json(talk): Json<Talk>) -> AnyJson {
    let mode = if talk.tls {
        TlsMode::Tls
    } else {
        TlsMode::None
    };
    let connection = match Connection::open(&talk.host, talk.port, mode, talk.timeout_ms).await {
        Ok(connection) => connection,
        Err(error) => return AnyJson(json!({ "error": told(&error) })),
    };
    let mut steps = Vec::new();
    for step in talk.steps {
        steps.push(match take(&connection, step).await {
            Ok(answer) => json!({ "ok": answer }),
            Err(error) => json!({ "error": told(&error) }),
        });
    }
    connection.close().await;
    AnyJson(json!({ "steps": steps }))
}

async fn take(connection: &Connection, step: Step) -> Result<Any, Error> {
    let text = |bytes: Vec<u8>| Any::from(String::from_utf8_lossy(&bytes).into_owned());
    match step {
        Step::Send(bytes) => connection.send(bytes).await.map(|()| Any::Null),
        Step::SendZeros(count) => connection.send(vec![0; count]).await.map(|()| Any::Null),
        Step::Receive(max) => Ok(connection.receive(max).await?.map_or(Any::Null, text)),
        Step::ReceiveAll => {
            let mut all = Vec::new();
            while let Some(bytes) = connection.receive(1 << 20).await? {
                all.extend(bytes);
            }
            Ok(text(all))
        }
        Step::Line(max) => Ok(connection.receive_line(max).await?.into()),
        Step::TimeoutMs(ms) => {
            connection.set_timeout_ms(ms);
            Ok(Any::Null)
        }
        Step::StartTls => connection.start_tls().await.map(|()| Any::Null),
        Step::Shutdown => connection.shutdown().await.map(|()| Any::Null),
        Step::Peer => {
            let (local, peer) = (connection.local_address(), connection.peer_address());
            Ok(json!({ "local": local.ip, "ip": peer.ip, "port": peer.port }))
        }
        Step::Secure => Ok(connection.is_secure().into()),
    }
}

fn told(error: &Error) -> String {
    format!("{error:?}")
}

/// Opens connections, holds them all, and says what became of each.
async fn hold(Json(hold): Json<Hold>) -> AnyJson {
    let mut held = Vec::new();
    for _ in 0..hold.count {
        held.push(Connection::connect("127.0.0.1", hold.port).await);
    }
    let told = held.iter().map(|outcome| match outcome {
        Ok(_) => "open".to_owned(),
        Err(error) => told(error),
    });
    AnyJson(told.collect())
}

exprsn_sdk::export!(http = routes);
