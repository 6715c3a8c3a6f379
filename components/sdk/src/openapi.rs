//! OpenAPI 3.1, derived from the types of the handlers.

use http::StatusCode;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::problem::{Document, PROBLEM_JSON};
use crate::router::{About, Router};

/// One operation of the document while its handler's types describe themselves.
pub struct Operation<'a> {
    schemas: &'a mut SchemaGenerator,
    parameters: Vec<Value>,
    request_body: Option<Value>,
    responses: Map<String, Value>,
}

impl Operation<'_> {
    /// The schema of a type, by reference where it has a name.
    pub fn schema<T: JsonSchema>(&mut self) -> Value {
        self.schemas.subschema_for::<T>().to_value()
    }

    /// Adds a parameter object.
    pub fn parameter(&mut self, parameter: Value) {
        self.parameters.push(parameter);
    }

    /// Adds each property of `T` as a query parameter.
    pub fn query<T: JsonSchema>(&mut self) {
        let schema = T::json_schema(self.schemas).to_value();
        let required: Vec<&str> = schema["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let Some(properties) = schema["properties"].as_object() else {
            return;
        };
        for (name, property) in properties {
            let mut property = property.clone();
            let description = property
                .as_object_mut()
                .and_then(|p| p.remove("description"));
            let mut parameter = json!({ "name": name, "in": "query", "required": required.contains(&name.as_str()), "schema": property });
            if let Some(description) = description {
                parameter["description"] = description;
            }
            self.parameters.push(parameter);
        }
    }

    /// Sets the request body to `T` in a media type.
    pub fn request_body<T: JsonSchema>(&mut self, media_type: &str) {
        let schema = self.schema::<T>();
        self.request_body =
            Some(json!({ "required": true, "content": { media_type: { "schema": schema } } }));
    }

    /// Sets the request body to anything.
    pub fn raw_request_body(&mut self) {
        self.request_body = Some(json!({ "content": { "*/*": {} } }));
    }

    /// Adds a response; `content` is its `content` object.
    pub fn response(&mut self, status: StatusCode, content: Option<Value>) {
        let mut response =
            json!({ "description": status.canonical_reason().unwrap_or("Response") });
        if let Some(content) = content {
            response["content"] = content;
        }
        self.responses.insert(status.as_str().to_owned(), response);
    }

    /// Adds a response with `T` as JSON.
    pub fn json_response<T: JsonSchema>(&mut self, status: StatusCode) {
        let schema = self.schema::<T>();
        self.response(
            status,
            Some(json!({ "application/json": { "schema": schema } })),
        );
    }

    /// Adds a 200 response with text.
    pub fn text_response(&mut self, media_type: &str) {
        self.response(
            StatusCode::OK,
            Some(json!({ media_type: { "schema": { "type": "string" } } })),
        );
    }

    /// Adds the problem of a status.
    pub fn problem(&mut self, status: u16) {
        self.responses.insert(
            status.to_string(),
            json!({ "$ref": format!("#/components/responses/Problem{status}") }),
        );
    }
}

/// The statuses that problems of the platform or the SDK may have.
const PROBLEMS: [u16; 14] = [
    400, 401, 403, 404, 409, 410, 412, 413, 415, 422, 429, 500, 503, 504,
];

/// The document of a router.
pub(crate) fn document(router: &Router) -> Value {
    let mut schemas = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    schemas.subschema_for::<Document>();
    let mut paths = Map::new();
    for path in &router.paths {
        let mut item = Map::new();
        for route in path.routes.iter().filter(|route| !route.about.hidden) {
            let Some(method) = &route.method else {
                continue;
            };
            let operation = operation(&mut schemas, &path.pattern, &route.about, route.describe);
            item.insert(method.as_str().to_ascii_lowercase(), operation);
        }
        if !item.is_empty() {
            // OpenAPI has no parameter of several segments; the name alone comes nearest.
            paths.insert(path.pattern.replace("{*", "{"), item.into());
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": router.title, "version": router.version },
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "responses": problem_responses(),
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
        },
    })
}

fn operation(
    schemas: &mut SchemaGenerator,
    pattern: &str,
    about: &About,
    describe: fn(&mut Operation<'_>),
) -> Value {
    let mut operation = Operation {
        schemas,
        parameters: Vec::new(),
        request_body: None,
        responses: Map::new(),
    };
    for name in names(pattern) {
        operation.parameter(
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }),
        );
        operation.problem(404);
    }
    let refusals: &[u16] = if about.public {
        &[429, 503]
    } else {
        &[401, 403, 429, 503]
    };
    for status in refusals.iter().chain(&about.problems) {
        operation.problem(*status);
    }
    describe(&mut operation);
    let Operation {
        parameters,
        request_body,
        responses,
        ..
    } = operation;
    let mut value = json!({ "responses": responses });
    let members = [
        ("summary", about.summary.clone().map(Value::from)),
        ("description", about.description.clone().map(Value::from)),
        ("tags", about.tag.clone().map(|tag| json!([tag]))),
        (
            "parameters",
            (!parameters.is_empty()).then_some(parameters.into()),
        ),
        ("requestBody", request_body),
        (
            "security",
            Some(if about.public {
                json!([])
            } else {
                json!([{ "bearer": [] }])
            }),
        ),
    ];
    for (name, member) in members
        .into_iter()
        .filter_map(|(name, member)| Some((name, member?)))
    {
        value[name] = member;
    }
    value
}

/// The names in `{}` of a pattern.
fn names(pattern: &str) -> impl Iterator<Item = &str> {
    pattern
        .split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name.trim_start_matches('*'))
}

fn problem_responses() -> Value {
    let response = |status: u16| {
        let reason = StatusCode::from_u16(status)
            .ok()
            .and_then(|s| s.canonical_reason())
            .unwrap_or("Problem");
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        (
            format!("Problem{status}"),
            json!({ "description": reason, "content": { PROBLEM_JSON: { "schema": schema } } }),
        )
    };
    PROBLEMS
        .into_iter()
        .map(response)
        .collect::<Map<_, _>>()
        .into()
}

pub(crate) fn describe_document(operation: &mut Operation<'_>) {
    operation.response(
        StatusCode::OK,
        Some(json!({ "application/json": { "schema": { "type": "object" } } })),
    );
}

#[cfg(test)]
mod tests;
