//! Pages with opaque cursors.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use garde::Validate;
use schemars::JsonSchema;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::problem::{Problem, Result};

/// Items on a page when the client names no number.
pub const LIMIT_DEFAULT: i64 = 20;
/// Most items on a page.
pub const LIMIT_MAX: i64 = 100;
/// Longest cursor that is looked at, in bytes.
const CURSOR_BYTES_MAX: usize = 1024;

/// Which page: `?limit=20&cursor=…`. `#[serde(flatten)]` it into a query of one's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Validate)]
pub struct PageQuery {
    /// How many items at most, 1 to 100; 20 when absent.
    #[serde(default, deserialize_with = "integer")]
    #[garde(range(min = 1, max = LIMIT_MAX))]
    pub limit: Option<i64>,
    /// `nextCursor` of the page before; the first page when absent.
    #[serde(default)]
    #[garde(skip)]
    pub cursor: Option<String>,
}

/// One page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// The cursor of the next page; null on the last.
    pub next_cursor: Option<String>,
}

impl PageQuery {
    /// How many items at most.
    pub fn limit(&self) -> i64 {
        self.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX)
    }

    /// What to ask the database for: one more than the page holds tells whether there is a next one.
    pub fn limit_plus_one(&self) -> i64 {
        self.limit() + 1
    }

    /// Where the page before ended. A cursor that is not one of ours is a problem 400 that names `cursor`.
    pub fn cursor<K: DeserializeOwned>(&self) -> Result<Option<K>> {
        self.cursor.as_deref().map(decode).transpose()
    }

    /// The page of at most [`limit`](Self::limit) items; `key` is what the next cursor holds, the sort key of the last.
    pub fn page<T, K: Serialize>(&self, mut items: Vec<T>, key: impl Fn(&T) -> K) -> Page<T> {
        let limit = usize::try_from(self.limit()).expect("the limit is between 1 and 100");
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(|last| encode(&key(last)));
        Page { items, next_cursor }
    }
}

impl<T> Page<T> {
    /// The same page of other items.
    pub fn map<U>(self, change: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(change).collect(),
            next_cursor: self.next_cursor,
        }
    }
}

/// The cursor that holds a sort key.
pub fn encode<K: Serialize>(key: &K) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(key).expect("sort keys are numbers and strings"))
}

fn decode<K: DeserializeOwned>(cursor: &str) -> Result<K> {
    let bytes = if cursor.len() > CURSOR_BYTES_MAX {
        None
    } else {
        URL_SAFE_NO_PAD.decode(cursor).ok()
    };
    bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| Problem::bad_request("cursor", "is not a cursor of this list"))
}

/// A fuzz target: a cursor that is taken comes back from the key that it holds. `host/fuzz` and the tests run it.
#[doc(hidden)]
pub fn fuzz(input: &[u8]) {
    let query = PageQuery {
        limit: None,
        cursor: Some(String::from_utf8_lossy(input).into_owned()),
    };
    if let Ok(Some(key)) = query.cursor::<(i64, String)>() {
        assert_eq!(decode::<(i64, String)>(&encode(&key)).ok(), Some(key));
    }
}

/// An integer, also as text: flattened into another struct, a query's values arrive as text.
fn integer<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    struct Integer;
    impl Visitor<'_> for Integer {
        type Value = Option<i64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an integer from 1 to 100")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            text.parse()
                .map(Some)
                .map_err(|_| E::custom("must be an integer from 1 to 100"))
        }

        fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
            Ok(Some(value))
        }

        fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
            i64::try_from(value)
                .map(Some)
                .map_err(|_| E::custom("must be an integer from 1 to 100"))
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Integer)
}

#[cfg(test)]
#[path = "../../../host/src/fuzz/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cursor_is_more_than_one_key() {
        let seeds = [encode(&(1, "a")), encode(&(i64::MAX, "")), encode(&"text")];
        let mut numbers = mutate::Numbers::new(1);
        for round in 0..20_000 {
            let seed = seeds[round % seeds.len()].as_bytes();
            let other = seeds[numbers.below(seeds.len())].as_bytes();
            let changed = mutate::mutate(&mut numbers, seed, other, 2 * CURSOR_BYTES_MAX);
            fuzz(&changed);
        }
    }

    #[test]
    fn a_cursor_comes_back_as_the_key_it_was_made_of() {
        let query = PageQuery {
            limit: Some(2),
            cursor: None,
        };
        let page = query.page(vec![(3, "c"), (2, "b"), (1, "a")], |(at, id)| {
            (*at, id.to_string())
        });
        assert_eq!(page.items, [(3, "c"), (2, "b")]);
        let next = PageQuery {
            limit: None,
            cursor: page.next_cursor,
        };
        assert_eq!(
            next.cursor::<(i64, String)>().unwrap(),
            Some((2, "b".to_owned()))
        );
    }

    #[test]
    fn the_last_page_has_no_next() {
        let query = PageQuery {
            limit: Some(2),
            cursor: None,
        };
        assert_eq!(query.page(vec![1, 2], |n| *n).next_cursor, None);
        assert_eq!(query.page(Vec::<i64>::new(), |n| *n).next_cursor, None);
    }

    #[test]
    fn garbage_is_a_problem_that_names_the_cursor() {
        let long = "A".repeat(CURSOR_BYTES_MAX + 1);
        for cursor in [
            "",
            "%%%",
            "bm90IGpzb24",
            &encode(&"a string"),
            &encode(&(1, 2, 3)),
            "'; DROP TABLE",
            &long,
        ] {
            let query = PageQuery {
                limit: None,
                cursor: Some(cursor.to_owned()),
            };
            let problem = query.cursor::<(i64, String)>().unwrap_err();
            assert_eq!(
                (problem.status, problem.errors[0].field.as_str()),
                (400, "cursor"),
                "{cursor}"
            );
        }
    }
}
