//! Hostile: does what a service must not do, so that tests see who is harmed by it.

use exprsn_sdk::prelude::*;
use std::hint::black_box;

fn routes() -> Router {
    Router::new("Exprsn Hostile", env!("CARGO_PKG_VERSION"))
        .get("/calm", calm)
        .get("/loop", endless_loop)
        .get("/allocate", allocate)
        .get("/trap", trap)
        .get("/recurse", recurse)
        .get("/endless", endless_body)
        .get("/sleep", sleep)
        .get("/call/{service}", call)
}

async fn calm() -> Text {
    Text("calm")
}

async fn endless_loop() -> Text {
    let mut count = 0u64;
    loop {
        count = black_box(count.wrapping_add(1));
    }
}

async fn allocate() -> Text {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1u8; 1 << 20]));
    }
}

async fn trap() -> Text {
    panic!("a trap was asked for")
}

async fn recurse() -> Text {
    fn deeper(depth: u64) -> u64 {
        let here = black_box([depth; 64]);
        deeper(depth + 1).wrapping_add(here[usize::try_from(depth % 64).unwrap_or(0)])
    }
    Text(deeper(0).to_string())
}

async fn endless_body() -> Response {
    let chunks = exprsn_sdk::stream::repeat_with(|| Ok(vec![b'x'; 64 << 10]));
    Response::ok()
        .header("content-type", "text/plain")
        .body(Body::from_stream(chunks))
}

async fn sleep() -> Text {
    log::info!("going to sleep");
    sleep_ms(60_000).await;
    Text("woke up")
}

async fn call(Path(service): Path<String>) -> Result<Response> {
    let answer = http::get(format!("http://{service}/")).send().await?;
    Ok(Response::new(answer.status()))
}

exprsn_sdk::export!(http = routes);
