//! Handlers: plain async functions from extractors to a response.

use std::future::Future;

use futures_util::future::LocalBoxFuture;

use crate::Request;
use crate::extract::FromRequest;
use crate::openapi::Operation;
use crate::response::{IntoResponse, Response};

/// A route's function with its types erased.
pub(crate) type Endpoint = Box<dyn Fn(Request) -> LocalBoxFuture<'static, Response>>;

/// An async function of up to six extractors.
///
/// The extractors run in their order; the first to fail answers. At most one takes the body, wherever it stands.
pub trait Handler<Arguments>: Clone + 'static {
    /// Runs extractors and function.
    fn call(self, request: Request) -> LocalBoxFuture<'static, Response>;

    /// Adds parameters, request body and responses to the OpenAPI operation.
    fn describe(operation: &mut Operation<'_>);
}

pub(crate) fn endpoint<A, H: Handler<A>>(handler: H) -> Endpoint {
    Box::new(move |request| handler.clone().call(request))
}

macro_rules! handler {
    ($($T:ident),*) => {
        #[allow(non_snake_case, unused_mut, unused_variables, reason = "one macro for every number of extractors")]
        impl<F, Fut, Out, $($T),*> Handler<($($T,)*)> for F
        where
            F: Fn($($T),*) -> Fut + Clone + 'static,
            Fut: Future<Output = Out> + 'static,
            Out: IntoResponse + 'static,
            $($T: FromRequest + 'static),*
        {
            fn call(self, mut request: Request) -> LocalBoxFuture<'static, Response> {
                const {
                    assert!((0 $(+ $T::TAKES_BODY as usize)*) < 2, "a handler has one extractor of the body at most");
                }
                Box::pin(async move {
                    $(
                        let $T = match $T::from_request(&mut request).await {
                            Ok(value) => value,
                            Err(problem) => return problem.into_response(),
                        };
                    )*
                    drop(request);
                    self($($T),*).await.into_response()
                })
            }

            fn describe(operation: &mut Operation<'_>) {
                $($T::describe(operation);)*
                Out::describe(operation);
            }
        }
    };
}

handler!();
handler!(A);
handler!(A, B);
handler!(A, B, C);
handler!(A, B, C, D);
handler!(A, B, C, D, E);
handler!(A, B, C, D, E, G);
