//! Identifiers and randomness from the host.

use std::cell::{Cell, RefCell};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::time::now_ms;

/// Random bytes asked of the host at a time.
const POOL_BYTES: usize = 256;

thread_local! {
    static POOL: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static LAST: Cell<(i64, u16)> = const { Cell::new((0, 0)) };
}

/// A UUID of version 7 (RFC 9562): sortable by time, in the order of making within an instance.
pub fn uuid_v7() -> String {
    uuid_v7_at(now_ms())
}

/// A UUID of version 7 for an instant in milliseconds since the Unix epoch.
pub fn uuid_v7_at(ms: i64) -> String {
    let mut random = random_bytes::<10>();
    // RFC 9562 §6.2 method 1: 12 bits count within a millisecond, from a random start in the lower half.
    let count = LAST.with(|last| {
        let count = match last.get() {
            (at, count) if at == ms => count.wrapping_add(1) & 0xfff,
            _ => u16::from_be_bytes([random[0], random[1]]) & 0x7ff,
        };
        last.set((ms, count));
        count
    });
    [random[0], random[1]] = count.to_be_bytes();
    let ms = u64::try_from(ms).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(ms, &random)
        .into_uuid()
        .to_string()
}

/// Random bytes fit for secrets.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// A random secret of `n` bytes in base64url without padding: 32 bytes make 43 characters.
pub fn random_token(n: usize) -> String {
    let mut bytes = vec![0; n];
    fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn fill(bytes: &mut [u8]) {
    POOL.with_borrow_mut(|pool| {
        if pool.len() < bytes.len() {
            *pool = entropy(bytes.len().max(POOL_BYTES));
        }
        // Taken off the end, so that no byte is given out twice.
        let rest = pool.split_off(pool.len() - bytes.len());
        bytes.copy_from_slice(&rest);
    });
}

#[cfg(target_family = "wasm")]
fn entropy(n: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(n);
    // The host may answer with fewer bytes than asked for.
    while bytes.len() < n {
        bytes.extend(crate::bindings::wasi::random::random::get_random_bytes(
            (n - bytes.len()) as u64,
        ));
    }
    bytes
}

/// Natively only tests run, which need difference and not secrecy.
#[cfg(not(target_family = "wasm"))]
fn entropy(n: usize) -> Vec<u8> {
    use std::hash::{BuildHasher, RandomState};
    let state = RandomState::new();
    (0..n).map(|i| state.hash_one(i).to_be_bytes()[0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_in_the_order_of_making() {
        let ids: Vec<String> = (0..1000).map(|_| uuid_v7_at(1_700_000_000_000)).collect();
        assert!(ids.is_sorted());
        assert_eq!(&ids[0][14..15], "7");
        assert!(matches!(&ids[0][19..20], "8" | "9" | "a" | "b"));
        assert!(ids[999] < uuid_v7_at(1_700_000_000_001));
    }

    #[test]
    fn tokens_have_the_length_and_differ() {
        assert_eq!(random_token(32).len(), 43);
        assert_ne!(random_token(300), random_token(300));
    }
}
