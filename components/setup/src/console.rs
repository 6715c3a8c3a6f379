//! `/console`: the page for administrators, its files compiled in.
//!
//! **Invariant:** the page runs its own scripts and nothing else, cannot be framed, and has no cookie: what it shows and does goes
//! through the APIs with a token in the Authorization header, which no other site can make a browser send.

use exprsn_sdk::prelude::*;
use serde_json::Value;

const AUTH: &str = "http://exprsn-auth/.well-known/openid-configuration";
/// Longest answer of exprsn-auth that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How long exprsn-auth may take, and how long its answer is reused.
const AUTH_MS_MAX: u64 = 1_000;
const REUSED_MS: u64 = 10_000;

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// What is under `/console/`, the only list of it.
const FILES: &[(&str, &str, &str)] = &[
    ("api.js", SCRIPT, include_str!("../console/api.js")),
    ("app.js", SCRIPT, include_str!("../console/app.js")),
    ("audit.js", SCRIPT, include_str!("../console/audit.js")),
    (
        "console.css",
        "text/css; charset=utf-8",
        include_str!("../console/console.css"),
    ),
    (
        "databases.js",
        SCRIPT,
        include_str!("../console/databases.js"),
    ),
    ("dialog.js", SCRIPT, include_str!("../console/dialog.js")),
    ("dom.js", SCRIPT, include_str!("../console/dom.js")),
    ("edges.js", SCRIPT, include_str!("../console/edges.js")),
    ("events.js", SCRIPT, include_str!("../console/events.js")),
    ("grants.js", SCRIPT, include_str!("../console/grants.js")),
    (
        "icon.svg",
        "image/svg+xml",
        include_str!("../console/icon.svg"),
    ),
    ("map.js", SCRIPT, include_str!("../console/map.js")),
    ("metrics.js", SCRIPT, include_str!("../console/metrics.js")),
    (
        "overview.js",
        SCRIPT,
        include_str!("../console/overview.js"),
    ),
    ("queues.js", SCRIPT, include_str!("../console/queues.js")),
    (
        "services.js",
        SCRIPT,
        include_str!("../console/services.js"),
    ),
    ("session.js", SCRIPT, include_str!("../console/session.js")),
];

/// Where people sign in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignIn {
    client_id: String,
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    revocation_endpoint: String,
}

/// The page and what it loads.
pub fn routes() -> Router {
    Router::new("", "")
        .get("/console", page)
        .public()
        .hidden()
        .get("/console/{file}", file)
        .public()
        .hidden()
}

/// `GET /api/metrics`
pub async fn metrics() -> Result<Text> {
    Ok(Text::of(
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
        platform::metrics().await?,
    ))
}

async fn page() -> Response {
    let html = include_str!("../console/index.html");
    served(
        "text/html; charset=utf-8",
        html,
        &sign_in().await.unwrap_or_default(),
    )
}

async fn file(Path(name): Path<String>) -> Result<Response> {
    if name == "sign-in.json" {
        let found = sign_in().await;
        return Ok(Response::ok()
            .json(&found)
            .header("cache-control", "no-store"));
    }
    let found = FILES.iter().find(|(known, ..)| *known == name);
    let (_, media_type, text) = found.ok_or_else(|| Problem::not_found("file", &name))?;
    Ok(served(media_type, text, &SignIn::default()))
}

fn served(media_type: &str, text: &str, sign_in: &SignIn) -> Response {
    Response::ok()
        .header("content-type", media_type)
        .header("content-security-policy", policy(&sign_in.token_endpoint))
        .header("x-content-type-options", "nosniff")
        .header("x-frame-options", "DENY")
        .header("referrer-policy", "no-referrer")
        .header("cross-origin-opener-policy", "same-origin")
        .header("cross-origin-resource-policy", "same-origin")
        .header(
            "permissions-policy",
            "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
        )
        .header("cache-control", "no-cache")
        .body(text)
}

/// The only place outside that the page speaks to is where it fetches its token.
fn policy(token_endpoint: &str) -> String {
    let connect = match origin(token_endpoint) {
        Some(origin) => format!("'self' {origin}"),
        None => "'self'".to_owned(),
    };
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src {connect}; form-action 'none'; \
         frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
}

/// Scheme, host and port of a URL; none of what would say more in a policy.
fn origin(url: &str) -> Option<&str> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))?;
    let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '[' | ']');
    let end = url.len() - rest.len() + authority.len();
    (!authority.is_empty() && authority.chars().all(plain)).then(|| &url[..end])
}

/// Where people sign in, as exprsn-auth says; none where it does not run.
async fn sign_in() -> Option<SignIn> {
    let client_id = config::get("console_client_id").filter(|id| !id.is_empty())?;
    if let Ok(Some(known)) = cache::get_json::<SignIn>("sign-in").await {
        return Some(known);
    }
    let answer = http::get(AUTH).timeout_ms(AUTH_MS_MAX).send().await.ok()?;
    let document = answer.bytes(ANSWER_BYTES_MAX).await.ok()?;
    let document: Value = serde_json::from_slice(&document).ok()?;
    let text = |name: &str| document[name].as_str().map(str::to_owned);
    let found = SignIn {
        client_id,
        issuer: text("issuer")?,
        authorization_endpoint: text("authorization_endpoint")?,
        token_endpoint: text("token_endpoint")?,
        revocation_endpoint: text("revocation_endpoint")?,
    };
    if let Err(error) = cache::set_json("sign-in", &found, Some(REUSED_MS)).await {
        log::debug!(
            "where people sign in is not remembered",
            error = format!("{error:?}")
        );
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_file_of_the_folder_is_served_and_every_import_is_there() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/console");
        let there: BTreeSet<String> = std::fs::read_dir(folder)
            .expect("the folder")
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .filter(|name| name != "index.html")
            .collect();
        let served: BTreeSet<String> = FILES.iter().map(|(name, ..)| (*name).to_owned()).collect();
        assert_eq!(served, there, "add the file to FILES in console.rs");
        for (name, _, text) in FILES {
            for import in text.split(" from './").skip(1) {
                let target = import.split('\'').next().expect("a name");
                assert!(served.contains(target), "{name} imports {target}");
            }
        }
    }

    #[test]
    fn nothing_makes_markup_of_text() {
        let banned = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
            "new Function",
            "setTimeout('",
            "srcdoc",
            "javascript:",
        ];
        for (name, _, text) in FILES {
            for word in banned {
                assert!(!text.contains(word), "{name} has {word}");
            }
        }
        let page = include_str!("../console/index.html");
        assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" on"));
        assert_eq!(
            page.matches("<script").count(),
            page.matches("<script type=\"module\" src=").count()
        );
    }

    #[test]
    fn the_policy_names_where_the_token_comes_from_and_nothing_else() {
        let policy = policy("https://auth.example:8443/x/oauth/token");
        assert!(
            policy.contains("connect-src 'self' https://auth.example:8443;"),
            "{policy}"
        );
        for odd in [
            "",
            "ftp://a/",
            "https://",
            "https://a b/",
            "http://a;script-src *",
            "http://a'/",
        ] {
            assert_eq!(origin(odd), None, "{odd}");
        }
        assert_eq!(origin("http://[::1]:3001?x"), Some("http://[::1]:3001"));
    }
}
