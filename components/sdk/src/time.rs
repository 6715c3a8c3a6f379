//! The clock and waiting. Pure code takes the time as a parameter instead.

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> i64 {
    let (seconds, nanoseconds) = now();
    seconds * 1000 + i64::from(nanoseconds / 1_000_000)
}

/// Seconds since the Unix epoch.
pub fn now_s() -> i64 {
    now().0
}

#[cfg(target_family = "wasm")]
fn now() -> (i64, u32) {
    let now = crate::bindings::wasi::clocks::system_clock::now();
    (now.seconds, now.nanoseconds)
}

#[cfg(not(target_family = "wasm"))]
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
fn now() -> (i64, u32) {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    (now.as_secs().cast_signed(), now.subsec_nanos())
}

/// Milliseconds on a clock that never goes back, for measuring.
pub fn monotonic_ms() -> u64 {
    crate::bindings::wasi::clocks::monotonic_clock::now() / 1_000_000
}

/// Waits without using the processor.
pub async fn sleep_ms(ms: u64) {
    crate::bindings::wasi::clocks::monotonic_clock::wait_for(ms.saturating_mul(1_000_000)).await;
}
