//! The token endpoint (OAuth 2.1 §3.2).

use super::error::{OAuthError, OAuthResult, answer, authenticate, either, form};
use super::jwks::ID_TOKEN_KEY;
use super::userinfo;
use crate::domain::client::{Client, GrantType};
use crate::domain::form::Parameters;
use crate::domain::id_token::Claims as IdClaims;
use crate::domain::scope::{Scope, Scopes};
use crate::domain::{pkce, secret};
use crate::facts::Facts;
use crate::flow::issue::{self, Account, Pair};
use crate::flow::{end, rotate};
use crate::settings::settings;
use crate::store::codes::{self, Code};
use crate::store::grants::{self, Grant};
use crate::store::sessions::{self, Session};
use exprsn_sdk::ca::Algorithm;
use exprsn_sdk::prelude::*;

/// `POST /oauth/token`
pub async fn token(request: Request) -> Response {
    either(issue_tokens(request).await)
}

async fn issue_tokens(mut request: Request) -> OAuthResult {
    let facts = Facts::of(&request);
    let form = form(&mut request).await?;
    let client = authenticate(&request, &form).await?;
    let word = form
        .get("grant_type")
        .ok_or_else(|| OAuthError::invalid_request("grant_type is missing"))?;
    let grant = GrantType::parse(word).ok_or_else(|| {
        OAuthError::new(
            "unsupported_grant_type",
            format!("{word:?} is not supported"),
        )
    })?;
    if !client.may(grant) {
        return Err(OAuthError::new(
            "unauthorized_client",
            format!("the client may not use {word}"),
        ));
    }
    match grant {
        GrantType::AuthorizationCode => exchange_code(&client, &form, &facts).await,
        GrantType::RefreshToken => exchange_refresh(&client, &form, &facts).await,
        GrantType::ClientCredentials => client_credentials(&client, &form, &facts).await,
    }
}

async fn exchange_code(client: &Client, form: &Parameters, facts: &Facts) -> OAuthResult {
    let given = form
        .get("code")
        .ok_or_else(|| OAuthError::invalid_request("code is missing"))?;
    let verifier = form
        .get("code_verifier")
        .ok_or_else(|| OAuthError::invalid_request("code_verifier is missing"))?;
    let code = codes::by_digest(&secret::digest(given)).await?;
    let code = code
        .filter(|code| code.client_id == client.id)
        .ok_or_else(OAuthError::invalid_grant)?;
    if code.used_at.is_some() {
        return Err(used_twice(&code, facts).await?);
    }
    let same_address = form
        .get("redirect_uri")
        .is_none_or(|uri| uri == code.redirect_uri);
    if code.expires_at <= facts.now
        || !same_address
        || !pkce::proves(verifier, &code.code_challenge)
    {
        return Err(OAuthError::invalid_grant());
    }
    let session = sessions::by_id(&code.session_id, facts.now)
        .await?
        .ok_or_else(OAuthError::invalid_grant)?;
    let account = Account::by_id(&code.user_id)
        .await?
        .ok_or_else(OAuthError::invalid_grant)?;
    let grant = grant_of(&code, &session, facts);
    let Some(pair) = open_grant(client, &code, &grant, &account, facts).await? else {
        // Somebody was faster with the same code.
        let code = codes::by_digest(&code.digest)
            .await?
            .ok_or_else(OAuthError::invalid_grant)?;
        return Err(used_twice(&code, facts).await?);
    };
    respond(
        client,
        &account,
        &session,
        code.nonce.as_deref(),
        pair,
        facts,
    )
    .await
}

fn grant_of(code: &Code, session: &Session, facts: &Facts) -> Grant {
    let offline = Scopes::parse(&code.scope).has(Scope::OfflineAccess);
    Grant {
        id: uuid_v7(),
        user_id: code.user_id.clone(),
        session_id: code.session_id.clone(),
        client_id: code.client_id.clone(),
        offline,
        scope: code.scope.clone(),
        expires_at: if offline {
            facts.now + settings().session_ms
        } else {
            session.expires_at
        },
    }
}

