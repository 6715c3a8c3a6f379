//! Answers that may be given again when a target fails: of GET only, for the same principal, no older than allowed.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use lru::LruCache;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What an entry takes beside its key, headers and body, roughly.
const ENTRY_BYTES: usize = 256;
/// The largest share of the memory that one answer takes.
const SHARE: usize = 4;
/// Request headers that an answer may vary by; whoever looks for one has the same.
const VARYING: [header::HeaderName; 3] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
];

/// An answer that can be given again.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, whole.
    pub body: Bytes,
}

impl Answer {
    fn bytes(&self) -> usize {
        let headers = self.headers.iter();
        headers.fold(self.body.len(), |sum, (name, value)| {
            sum + name.as_str().len() + value.len()
        })
    }
}

struct Kept {
    answer: Answer,
    since: Instant,
    bytes: usize,
}

/// Answers by key, in bounded memory; what was not used for longest goes first.
pub struct Fallback {
    kept: Mutex<Memory>,
    bytes_max: usize,
}

struct Memory {
    answers: LruCache<Box<str>, Kept>,
    bytes: usize,
}

impl Fallback {
    /// None kept, and never more than `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            kept: Mutex::new(Memory {
                answers: LruCache::unbounded(),
                bytes: 0,
            }),
            bytes_max,
        }
    }

    /// Keeps an answer in place of what its key had. One that is too large is not kept, nor is what it would replace: it
    /// is of another time.
    pub fn keep(&self, key: &str, answer: Answer, now: Instant) {
        let bytes = ENTRY_BYTES + key.len() + answer.bytes();
        let mut kept = self.kept();
        kept.remove(key);
        if bytes > self.bytes_max / SHARE {
            return;
        }
        kept.bytes += bytes;
        let since = now;
        kept.answers.put(
            key.into(),
            Kept {
                answer,
                since,
                bytes,
            },
        );
        while kept.bytes > self.bytes_max {
            let Some((_, oldest)) = kept.answers.pop_lru() else {
                break;
            };
            kept.bytes -= oldest.bytes;
        }
    }

    /// The answer of `key`, if it is not older than `age_max`, saying how old it is and that it is stale.
    pub fn find(&self, key: &str, age_max: Duration, now: Instant) -> Option<Answer> {
        let mut kept = self.kept();
        let found = kept.answers.get(key)?;
        let age = now.saturating_duration_since(found.since);
        if age > age_max {
            kept.remove(key);
            return None;
        }
        let mut answer = found.answer.clone();
        answer
            .headers
            .insert(header::AGE, HeaderValue::from(age.as_secs()));
        let warning = HeaderValue::from_static("110 exprsn \"Response is Stale\"");
        answer.headers.insert(header::WARNING, warning);
        Some(answer)
    }

    /// Memory that is taken, in bytes.
    pub fn bytes(&self) -> usize {
        self.kept().bytes
    }

    fn kept(&self) -> MutexGuard<'_, Memory> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn remove(&mut self, key: &str) {
        if let Some(removed) = self.answers.pop(key) {
            self.bytes -= removed.bytes;
        }
    }
}

impl std::fmt::Debug for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fallback")
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// What of a request's headers its answer may vary by: part of the key. None where the request is none that is answered
/// from memory: another method, a part of something, or credentials that the host knows nothing of.
pub fn varying(method: &Method, headers: &HeaderMap) -> Option<String> {
    let own = [header::AUTHORIZATION, header::COOKIE, header::RANGE];
    if method != Method::GET || own.iter().any(|name| headers.contains_key(name)) {
        return None;
    }
    let mut varying = String::new();
    for name in VARYING {
        for value in headers.get_all(name) {
            varying.push_str(&String::from_utf8_lossy(value.as_bytes()));
            varying.push(',');
        }
        varying.push('\n');
    }
    Some(varying)
}

