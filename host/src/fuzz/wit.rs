//! Values that cross from a guest by WIT: typed already, and of any content.

use super::{input::Input, tokens};
use crate::{
    capability::{
        blob::{backend::Range, convert as blob, exprsn::blob::types as blob_types},
        ca::{convert as ca, host::exprsn::ca::types as ca_types},
        queue::{
            NewJob,
            check::{check_event, check_job, check_queue_name},
        },
    },
    manifest::Backoff,
};
use exprsn_backends::sql::{sqlite, value::Value};

/// What is accepted of an object's description fits in a header, and a range stays within the object.
pub fn blob_options(input: &[u8]) {
    let mut input = Input::new(input);
    let options = blob_types::WriteOptions {
        content_type: input.option(Input::text),
        size: input.option(Input::number),
        condition: input.option(|input| match input.flag() {
            true => blob_types::Condition::Absent,
            false => blob_types::Condition::Etag(input.text()),
        }),
    };
    let size = options.size;
    if let Ok(new) = blob::new(options) {
        let header = http::HeaderValue::from_str(&new.content_type);
        assert!(
            header.is_ok() && (1..=blob::CONTENT_TYPE_BYTES_MAX).contains(&new.content_type.len())
        );
        assert_eq!(new.size, size);
    }
    let range = Range {
        offset: input.number(),
        length: input.option(Input::number),
    };
    let bytes = input.number();
    match range.within(bytes) {
        Ok((at, end)) => {
            assert!(at == range.offset && at <= end && end <= bytes);
            assert!(range.length.is_none_or(|length| end - at <= length));
        }
        Err(_) => assert!(range.offset > bytes),
    }
}

/// Claims that a guest asks for, and are accepted, are what the token says.
pub fn ca_claims(input: &[u8]) {
    let mut input = Input::new(input);
    let asked = ca_types::Claims {
        id: input.text(),
        subject: input.text(),
        audience: input.list(Input::text),
        resources: input.list(Input::text),
        permissions: permissions(input.byte()),
        issued_at: instant(&mut input),
        not_before: instant(&mut input),
        expires_at: instant(&mut input),
        uses_max: input.option(|input| u32::try_from(input.number()).unwrap_or(u32::MAX)),
        extra: input.text(),
    };
    let Ok(claims) = ca::read_claims(asked.clone()) else {
        return;
    };
    let told = ca::told_claims(&claims);
    assert_eq!(
        (&told.id, &told.subject, &told.audience, &told.resources),
        (&asked.id, &asked.subject, &asked.audience, &asked.resources)
    );
    assert_eq!(told.permissions, asked.permissions);
    if claims.check().is_ok() {
        tokens::round_trip("https://ca.test", &claims);
    }
}

fn permissions(bits: u8) -> ca_types::Permissions {
    let kept = ca::FLAGS.iter().enumerate();
    let kept = kept.filter(|(at, _)| bits >> at & 1 == 1);
    kept.fold(ca_types::Permissions::empty(), |flags, (_, (_, flag))| {
        flags | *flag
    })
}

fn instant(input: &mut Input<'_>) -> i64 {
    i64::from_le_bytes(input.number().to_le_bytes())
}

/// What the broker takes keeps its limits.
pub fn queue_jobs(input: &[u8]) {
    const DATA_BYTES_MAX: usize = 1_000;
    let mut input = Input::new(input);
    let mut job = NewJob::new(input.text(), input.text(), input.text());
    job.attempts = input.option(|input| u32::try_from(input.number()).unwrap_or(u32::MAX));
    job.delay_ms = input.number();
    job.priority = u32::try_from(input.number()).unwrap_or(u32::MAX);
    job.timeout_ms = input.option(Input::number);
    job.backoff = input.option(|input| Backoff::Exponential {
        delay_ms: input.number(),
    });
    let json = |data: &str| serde_json::from_str::<serde::de::IgnoredAny>(data).is_ok();
    if check_job(&job, DATA_BYTES_MAX).is_ok() {
        assert!(!job.id.is_empty() && job.data.len() <= DATA_BYTES_MAX && json(&job.data));
        for attempts in [0, 1, 63, u32::MAX] {
            let wait_ms =
                crate::capability::queue::backoff_ms(job.backoff.unwrap_or_default(), attempts);
            assert!(i64::try_from(wait_ms).is_ok_and(|wait_ms| i64::MAX / 2 > wait_ms));
        }
    }
    let (topic, subject) = (input.text(), input.option(Input::text));
    if check_event(
        &job.id,
        &topic,
        subject.as_deref(),
        &job.data,
        DATA_BYTES_MAX,
    )
    .is_ok()
    {
        assert!(!topic.is_empty() && !topic.contains('*') && json(&job.data));
    }
    let queue = input.rest();
    if check_queue_name(&queue).is_ok() {
        assert!(!queue.contains([':', '{', '}', ' ', '*']) && queue.is_ascii());
    }
}

/// A parameter is stored as what it is, or refused.
pub fn sql_values(input: &[u8]) {
    let mut input = Input::new(input);
    let number = i64::from_le_bytes(input.number().to_le_bytes());
    let values = [
        Value::Boolean(input.flag()),
        Value::Integer(number),
        Value::Timestamp(number),
        Value::Real(f64::from_bits(input.number())),
        Value::Blob(input.bytes().to_vec()),
        Value::Uuid(input.text()),
        Value::Json(input.text()),
        Value::Text(input.rest()),
    ];
    for value in &values {
        let Some(read) = sqlite::value::read_back(value) else {
            assert!(matches!(
                value,
                Value::Real(_) | Value::Uuid(_) | Value::Json(_)
            ));
            continue;
        };
        check(value, &read);
    }
    if let Value::Text(name) = &values[7]
        && let Some(position) = sqlite::value::position(name)
    {
        assert!(position > 0 && *name == format!("${position}"));
    }
}

fn check(value: &Value, read: &Value) {
    match (value, read) {
        (Value::Boolean(a), Value::Integer(b)) => assert_eq!(i64::from(*a), *b),
        (Value::Integer(a) | Value::Timestamp(a), Value::Integer(b)) => assert_eq!(a, b),
        (Value::Real(a), Value::Real(b)) => assert_eq!(a.to_bits(), b.to_bits()),
        (Value::Blob(a), Value::Blob(b)) => assert_eq!(a, b),
        (Value::Text(a) | Value::Json(a) | Value::Uuid(a), Value::Text(b)) => assert_eq!(a, b),
        _ => panic!("it became of another kind"),
    }
}
