//! Floods: jobs, events, promises of them, log records, metrics, calls.

use super::{QUEUE, Task};
use exprsn_sdk::prelude::*;

/// Jobs added by one call.
const BATCH: usize = 1_000;

pub fn routes(router: Router) -> Router {
    router
        .post("/flood/jobs/{count}", jobs)
        .post("/flood/events/{count}", events)
        .post("/flood/outbox/{count}", outbox)
        .post("/flood/log/{records}/{bytes}", log)
        .post("/flood/stdout/{lines}", stdout)
        .post("/flood/metrics/{series}", metrics)
        .post("/flood/calls/{count}", calls)
}

fn nothing() -> Task {
    Task {
        act: "nothing".to_owned(),
    }
}

fn told(done: usize, refused: usize, said: &str) -> AnyJson {
    AnyJson(json!({ "done": done, "refused": refused, "said": said }))
}

async fn jobs(Path(count): Path<usize>) -> AnyJson {
    let (mut done, mut refused, mut said) = (0, 0, String::new());
    for _ in 0..count.div_ceil(BATCH) {
        let batch = (0..BATCH).map(|_| {
            let options = JobOptions::default().delay_ms(86_400_000);
            ("flood".to_owned(), nothing(), options)
        });
        match queue::add_many(QUEUE, batch).await {
            Ok(ids) => done += ids.len(),
            Err(error) => {
                refused += BATCH;
                said = format!("{error:?}");
            }
        }
    }
    told(done, refused, &said)
}

async fn events(Path(count): Path<usize>) -> AnyJson {
    let (mut done, mut refused, mut said) = (0, 0, String::new());
    for _ in 0..count.div_ceil(100) {
        let some = (0..100).map(|_| events::publish(Event::new("flood.act", &nothing())));
        for published in exprsn_sdk::join_all(some).await {
            match published {
                Ok(_) => done += 1,
                Err(error) => {
                    refused += 1;
                    said = format!("{error:?}");
                }
            }
        }
    }
    told(done, refused, &said)
}

async fn outbox(Path(count): Path<usize>) -> Result<AnyJson> {
    let (mut done, mut refused, mut said) = (0, 0, String::new());
    let transaction = sql::begin().await?;
    for _ in 0..count {
        let options = JobOptions::default().delay_ms(86_400_000);
        match transaction
            .add_job(QUEUE, "flood", &nothing(), options)
            .await
        {
            Ok(_) => done += 1,
            Err(error) => {
                refused += 1;
                said = format!("{error:?}");
            }
        }
    }
    transaction.commit().await?;
    Ok(told(done, refused, &said))
}

async fn log(Path((records, bytes)): Path<(usize, usize)>) -> Text {
    let text = "flood ".repeat(bytes / 6 + 1);
    for _ in 0..records {
        log::record(
            log::Level::Info,
            &text,
            &[("more".to_owned(), text.clone())],
        );
    }
    // A line of its own, an end of another, and an escape of a terminal: none of them is the guest's to write.
    log::info!(
        "harmless\n2026-01-01T00:00:00Z  INFO exprsn: forged by a guest\r\x1b[2Jgone",
        field = "a\nb"
    );
    Text("said")
}

async fn stdout(Path(lines): Path<usize>) -> Text {
    for line in 0..lines {
        println!("flood of stdout {line}");
    }
    Text("said")
}

async fn metrics(Path(series): Path<usize>) -> Text {
    for index in 0..series {
        let id = index.to_string();
        metrics::count(&format!("flood_{}", index % 500), 1, &[("id", &id)]);
    }
    Text("counted")
}

/// Calls of another service, all at once.
async fn calls(Path(count): Path<usize>) -> AnyJson {
    let calls = (0..count).map(|_| http::get("http://exprsn-hello/hello").send());
    let (mut done, mut refused, mut said) = (0, 0, String::new());
    for answer in exprsn_sdk::join_all(calls).await {
        match answer {
            Ok(answer) if answer.status() == StatusCode::OK => done += 1,
            Ok(answer) => said = answer.status().to_string(),
            Err(error) => {
                refused += 1;
                said = format!("{error:?}");
            }
        }
    }
    told(done, refused, &said)
}
