//! Accounts, sessions, OAuth 2.1 and OpenID Connect.
//!
//! ```text
//! api/    JSON endpoints            oauth/  endpoints of the RFCs and the pages that people see
//!            └──────────┬──────────────────────┘
//! flow/   signing in, issuing tokens, ending what was issued
//!    ┌──────────────────┴───────┐
//! domain/ decisions, pure     store/  SQL
//! ```
//!
//! **Invariants**
//! - No secret is stored: passwords as Argon2id, bearer secrets as SHA-256, authenticators' secrets not at all.
//! - Access tokens are minted and signing keys are held by the host; nothing here sees a private key.
//! - Every access token that lives is known here, so ending a session ends it.

pub mod domain;

mod api;
mod facts;
mod flow;
mod maintenance;
mod oauth;
mod page;
mod settings;
mod store;

use api::{account, audit, clients, login, people, sessions, totp};
use exprsn_sdk::prelude::*;
use oauth::{
    authorize, discovery, error, introspect, jwks, logout, register, revoke, steps, token, userinfo,
};

fn routes() -> Router {
    oauth_routes(people_routes(sign_in_routes(Router::new(
        "Exprsn Auth",
        env!("CARGO_PKG_VERSION"),
    ))))
}

#[rustfmt::skip] // A line per route reads as a table.
fn sign_in_routes(router: Router) -> Router {
    router
        .post("/api/auth/register", login::register).summary("Makes an account and signs in").public().problems(&[409])
        .post("/api/auth/login", login::login).summary("Signs in with a password").public().problems(&[401])
        .post("/api/auth/login/mfa", login::login_mfa).summary("Signs in with a second factor").public().problems(&[401])
        .post("/api/auth/refresh", login::refresh).summary("Exchanges a refresh token for new tokens").public().problems(&[401])
        .post("/api/auth/logout", login::logout).summary("Ends the session of the token")
        .get("/api/auth/sessions", sessions::list).summary("Lists the sessions of the caller")
        .delete("/api/auth/sessions", sessions::end_all).summary("Ends every session of the caller")
        .delete("/api/auth/sessions/{id}", sessions::end_one).summary("Ends a session of the caller")
        .get("/api/auth/grants", sessions::grants).summary("Lists the applications that have access")
        .delete("/api/auth/grants/{id}", sessions::end_grant).summary("Takes an application's access back")
        .post("/api/auth/password", account::change_password).summary("Changes the password and ends every session").problems(&[409])
        .get("/api/auth/totp", totp::status).summary("Tells whether a second factor is asked for")
        .post("/api/auth/totp", totp::enrol).summary("Begins to enrol an authenticator").problems(&[409])
        .post("/api/auth/totp/confirm", totp::confirm).summary("Confirms an authenticator with its first code").problems(&[409])
        .post("/api/auth/totp/disable", totp::disable).summary("Removes the authenticator").problems(&[409])
        .post("/api/auth/totp/recovery-codes", totp::recovery_codes).summary("Makes new recovery codes").problems(&[409])
        .get("/api/auth/audit", audit::list).summary("Reads the audit log")
}

#[rustfmt::skip] // A line per route reads as a table.
fn people_routes(router: Router) -> Router {
    router
        .get("/api/users", people::list).summary("Lists and searches accounts")
        .get("/api/users/me", account::show).summary("Shows the caller's account")
        .patch("/api/users/me", account::change).summary("Changes the caller's account").problems(&[409])
        .delete("/api/users/me", account::delete).summary("Deletes the caller's account")
        .get("/api/users/me/audit", audit::mine).summary("Reads what concerned the security of the caller's account")
        .get("/api/users/{id}", people::show).summary("Shows a public profile").public()
        .delete("/api/users/{id}", people::delete).summary("Deletes an account")
        .put("/api/users/{id}/roles", people::set_roles).summary("Replaces the roles of an account").problems(&[409])
        .delete("/api/users/{id}/sessions", people::end_sessions).summary("Ends every session of an account")
        .get("/api/clients", clients::list).summary("Lists OAuth clients")
        .post("/api/clients", clients::create).summary("Registers an OAuth client")
        .post("/api/clients/initial-access-tokens", clients::initial_token).summary("Issues a token to register clients with")
        .get("/api/clients/{id}", clients::show).summary("Shows an OAuth client")
        .put("/api/clients/{id}", clients::replace).summary("Replaces what is registered of an OAuth client")
        .delete("/api/clients/{id}", clients::delete).summary("Deletes an OAuth client and what was issued to it")
        .post("/api/clients/{id}/secret", clients::renew_secret).summary("Renews a client's secret").problems(&[409])
}

