//! Waiting for servers that a start needs: machines and pods start in any order.

use std::{fmt::Display, future::Future, time::Duration};
use tokio::time::Instant;

/// How long a start waits for a server.
const SERVER_MAX: Duration = Duration::from_secs(60);
/// How often it is tried for.
const SERVER_RETRY: Duration = Duration::from_secs(1);

/// Tries again while `is_absence` says of the error that nobody was there. `what` is the server's name in the log.
pub async fn patiently<T, E: Display, F>(
    what: &str,
    mut connect: impl FnMut() -> F,
    is_absence: impl Fn(&E) -> bool,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let until = Instant::now() + SERVER_MAX;
    loop {
        match connect().await {
            Err(error) if is_absence(&error) && Instant::now() < until => {
                tracing::warn!(error = %format_args!("{error:#}"), "{what} cannot be reached yet; waiting for it");
                tokio::time::sleep(SERVER_RETRY).await;
            }
            done => return done,
        }
    }
}
