//! Passing requests on to services, streaming both ways.

use crate::{
    gate::remove,
    target::{Fault, Target},
};
use exprsn_sdk::prelude::*;

/// Any method of `/{service}/{*rest}`.
pub async fn pass(mut request: Request) -> Response {
    let target = match target(request.path_and_query()) {
        Ok(target) => target,
        Err(problem) => return problem.into_response(),
    };
    request
        .headers_mut()
        .set("x-forwarded-prefix", format!("/{}", target.short));
    match http::forward(request, &target.service(), &target.path_and_query).await {
        Ok(mut response) => {
            // Which pages may read answers is for the gateway alone to say.
            remove(&mut response.headers, |name| {
                name.starts_with("access-control-")
            });
            response
        }
        Err(error) => failure(&target, &error).into_response(),
    }
}

/// Where a gateway path leads, or the problem of one that leads nowhere.
pub fn target(path_and_query: &str) -> Result<Target> {
    Target::parse(path_and_query).map_err(|fault| match fault {
        Fault::NoService => Problem::new(StatusCode::NOT_FOUND)
            .detail("the path names no service; the gateway's paths are /<service>/…, and GET / lists the services"),
        fault => Problem::bad_request("path", fault.to_string()),
    })
}

/// The problem of a service that did not answer.
pub fn failure(target: &Target, error: &http::Error) -> Problem {
    let name = target.service();
    let again = |status, detail: String| {
        Problem::new(status)
            .detail(detail)
            .header("retry-after", "1")
    };
    match error {
        // The gateway may call every service: what it may not call is none.
        http::Error::Denied => Problem::new(StatusCode::NOT_FOUND).detail(format!(
            "there is no service `{}`; GET / lists those there are",
            target.short
        )),
        http::Error::Invalid(what) => Problem::new(StatusCode::BAD_REQUEST)
            .detail(format!("the request cannot be passed on: {what}")),
        http::Error::Timeout => again(
            StatusCode::GATEWAY_TIMEOUT,
            format!("{name} did not answer in time"),
        ),
        http::Error::Unavailable(what) => {
            log::warn!("a service gave no answer", service = name, reason = what);
            again(StatusCode::BAD_GATEWAY, format!("{name} gave no answer"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_their_status() {
        let target = Target::parse("/timeline/x").unwrap();
        let status = |error| failure(&target, &error).into_response();
        assert_eq!(status(http::Error::Denied).status, 404);
        let timeout = status(http::Error::Timeout);
        assert_eq!(
            (timeout.status.as_u16(), timeout.headers.get("retry-after")),
            (504, Some("1"))
        );
        assert_eq!(status(http::Error::Unavailable("reset".into())).status, 502);
        assert_eq!(super::target("/A/x").unwrap_err().status(), 404);
        assert_eq!(super::target("/ca/../x").unwrap_err().status(), 400);
    }
}