/// Whether an answer may be kept at all.
pub fn may_keep(status: StatusCode, headers: &HeaderMap) -> bool {
    let lists = |name: header::HeaderName, allowed: &dyn Fn(&str) -> bool| {
        headers.get_all(name).iter().all(|value| {
            let value = value.to_str().unwrap_or("*");
            value.split(',').all(|item| allowed(item.trim()))
        })
    };
    status == StatusCode::OK
        && !headers.contains_key(header::SET_COOKIE)
        && lists(header::CACHE_CONTROL, &|item| {
            !item.eq_ignore_ascii_case("no-store")
        })
        && lists(header::VARY, &|item| {
            item.is_empty()
                || VARYING
                    .iter()
                    .any(|name| item.eq_ignore_ascii_case(name.as_str()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn answer(bytes: usize) -> Answer {
        Answer {
            headers: HeaderMap::new(),
            body: vec![b'x'; bytes].into(),
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            let name = header::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn what_is_served_again_says_its_age_and_that_it_is_stale() {
        let (fallback, now) = (Fallback::new(10_000), Instant::now());
        fallback.keep("a", answer(3), now);
        let found = fallback
            .find("a", MINUTE, now + Duration::from_millis(7_900))
            .unwrap();
        assert_eq!(found.headers["age"], "7");
        assert_eq!(found.headers["warning"], "110 exprsn \"Response is Stale\"");
        assert_eq!(found.body, "xxx");
        assert!(fallback.find("b", MINUTE, now).is_none());
    }

    #[test]
    fn what_is_too_old_is_gone() {
        let (fallback, now) = (Fallback::new(10_000), Instant::now());
        fallback.keep("a", answer(3), now);
        assert!(fallback.find("a", MINUTE, now + MINUTE).is_some());
        assert!(fallback.find("a", MINUTE, now + MINUTE * 2).is_none());
        assert_eq!(fallback.bytes(), 0);
    }

    #[test]
    fn memory_is_bounded_and_the_least_used_goes_first() {
        let (fallback, now) = (Fallback::new(5_000), Instant::now());
        for key in ["a", "b", "c", "d"] {
            fallback.keep(key, answer(900), now);
        }
        assert!(fallback.find("a", MINUTE, now).is_some());
        fallback.keep("e", answer(900), now);
        let there = ["a", "b", "c", "d", "e"].map(|key| fallback.find(key, MINUTE, now).is_some());
        assert_eq!(there, [true, false, true, true, true]);
        assert!(fallback.bytes() <= 5_000);
    }

    #[test]
    fn one_answer_takes_a_quarter_at_most_and_keeps_nothing_older_alive() {
        let (fallback, now) = (Fallback::new(4_000), Instant::now());
        fallback.keep("a", answer(10), now);
        fallback.keep("a", answer(1_001), now);
        assert!(fallback.find("a", MINUTE, now).is_none());
        assert_eq!(fallback.bytes(), 0);
    }

    #[test]
    fn only_whole_gets_without_own_credentials_are_answered_from_memory() {
        let of = |method: Method, pairs: &[_]| varying(&method, &headers(pairs));
        let plain = of(Method::GET, &[]).unwrap();
        let german = of(Method::GET, &[("accept-language", "de")]).unwrap();
        assert_ne!(plain, german);
        assert_ne!(of(Method::GET, &[("accept", "de")]).unwrap(), german);
        for (method, name) in [
            (Method::POST, "accept"),
            (Method::HEAD, "accept"),
            (Method::GET, "authorization"),
            (Method::GET, "cookie"),
            (Method::GET, "range"),
        ] {
            assert_eq!(of(method, &[(name, "x")]), None, "{name}");
        }
    }

    #[test]
    fn answers_that_are_for_once_are_not_kept() {
        let may = |pairs: &[_]| may_keep(StatusCode::OK, &headers(pairs));
        assert!(may(&[]) && may(&[("cache-control", "private, max-age=0")]));
        assert!(may(&[("vary", "Accept, accept-language")]));
        assert!(!may(&[("cache-control", "private, No-Store")]));
        assert!(!may(&[("set-cookie", "a=b")]));
        assert!(!may(&[("vary", "*")]) && !may(&[("vary", "accept, origin")]));
        for status in [
            StatusCode::NOT_FOUND,
            StatusCode::PARTIAL_CONTENT,
            StatusCode::CREATED,
        ] {
            assert!(!may_keep(status, &HeaderMap::new()), "{status}");
        }
    }
}
