//! The document of a sample router: its structure, and that it says what the types do.

use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Router;
use crate::extract::{IdempotencyKey, Path, User};
use crate::page::{Page, PageQuery};
use crate::problem::Result;
use crate::response::{Created, Json, NoContent};

#[derive(Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewNote {
    /// What it says.
    #[garde(length(chars, min = 1, max = 500))]
    note_text: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Note {
    id: String,
}

async fn list(_: crate::extract::Query<PageQuery>) -> Result<Json<Page<Note>>> {
    unreachable!()
}

async fn create(_: User, _: IdempotencyKey, _: Json<NewNote>) -> Result<Created<Note>> {
    unreachable!()
}

async fn remove(_: Path<String>) -> Result<NoContent> {
    unreachable!()
}

fn document() -> Value {
    Router::new("Notes", "1.2.3")
        .get("/api/notes", list)
        .summary("Lists notes")
        .public()
        .post("/api/notes", create)
        .problems(&[409])
        .delete("/api/notes/{id}", remove)
        .tag("Notes")
        .get("/files/{*rest}", remove)
        .openapi()
}

/// Every `$ref` of a value.
fn references<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => {
            out.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|member| references(member, out));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        _ => {}
    }
}

#[test]
fn the_document_is_openapi_3_1() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(
        (&document["info"]["title"], &document["info"]["version"]),
        (&"Notes".into(), &"1.2.3".into())
    );
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            assert!(
                responses.keys().any(|status| status.starts_with('2')),
                "{method} {path} never succeeds"
            );
            for name in path
                .split('{')
                .skip(1)
                .map(|rest| rest.split('}').next().unwrap())
            {
                let found = operation["parameters"].as_array().unwrap().iter();
                assert!(
                    found
                        .clone()
                        .any(|p| p["name"] == name && p["in"] == "path" && p["required"] == true),
                    "{path}"
                );
            }
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 10);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[test]
fn types_become_bodies_and_answers() {
    let document = document();
    let create = &document["paths"]["/api/notes"]["post"];
    let body = &create["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    assert_eq!(body, "#/components/schemas/NewNote");
    let schema = &document["components"]["schemas"]["NewNote"];
    assert_eq!(schema["properties"]["noteText"]["maxLength"], 500);
    assert_eq!(
        schema["properties"]["noteText"]["description"],
        "What it says."
    );
    assert_eq!(
        (&schema["required"][0], &schema["additionalProperties"]),
        (&"noteText".into(), &false.into())
    );
    assert!(create["responses"]["201"]["content"]["application/json"].is_object());
    for status in [
        "400", "401", "403", "409", "413", "415", "422", "429", "503",
    ] {
        assert_eq!(
            create["responses"][status]["$ref"],
            format!("#/components/responses/Problem{status}"),
            "{status}"
        );
    }
    let problem =
        &document["components"]["responses"]["Problem422"]["content"]["application/problem+json"];
    assert_eq!(problem["schema"]["$ref"], "#/components/schemas/Problem");
    let items = document["paths"]["/api/notes"]["get"]["responses"]["200"].to_string();
    assert!(items.contains("Page"), "{items}");
}

#[test]
fn queries_headers_and_access_are_said() {
    let document = document();
    let list = &document["paths"]["/api/notes"]["get"];
    assert_eq!(
        (&list["summary"], &list["security"]),
        (&"Lists notes".into(), &Value::Array(vec![]))
    );
    let limit = list["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .find(|p| p["name"] == "limit")
        .unwrap();
    assert_eq!(
        (&limit["in"], &limit["required"]),
        (&"query".into(), &false.into())
    );
    assert_eq!(
        (&limit["schema"]["minimum"], &limit["schema"]["maximum"]),
        (&1.into(), &100.into())
    );
    assert!(limit["description"].is_string());
    let create = &document["paths"]["/api/notes"]["post"];
    assert_eq!(create["security"], serde_json::json!([{ "bearer": [] }]));
    assert!(
        create["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["in"] == "header")
    );
    assert_eq!(
        document["paths"]["/api/notes/{id}"]["delete"]["tags"][0],
        "Notes"
    );
    assert!(document["paths"]["/files/{rest}"]["get"].is_object());
}
