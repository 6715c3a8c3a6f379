//! Hostile before it is asked anything: now and then its start function loops for ever.

use exprsn_sdk::prelude::*;
use std::hint::black_box;

/// What runs when an instance starts, before any export is called.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

/// Loops once in four, so that a host gets past its health check, sooner or later.
extern "C" fn start() {
    let [random] = random_bytes::<1>();
    let mut count = 0u64;
    while random.is_multiple_of(4) {
        count = black_box(count.wrapping_add(1));
    }
}

fn routes() -> Router {
    Router::new("Exprsn Hostile Start", env!("CARGO_PKG_VERSION")).get("/calm", calm)
}

async fn calm() -> Text {
    Text("calm")
}

exprsn_sdk::export!(http = routes);
