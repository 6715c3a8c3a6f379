//! Requests with an `Idempotency-Key`, whose answers the OpenAPI document describes as those of the work itself.

use std::future::Future;
use std::marker::PhantomData;

use exprsn_sdk::openapi::Operation;
use exprsn_sdk::prelude::*;

/// The answer of the first time, whether just made or kept.
pub struct Once<R> {
    response: Response,
    answer: PhantomData<R>,
}

impl<R: IntoResponse> IntoResponse for Once<R> {
    fn into_response(self) -> Response {
        self.response
    }

    fn describe(operation: &mut Operation<'_>) {
        R::describe(operation);
    }
}

/// Does `work` once for a caller's key and content; see `idempotent` of the SDK.
pub async fn once<R, C, W>(
    key: &IdempotencyKey,
    caller: &Caller,
    content: &C,
    work: W,
) -> Result<Once<R>>
where
    R: IntoResponse,
    C: Serialize + ?Sized,
    W: Future<Output = Result<R>>,
{
    let response = idempotent(key, caller, &fingerprint(content), || work).await?;
    Ok(Once {
        response,
        answer: PhantomData,
    })
}
