//! Takes more of the host than it may: handles, arguments, transactions, randomness.

use exprsn_sdk::bindings::wasi::http::types::Fields;
use exprsn_sdk::prelude::*;
use exprsn_sdk::sql::{Error, Value};
use serde_json::Value as Any;

pub fn routes(router: Router) -> Router {
    router
        .get("/handles/{count}", handles)
        .get("/hand-over/{bytes}", hand_over)
        .get("/never-await/{calls}", never_await)
        .get("/random/{bytes}", random)
        .get("/transaction", transaction_held_for_ever)
        .get("/transactions/{count}", transactions)
        .post("/sql", statement)
}

async fn handles(Path(count): Path<u64>) -> Text {
    for _ in 0..count {
        std::mem::forget(Fields::new());
    }
    Text("all mine")
}

/// One call with an argument of that many bytes.
async fn hand_over(Path(bytes): Path<usize>) -> Text {
    let text = "x".repeat(bytes);
    let done = sql::execute("UPDATE loot SET text = $1 WHERE id = 1", params![text]).await;
    Text(format!("{done:?}"))
}

/// Calls begun at once, each with a MiB, while nothing gets on: a transaction is open.
async fn never_await(Path(calls): Path<usize>) -> Result<AnyJson> {
    let transaction = sql::begin().await?;
    let text = "x".repeat(1 << 20);
    let begun = (0..calls).map(|_| {
        let text = Value::Text(text.clone());
        async move { sql::execute("UPDATE loot SET text = $1 WHERE id = 2", vec![text]).await }
    });
    let mut refused = 0;
    let mut said = String::new();
    let mut waiting: exprsn_sdk::stream::FuturesUnordered<_> = begun.collect();
    // Those that are refused answer at once; the others wait for the transaction's end.
    while let exprsn_sdk::Either::Left((Some(done), _)) =
        exprsn_sdk::select(waiting.next(), Box::pin(sleep_ms(300))).await
    {
        if let Err(Error::LimitExceeded(text)) = done {
            refused += 1;
            said = text;
        }
    }
    drop(waiting);
    transaction.rollback().await?;
    Ok(AnyJson(json!({ "refused": refused, "said": said })))
}

async fn random(Path(bytes): Path<u64>) -> Text {
    let random = exprsn_sdk::bindings::wasi::random::random::get_random_bytes(bytes);
    Text(format!("{}", random.len()))
}

async fn transaction_held_for_ever() -> Result<Text> {
    let transaction = sql::begin().await?;
    transaction
        .execute("UPDATE loot SET text = 'held' WHERE id = 1", vec![])
        .await?;
    sleep_ms(60_000).await;
    transaction.commit().await?;
    Ok(Text("let go"))
}

/// Begins transactions without ending any; answers how many were refused for good.
async fn transactions(Path(count): Path<usize>) -> AnyJson {
    let first = sql::begin().await;
    let begun = (1..count).map(|_| Box::pin(sql::begin()));
    let mut refused = 0;
    let mut said = String::new();
    let mut waiting: exprsn_sdk::stream::FuturesUnordered<_> = begun.collect();
    while let exprsn_sdk::Either::Left((Some(done), _)) =
        exprsn_sdk::select(waiting.next(), Box::pin(sleep_ms(300))).await
    {
        if let Err(Error::LimitExceeded(text)) = done {
            refused += 1;
            said = text;
        }
    }
    drop(first);
    AnyJson(json!({ "refused": refused, "said": said }))
}

/// Runs a statement and says what came of it.
async fn statement(AnyJson(statement): AnyJson) -> AnyJson {
    let text = statement.as_str().unwrap_or_default().to_owned();
    let said: Any = match sql::query(&text, vec![]).await {
        Ok(rows) => json!(format!("{:?}", rows.rows)),
        Err(error) => json!(format!("{error:?}")),
    };
    AnyJson(said)
}