#[rustfmt::skip] // A line per route reads as a table.
fn oauth_routes(router: Router) -> Router {
    router
        .get("/.well-known/openid-configuration", discovery::document).summary("OpenID Connect Discovery").public()
        .get("/.well-known/oauth-authorization-server", discovery::document).summary("RFC 8414").public()
        .get("/oauth/jwks", jwks::keys).summary("Public keys (RFC 7517)").public()
        .get("/oauth/authorize", authorize::get).summary("Authorization endpoint").public()
        .post("/oauth/authorize", authorize::post).summary("Authorization endpoint").public()
        .post("/oauth/login", steps::login).public().hidden()
        .post("/oauth/mfa", steps::second_factor).public().hidden()
        .post("/oauth/consent", steps::consent).public().hidden()
        .post("/oauth/token", token::token).summary("Token endpoint").public()
        .route(Method::OPTIONS, "/oauth/token", error::preflight).public().hidden()
        .get("/oauth/userinfo", userinfo::userinfo).summary("Claims about the person").public()
        .post("/oauth/userinfo", userinfo::userinfo).summary("Claims about the person").public()
        .route(Method::OPTIONS, "/oauth/userinfo", error::preflight).public().hidden()
        .post("/oauth/revoke", revoke::revoke).summary("Token revocation (RFC 7009)").public()
        .route(Method::OPTIONS, "/oauth/revoke", error::preflight).public().hidden()
        .post("/oauth/introspect", introspect::introspect).summary("Token introspection (RFC 7662)").public()
        .get("/oauth/logout", logout::get).summary("RP-initiated logout").public()
        .post("/oauth/logout", logout::post).summary("RP-initiated logout").public()
        .post("/oauth/register", register::register).summary("Dynamic client registration (RFC 7591)")
}

use maintenance::jobs;

exprsn_sdk::export!(http = routes, jobs = jobs);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// `methods` and `path` of every `[[route]]`, as the manifest writes them: the one before the other, a line each.
    fn declared() -> BTreeSet<(String, String)> {
        let mut methods = Vec::new();
        let mut all = BTreeSet::new();
        for line in include_str!("../component.toml").lines() {
            let quoted = || line.split('"').skip(1).step_by(2).map(str::to_owned);
            if line.starts_with("methods = ") {
                methods = quoted().collect();
            } else if line.starts_with("path = ") {
                let path = quoted().next().expect("a path in quotes");
                all.extend(methods.drain(..).map(|method| (method, path.clone())));
            }
        }
        all
    }

    #[test]
    fn manifest_and_router_have_the_same_routes() {
        let router = routes();
        let served = router
            .routes()
            .map(|(method, path)| (method.to_owned(), path.to_owned()));
        assert_eq!(
            served.collect::<BTreeSet<_>>(),
            declared(),
            "add the missing ones to component.toml or lib.rs"
        );
    }

    #[test]
    fn document_marks_as_public_what_the_manifest_does() {
        let document = routes().openapi();
        let text = include_str!("../component.toml");
        for block in text.split("[[route]]").skip(1) {
            let public = block.contains("access = \"public\"");
            let path = block
                .lines()
                .find_map(|l| l.strip_prefix("path = "))
                .expect("a path")
                .trim_matches('"');
            for (method, operation) in document["paths"][path].as_object().into_iter().flatten() {
                let open = operation["security"].as_array().is_some_and(Vec::is_empty);
                let named = block
                    .lines()
                    .any(|l| l.starts_with("methods") && l.to_lowercase().contains(&method[..]));
                assert!(!named || open == public, "{method} {path}");
            }
        }
    }
}
