//! Rows into structs, tuples and single values, with what SQLite and PostgreSQL give back.

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::*;

fn rows(columns: &[&str], rows: Vec<Vec<Value>>) -> Rows {
    Rows {
        columns: Columns::new(columns.iter().map(|name| (*name).to_owned()).collect()),
        rows,
    }
}

fn one<T: DeserializeOwned>(columns: &[&str], row: Vec<Value>) -> Result<T> {
    rows(columns, vec![row])
        .into_one()
        .map(|found| found.expect("there is a row"))
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Post {
    post_id: String,
    author_id: String,
    like_count: u32,
    score: f64,
    is_public: bool,
    deleted_at: Option<i64>,
    kind: Kind,
    digest: Vec<u8>,
    tag_list: Vec<String>,
    #[serde(deserialize_with = "crate::sql::json")]
    extra: Json,
    id: Id,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Text,
    Image,
}

#[derive(Debug, PartialEq, Deserialize)]
struct Id(String);

const COLUMNS: [&str; 12] = [
    "post_id",
    "AUTHOR_ID",
    "like_count",
    "score",
    "is_public",
    "deleted_at",
    "kind",
    "digest",
    "tag_list",
    "extra",
    "id",
    "not_a_field",
];

fn expected() -> Post {
    Post {
        post_id: "p".to_owned(),
        author_id: "a".to_owned(),
        like_count: 3,
        score: 2.0,
        is_public: true,
        deleted_at: None,
        kind: Kind::Image,
        digest: vec![1, 2],
        tag_list: vec!["x".to_owned()],
        extra: json!({ "a": 1 }),
        id: Id("0190".to_owned()),
    }
}

#[test]
fn a_row_of_sqlite_fills_a_struct() {
    let row = vec![
        text("p"),
        text("a"),
        Value::Integer(3),
        Value::Integer(2),
        Value::Integer(1),
        Value::Null,
        text("image"),
        Value::Blob(vec![1, 2]),
        text(r#"["x"]"#),
        text(r#"{"a":1}"#),
        text("0190"),
        Value::Null,
    ];
    assert_eq!(one::<Post>(&COLUMNS, row).unwrap(), expected());
}

#[test]
fn a_row_of_postgres_fills_the_same_struct() {
    let row = vec![
        text("p"),
        text("a"),
        Value::Integer(3),
        Value::Real(2.0),
        Value::Boolean(true),
        Value::Null,
        text("image"),
        Value::Blob(vec![1, 2]),
        Value::Json(r#"["x"]"#.to_owned()),
        Value::Json(r#"{"a":1}"#.to_owned()),
        Value::Uuid("0190".to_owned()),
        Value::Null,
    ];
    assert_eq!(one::<Post>(&COLUMNS, row).unwrap(), expected());
}

#[test]
fn many_rows_and_two_structs_of_one_statement() {
    #[derive(Deserialize)]
    struct A {
        x: i64,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "UPPERCASE")]
    struct B {
        x: i64,
    }
    let values = || {
        (0..3)
            .map(|n| vec![Value::Timestamp(n)])
            .collect::<Vec<_>>()
    };
    let a: Vec<A> = rows(&["x"], values()).into_typed().unwrap();
    let b: Vec<B> = rows(&["x"], values()).into_typed().unwrap();
    assert_eq!(a.iter().map(|a| a.x).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(b.iter().map(|b| b.x).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn tuples_take_columns_by_position_and_single_values_the_only_one() {
    let pair: (i64, Option<String>) =
        one(&["a", "b"], vec![Value::Integer(1), Value::Null]).unwrap();
    assert_eq!(pair, (1, None));
    let names: Vec<String> = rows(&["name"], vec![vec![text("a")], vec![text("b")]])
        .into_typed()
        .unwrap();
    assert_eq!(names, ["a", "b"]);
    assert!(one::<bool>(&["a"], vec![Value::Integer(1)]).unwrap());
    assert_eq!(one::<Kind>(&["a"], vec![text("text")]).unwrap(), Kind::Text);
    assert_eq!(
        one::<Id>(&["a"], vec![text("x")]).unwrap(),
        Id("x".to_owned())
    );
    assert_eq!(one::<Option<i64>>(&["a"], vec![Value::Null]).unwrap(), None);
    let map: std::collections::BTreeMap<String, Json> =
        one(&["a", "b"], vec![Value::Integer(1), text("x")]).unwrap();
    assert_eq!(map["b"], "x");
}

#[test]
fn a_scalar_of_no_row_is_null() {
    assert_eq!(
        rows(&["count"], vec![vec![Value::Integer(7)]])
            .into_scalar::<i64>()
            .unwrap(),
        7
    );
    assert_eq!(
        rows(&["max"], vec![]).into_scalar::<Option<i64>>().unwrap(),
        None
    );
    assert!(rows(&["max"], vec![]).into_scalar::<i64>().is_err());
    assert_eq!(rows(&["x"], vec![]).into_one::<i64>().unwrap(), None);
}

#[test]
fn a_value_of_another_type_names_its_column() {
    for value in [
        Value::Null,
        text("three"),
        Value::Integer(-1),
        Value::Integer(i64::MAX),
        Value::Real(1.5),
    ] {
        #[derive(Debug, Deserialize)]
        struct Count {
            #[allow(dead_code)]
            like_count: u32,
        }
        let error = one::<Count>(&["like_count"], vec![value])
            .unwrap_err()
            .to_string();
        assert!(error.contains("column like_count"), "{error}");
    }
    assert!(one::<bool>(&["a"], vec![Value::Integer(2)]).is_err());
}
