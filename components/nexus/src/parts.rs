//! `POST /api/compose`: making the calls.

use crate::{
    compose::{Call, ComposeAnswer, ComposeRequest, Part, body_value},
    gate, proxy,
    settings::{Settings, settings},
};
use exprsn_sdk::{Either, join_all, prelude::*, select};
use std::{collections::BTreeMap, net::IpAddr};

/// Fields of the whole request that go with every call.
const SHARED: [&str; 5] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];
/// Fields of an answer that mean nothing within a composed one.
const DROPPED: [&str; 3] = ["content-length", "set-cookie", "x-request-id"];

/// Makes all calls at once. Each counts against the limits, and one that fails is only its own part's failure.
pub async fn compose(
    caller: Caller,
    headers: Headers,
    Json(request): Json<ComposeRequest>,
) -> Json<ComposeAnswer> {
    let settings = settings();
    let shared: Vec<(&str, String)> = SHARED
        .iter()
        .filter_map(|name| Some((*name, headers.get(name)?.to_owned())))
        .collect();
    let calls = request
        .calls
        .into_iter()
        .map(|call| part(call, &caller, &shared, settings));
    Json(ComposeAnswer {
        results: join_all(calls).await,
    })
}

async fn part(call: Call, caller: &Caller, shared: &[(&str, String)], settings: &Settings) -> Part {
    let id = call.id.clone();
    let limit = Box::pin(sleep_ms(settings.compose_ms_max));
    let answer = match select(Box::pin(answer(call, caller, shared, settings)), limit).await {
        Either::Left((answer, _)) => answer,
        Either::Right(_) => Err(Problem::new(StatusCode::GATEWAY_TIMEOUT)
            .detail(format!("no answer within {} ms", settings.compose_ms_max))
            .header("retry-after", "1")),
    };
    match answer {
        Ok((status, headers, body)) => render(id, status, &headers, &body),
        Err(problem) => refused(id, problem).await,
    }
}

type Answered = (StatusCode, Headers, Vec<u8>);

async fn answer(
    call: Call,
    caller: &Caller,
    shared: &[(&str, String)],
    settings: &Settings,
) -> Result<Answered> {
    let client = shared.iter().find(|(name, _)| *name == "x-forwarded-for");
    let client = client.and_then(|(_, address)| address.parse::<IpAddr>().ok());
    let usage = gate::take(client, caller, settings).await;
    if !usage.allowed() {
        return Err(gate::too_many(&usage));
    }
    let target = proxy::target(&call.path)?;
    let method = Method::from_bytes(call.method.as_bytes())
        .map_err(|_| Problem::bad_request("method", "is no method"))?;
    let mut sent = http::request(
        method,
        format!("http://{}{}", target.service(), target.path_and_query),
    )
    .header("x-forwarded-prefix", format!("/{}", target.short));
    for (name, value) in shared.iter().map(|(name, value)| (*name, value)) {
        sent = sent.header(name, value.as_str());
    }
    for (name, value) in &call.headers {
        sent = sent.header(name, value.as_str());
    }
    if let Some(body) = &call.body {
        let typed = call
            .headers
            .keys()
            .any(|name| name.eq_ignore_ascii_case("content-type"));
        sent = if typed {
            sent.body(body.to_string())
        } else {
            sent.json(body)
        };
    }
    let answer = sent
        .send()
        .await
        .map_err(|error| proxy::failure(&target, &error))?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = answer
        .bytes(settings.compose_answer_bytes_max)
        .await
        .map_err(|_| {
            Problem::new(StatusCode::BAD_GATEWAY).detail(format!(
                "the answer broke off, or is larger than {} bytes: ask for it by itself",
                settings.compose_answer_bytes_max
            ))
        })?;
    Ok((status, headers, body))
}

fn render(id: String, status: StatusCode, headers: &Headers, body: &[u8]) -> Part {
    let (value, encoding) = body_value(headers.get("content-type"), body);
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut kept = headers.clone();
    kept.remove_hop_by_hop();
    for (name, bytes) in kept.iter().filter(|(name, _)| !DROPPED.contains(name)) {
        let text = String::from_utf8_lossy(bytes);
        fields
            .entry(name.to_owned())
            .and_modify(|value| *value = format!("{value}, {text}"))
            .or_insert(text.into_owned());
    }
    Part {
        id,
        status: status.as_u16(),
        headers: fields,
        body: value,
        encoding,
    }
}

/// A problem of the gateway itself as a part.
async fn refused(id: String, problem: Problem) -> Part {
    let response = problem.into_response();
    let (status, headers) = (response.status, response.headers);
    let body = response.content.bytes(usize::MAX).await.unwrap_or_default();
    render(id, status, &headers, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_keeps_the_fields_that_mean_something() {
        let mut headers = Headers::new();
        for (name, value) in [
            ("content-type", "application/json"),
            ("content-length", "2"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("link", "<a>"),
            ("link", "<b>"),
        ] {
            headers.append(name, value);
        }
        let part = render("a".to_owned(), StatusCode::CREATED, &headers, b"{}");
        let fields: Vec<(&str, &str)> = part
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            fields,
            [("content-type", "application/json"), ("link", "<a>, <b>")]
        );
        assert_eq!((part.status, part.body), (201, json!({})));
    }
}
