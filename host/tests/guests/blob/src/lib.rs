//! A test guest that keeps objects as it is told, and says plainly what became of it.

use exprsn_sdk::blob::{Error, ObjectInfo, Write};
use exprsn_sdk::prelude::*;
use exprsn_sdk::stream;
use serde_json::Value as Any;

/// Bytes in one chunk of a made-up object.
const CHUNK_BYTES: usize = 64 << 10;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wish {
    container: String,
    #[serde(default)]
    name: String,
    #[serde(flatten)]
    call: Call,
}

#[derive(Deserialize)]
#[serde(
    tag = "call",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
enum Call {
    Create,
    DeleteContainer,
    Exists,
    Containers,
    Info,
    Get {
        offset: Option<u64>,
        length: Option<u64>,
    },
    Put {
        content: String,
        content_type: Option<String>,
        if_etag: Option<String>,
        #[serde(default)]
        if_absent: bool,
    },
    List {
        #[serde(default)]
        prefix: String,
        cursor: Option<String>,
        limit: Option<u32>,
    },
    Delete,
    Copy {
        to_container: String,
        to_name: String,
    },
    /// Writes chunks that are made up one by one, and answers what the host says of them.
    Fill {
        chunks: u64,
        size: Option<u64>,
        #[serde(default)]
        end: End,
    },
    /// Reads an object as a stream and keeps a sum of it alone.
    Sum,
    /// Opens streams without reading them, and says how many there could be.
    Hold {
        streams: usize,
    },
}

/// What follows the last chunk.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum End {
    #[default]
    Complete,
    /// The source breaks off.
    Break,
    /// The writer never hears of the end.
    Hang,
    Trap,
}

fn shown(info: ObjectInfo) -> Any {
    json!({
        "name": info.name, "size": info.size, "contentType": info.content_type, "etag": info.etag,
        "sha256": info.sha256, "modifiedAt": info.modified_at,
    })
}

async fn on_blob(
    Wish {
        container,
        name,
        call,
    }: Wish,
) -> Result<Any, Error> {
    let done = |()| Any::Null;
    match call {
        Call::Create => blob::create_container(&container).await.map(done),
        Call::DeleteContainer => blob::delete_container(&container).await.map(done),
        Call::Exists => Ok(json!(blob::container_exists(&container).await?)),
        Call::Containers => Ok(json!(blob::list_containers().await?)),
        Call::Info => blob::info(&container, &name).await.map(shown),
        Call::Get { offset, length } => {
            let range = offset.and_then(|offset| blob::range(offset, length));
            let (info, content) = blob::get(&container, &name, range).await?;
            Ok(json!({ "info": shown(info), "content": String::from_utf8_lossy(&content) }))
        }
        Call::Put {
            content,
            content_type,
            if_etag,
            if_absent,
        } => {
            let mut write = content_type.map_or_else(Write::default, Write::of);
            if if_absent {
                write = write.if_absent();
            }
            if let Some(etag) = if_etag {
                write = write.if_etag(etag);
            }
            blob::put(&container, &name, write, content)
                .await
                .map(shown)
        }
        Call::List {
            prefix,
            cursor,
            limit,
        } => {
            let page = blob::list(&container, &prefix, cursor, limit).await?;
            let names: Vec<_> = page.objects.into_iter().map(|info| info.name).collect();
            Ok(json!({ "names": names, "next": page.next }))
        }
        Call::Delete => blob::delete(&container, &name).await.map(done),
        Call::Copy {
            to_container,
            to_name,
        } => blob::copy((&container, &name), (&to_container, &to_name))
            .await
            .map(shown),
        Call::Fill { chunks, size, end } => fill(&container, &name, chunks, size, end).await,
        Call::Sum => sum(&container, &name).await,
        Call::Hold { streams } => hold(&container, &name, streams).await,
    }
}

async fn fill(
    container: &str,
    name: &str,
    chunks: u64,
    size: Option<u64>,
    end: End,
) -> Result<Any, Error> {
    let made = stream::iter(0..chunks).map(|n| Ok(vec![n as u8; CHUNK_BYTES]));
    let last = stream::once(async move {
        match end {
            End::Complete => None,
            End::Break => Some(Err(Problem::internal())),
            End::Hang => loop {
                sleep_ms(60_000).await;
            },
            End::Trap => panic!("asked to trap"),
        }
    });
    let body = Body::from_stream(
        made.chain(last.filter_map(async |chunk| chunk))
            .boxed_local(),
    );
    let mut write = Write::of("application/x-made-up");
    if let Some(bytes) = size {
        write = write.size(bytes);
    }
    blob::write(container, name, write, body).await.map(shown)
}

async fn sum(container: &str, name: &str) -> Result<Any, Error> {
    let (_, body) = blob::read(container, name, blob::ALL).await?;
    let (mut bytes, mut sum) = (0, 0);
    let mut chunks = body.stream();
    while let Some(chunk) = chunks.next().await {
        let Ok(chunk) = chunk else {
            return Ok(json!("broken off"));
        };
        bytes += chunk.len() as u64;
        sum += chunk.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    }
    Ok(json!({ "bytes": bytes, "sum": sum }))
}

async fn hold(container: &str, name: &str, streams: usize) -> Result<Any, Error> {
    let mut held = Vec::new();
    for _ in 0..streams {
        match blob::read(container, name, blob::ALL).await {
            Ok((_, body)) => held.push(body),
            Err(error) => return Ok(json!({ "held": held.len(), "error": format!("{error:?}") })),
        }
    }
    Ok(json!({ "held": held.len() }))
}

/// Always 200: the tests are about the interface, not about problems.
async fn call(AnyJson(wish): AnyJson) -> Result<AnyJson> {
    let wish = serde_json::from_value(wish)
        .map_err(|error| Problem::bad_request("body", error.to_string()))?;
    Ok(AnyJson(match on_blob(wish).await {
        Ok(answer) => json!({ "ok": answer }),
        Err(error) => json!({ "error": format!("{error:?}") }),
    }))
}

/// As a service would: the request's body becomes the object, the object the response's body.
async fn upload(Path((container, name)): Path<(String, String)>, body: Body) -> Result<AnyJson> {
    let info = blob::write(&container, &name, Write::of("image/png"), body).await?;
    Ok(AnyJson(shown(info)))
}

async fn download(Path((container, name)): Path<(String, String)>) -> Result<Response> {
    let (info, content) = blob::read(&container, &name, blob::ALL).await?;
    Ok(Response::ok()
        .header("content-type", info.content_type)
        .body(content))
}

fn routes() -> Router {
    Router::new("Blob", env!("CARGO_PKG_VERSION"))
        .post("/call", call)
        .public()
        .put("/objects/{container}/{name}", upload)
        .public()
        .get("/objects/{container}/{name}", download)
        .public()
}

exprsn_sdk::export!(http = routes);
