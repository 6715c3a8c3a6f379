//! A test guest with one route for every part of the SDK.

use exprsn_sdk::prelude::*;

/// The queue whose jobs mark a note as indexed.
const INDEX: &str = "echo-index";

#[derive(Serialize, Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewNote {
    #[garde(length(chars, min = 1, max = 500))]
    text: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Note {
    id: String,
    text: String,
    author_id: String,
    created_at: i64,
    indexed: bool,
    seen: i64,
}

#[derive(Serialize, Deserialize, JsonSchema, Validate)]
struct Numbers {
    #[garde(range(max = 1000))]
    n: u32,
    #[serde(default)]
    #[garde(skip)]
    tag: Vec<String>,
}

#[derive(Deserialize, Serialize)]
struct NoteId {
    id: String,
}

fn routes() -> Router {
    Router::new("Echo", env!("CARGO_PKG_VERSION"))
        .post("/echo/json", json)
        .public()
        .post("/echo/bytes", bytes)
        .public()
        .post("/echo/stream", stream)
        .public()
        .get("/echo/query", query)
        .public()
        .get("/echo/path/{a}/{b}", path)
        .public()
        .get("/echo/caller", caller)
        .public()
        .get("/echo/user", user)
        .get("/echo/ids", ids)
        .public()
        .get("/echo/sse", sse)
        .public()
        .get("/echo/live", live)
        .public()
        .post("/echo/live", broadcast)
        .public()
        .get("/echo/call", call)
        .public()
        .any("/forward/{*rest}", forward)
        .get("/notes", list)
        .public()
        .post("/notes", create)
        .public()
        .get("/notes/{id}", show)
        .public()
}

async fn json(Json(note): Json<NewNote>) -> Json<NewNote> {
    Json(note)
}

async fn bytes(body: Body) -> Result<Response> {
    let bytes = body.bytes(1 << 20).await?;
    Ok(Response::ok()
        .header("content-type", "application/octet-stream")
        .body(bytes))
}

/// Answers each chunk in upper case as it comes.
async fn stream(body: Body) -> Response {
    let upper = |chunk: Result<Vec<u8>>| chunk.map(|bytes| bytes.to_ascii_uppercase());
    Response::ok().body_stream(body.stream().map(upper))
}

async fn query(query: Query<Numbers>) -> Json<Numbers> {
    Json(query.0)
}

async fn path(Path((a, b)): Path<(String, u32)>) -> Text {
    Text(format!("{a} {b}"))
}

async fn caller(caller: Caller) -> AnyJson {
    let principal = caller.principal();
    AnyJson(json!({
        "kind": principal.kind.name(),
        "subject": principal.subject,
        "address": caller.address,
        "traceId": caller.trace_id,
        "path": caller.path,
        "remainingMs": caller.remaining_ms,
    }))
}

async fn user(user: User) -> Text {
    Text(user.id)
}

async fn ids() -> AnyJson {
    log::info!("ids asked for", kind = "uuid");
    metrics::count("ids", 1, &[("kind", "uuid")]);
    AnyJson(json!({ "id": uuid_v7(), "now": now_ms(), "token": random_token(32) }))
}

async fn sse() -> Sse {
    Sse::new(exprsn_sdk::stream::unfold(0, |n| async move {
        if n == 3 {
            return None;
        }
        sleep_ms(20).await;
        Some((
            SseEvent::json(&json!({ "n": n }))
                .event("tick")
                .id(n.to_string()),
            n + 1,
        ))
    }))
    .keep_alive_ms(5)
}

async fn live() -> Result<Sse> {
    Ok(Sse::new(
        events::live::listen("notes").await?.map(SseEvent::new),
    ))
}

async fn broadcast(AnyJson(message): AnyJson) -> Result<NoContent> {
    events::live::broadcast("notes", &message).await?;
    Ok(NoContent)
}

async fn call() -> Result<AnyJson> {
    let answer = http::get("http://exprsn-hello/hello")
        .timeout_ms(2_000)
        .send()
        .await?
        .error_for_status()
        .await?;
    Ok(AnyJson(answer.json().await?))
}

async fn forward(request: Request) -> Result<Response> {
    let target = request
        .path_and_query()
        .trim_start_matches("/forward")
        .to_owned();
    Ok(http::forward(request, "exprsn-hello", &target).await?)
}

async fn create(caller: Caller, key: IdempotencyKey, Json(new): Json<NewNote>) -> Result<Response> {
    let content = fingerprint(&new);
    let author_id = caller.principal().subject.clone();
    idempotent(&key, &caller, &content, || insert(author_id, new)).await
}

async fn insert(author_id: String, new: NewNote) -> Result<Created<Note>> {
    let note = Note {
        id: uuid_v7(),
        text: new.text,
        author_id,
        created_at: now_ms(),
        indexed: false,
        seen: 0,
    };
    let tx = sql::begin().await?;
    tx.execute(
        "INSERT INTO notes (id, text, author_id, created_at) VALUES ($1, $2, $3, $4)",
        params![note.id, note.text, note.author_id, note.created_at],
    )
    .await?;
    tx.publish(Event::new("note.created", &note).subject(&note.id))
        .await?;
    let options = JobOptions::default().attempts(3).exponential(100);
    tx.add_job(INDEX, "index", &json!({ "id": note.id }), options)
        .await?;
    tx.commit().await?;
    Ok(Created::at(format!("/notes/{}", note.id), note))
}

async fn list(page: Query<PageQuery>) -> Result<Json<Page<Note>>> {
    let (at, id) = page
        .cursor::<(i64, String)>()?
        .unwrap_or((i64::MAX, String::new()));
    let notes: Vec<Note> = sql::query_as(
        "SELECT id, text, author_id, created_at, indexed, seen FROM notes
         WHERE (created_at, id) < ($1, $2) ORDER BY created_at DESC, id DESC LIMIT $3",
        params![at, id, page.limit_plus_one()],
    )
    .await?;
    Ok(Json(
        page.page(notes, |note| (note.created_at, note.id.clone())),
    ))
}

async fn show(Path(id): Path<String>) -> Result<Json<Note>> {
    let statement =
        "SELECT id, text, author_id, created_at, indexed, seen FROM notes WHERE id = $1";
    let note = sql::query_one_as(statement, params![id]).await?;
    note.map(Json)
        .ok_or_else(|| Problem::not_found("note", &id))
}

async fn index(job: Job<NoteId>) -> JobResult<String> {
    let statement = "UPDATE notes SET indexed = 1 WHERE id = $1";
    match sql::execute(statement, params![job.data.id]).await? {
        0 => Err(JobError::fail("there is no such note")),
        _ => Ok(format!("indexed at attempt {}", job.attempt)),
    }
}

async fn seen(event: Event<NoteId>) -> EventResult {
    let tx = sql::begin().await?;
    if tx.once(&event.id).await? {
        let statement = "UPDATE notes SET seen = seen + 1 WHERE id = $1";
        tx.execute(statement, params![event.data.id]).await?;
    }
    tx.commit().await?;
    Ok(())
}

fn jobs() -> Jobs {
    Jobs::new().on(INDEX, index)
}

fn events() -> Events {
    Events::new().on("note.*", seen)
}

exprsn_sdk::export!(http = routes, jobs = jobs, events = events);