/// Opens the grant of a code with its first tokens; none when the code was used meanwhile.
async fn open_grant(
    client: &Client,
    code: &Code,
    grant: &Grant,
    account: &Account,
    facts: &Facts,
) -> OAuthResult<Option<Pair>> {
    let access = issue::mint_for_person(account, grant, Scopes::parse(&grant.scope), facts).await?;
    let tx = sql::begin().await?;
    if !codes::redeem(&tx, &code.digest, &grant.id, facts.now).await? {
        tx.rollback().await?;
        return Ok(None);
    }
    grants::insert(&tx, grant, facts.now).await?;
    let pair = issue::remember(
        &tx,
        grant,
        access,
        client.may(GrantType::RefreshToken),
        facts,
    )
    .await?;
    tx.commit().await?;
    Ok(Some(pair))
}

/// A second use of a code ends what the first one gave (OAuth 2.1 §4.1.3).
async fn used_twice(code: &Code, facts: &Facts) -> OAuthResult<OAuthError> {
    if let Some(grant_id) = &code.grant_id {
        log::warn!(
            "an authorization code was used twice; its grant is revoked",
            client = code.client_id
        );
        end::end_grant(
            &code.user_id,
            grant_id,
            &code.client_id,
            "code.reused",
            facts,
        )
        .await?;
    }
    Ok(OAuthError::invalid_grant())
}

async fn exchange_refresh(client: &Client, form: &Parameters, facts: &Facts) -> OAuthResult {
    let given = form
        .get("refresh_token")
        .ok_or_else(|| OAuthError::invalid_request("refresh_token is missing"))?;
    let narrowed = form.get("scope").map(Scopes::parse);
    if narrowed.is_some_and(Scopes::is_empty) {
        return Err(OAuthError::new(
            "invalid_scope",
            "none of the scopes was granted",
        ));
    }
    let rotated = rotate::rotate(given, &client.id, narrowed, facts).await?;
    let rotate::Rotated {
        account,
        stored,
        pair,
    } = rotated.ok_or_else(OAuthError::invalid_grant)?;
    // An offline grant may outlive its session; the ID token still tells of the sign-in that it came from.
    let session = sessions::any_by_id(&stored.session_id)
        .await?
        .ok_or_else(OAuthError::invalid_grant)?;
    respond(client, &account, &session, None, pair, facts).await
}

async fn client_credentials(client: &Client, form: &Parameters, facts: &Facts) -> OAuthResult {
    if !client.is_confidential() {
        return Err(OAuthError::new(
            "unauthorized_client",
            "a public client has no identity of its own",
        ));
    }
    let open = client.scopes.permissions();
    let scopes = form
        .get("scope")
        .map_or(open, |text| Scopes::parse(text).and(open));
    if scopes.is_empty() {
        return Err(OAuthError::new(
            "invalid_scope",
            "none of the scopes is open to this client",
        ));
    }
    let minted = issue::mint_for_client(&client.id, scopes, facts).await?;
    let tx = sql::begin().await?;
    grants::insert_access(&tx, &minted.record, None, &client.id).await?;
    tx.commit().await?;
    Ok(answer(
        StatusCode::OK,
        &json!({
            "access_token": minted.token,
            "token_type": "Bearer",
            "expires_in": minted.lifetime_s,
            "scope": scopes.to_string(),
        }),
    ))
}

async fn respond(
    client: &Client,
    account: &Account,
    session: &Session,
    nonce: Option<&str>,
    pair: Pair,
    facts: &Facts,
) -> OAuthResult {
    let access = &pair.access;
    let mut body = json!({
        "access_token": access.token,
        "token_type": "Bearer",
        "expires_in": access.lifetime_s,
        "scope": access.scopes.to_string(),
    });
    if access.scopes.has(Scope::OpenId) {
        let methods: Vec<String> = session.methods.split(' ').map(str::to_owned).collect();
        let claims = IdClaims {
            issuer: &settings().issuer,
            user_id: &account.user.id,
            client_id: &client.id,
            session_id: &session.id,
            nonce,
            authenticated_at_s: session.authenticated_at.div_euclid(1_000),
            methods: &methods,
            access_token: &access.token,
            now_s: facts.now_s(),
            lifetime_s: access.lifetime_s,
            person: userinfo::claims(&account.user, access.scopes),
        };
        let token = ca::sign_jwt(ID_TOKEN_KEY, Algorithm::Rs256, "JWT", &claims.to_json()).await?;
        body["id_token"] = token.into();
    }
    if let Some(refresh) = pair.refresh {
        body["refresh_token"] = refresh.token.into();
    }
    Ok(answer(StatusCode::OK, &body))
}
