//! The administration of OAuth clients.

use super::view::NoStore;
use crate::domain::client::{self, Asked, AuthMethod, BadMetadata, Client};
use crate::domain::scope::{Scope, Scopes};
use crate::domain::secret;
use crate::facts::{Facts, new_secret, subject};
use crate::flow::end;
use crate::store::audit::{self, Entry};
use crate::store::clients;
use crate::store::grants::{self, Which};
use exprsn_sdk::prelude::*;

/// The longest life of an initial access token, in seconds; the grant `ca.mint` says the same.
const INITIAL_TOKEN_S_MAX: i64 = 86_400;
/// The mark of an initial access token among its claims.
pub const INITIAL_TOKEN_CLAIM: &str = "client_registration";

/// A client as the administration writes it.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientForm {
    #[garde(skip)]
    name: String,
    /// https, http on 127.0.0.1, [::1] or localhost, or a private-use scheme. The port of 127.0.0.1 and [::1] is free.
    #[serde(default)]
    #[garde(skip)]
    redirect_uris: Vec<String>,
    #[serde(default)]
    #[garde(skip)]
    post_logout_redirect_uris: Vec<String>,
    /// `authorization_code`, `refresh_token`, `client_credentials`.
    #[serde(default)]
    #[garde(skip)]
    grant_types: Option<Vec<String>>,
    /// `none` for a public client, else `client_secret_basic` or `client_secret_post`.
    #[serde(default)]
    #[garde(skip)]
    token_endpoint_auth_method: Option<String>,
    /// What it may ask for at most, separated by spaces.
    #[serde(default)]
    #[garde(skip)]
    scope: Option<String>,
    /// Nobody is asked for consent.
    #[serde(default)]
    #[garde(skip)]
    first_party: bool,
    #[serde(default)]
    #[garde(skip)]
    client_uri: Option<String>,
}

/// A client as the administration sees it.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientView {
    id: String,
    name: String,
    redirect_uris: Vec<String>,
    post_logout_redirect_uris: Vec<String>,
    grant_types: Vec<String>,
    token_endpoint_auth_method: String,
    scope: String,
    first_party: bool,
    client_uri: Option<String>,
    /// Milliseconds since the Unix epoch.
    created_at: i64,
    /// Shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
}

impl ClientView {
    fn new(client: Client, client_secret: Option<String>) -> Self {
        Self {
            grant_types: client
                .grant_types
                .iter()
                .map(|g| g.as_str().to_owned())
                .collect(),
            token_endpoint_auth_method: client.auth_method.as_str().to_owned(),
            scope: client.scopes.to_string(),
            id: client.id,
            name: client.name,
            redirect_uris: client.redirect_uris,
            post_logout_redirect_uris: client.post_logout_redirect_uris,
            first_party: client.first_party,
            client_uri: client.client_uri,
            created_at: client.created_at,
            client_secret,
        }
    }
}

impl ClientForm {
    fn examine(self, id: &str, now: i64) -> Result<Client> {
        let first_party = self.first_party;
        let asked = Asked {
            name: Some(self.name),
            redirect_uris: self.redirect_uris,
            post_logout_redirect_uris: self.post_logout_redirect_uris,
            grant_types: self.grant_types,
            response_types: None,
            auth_method: self.token_endpoint_auth_method,
            scope: self.scope,
            client_uri: self.client_uri,
        };
        let all: Scopes = Scope::ALL.into_iter().collect();
        let client = client::examine(&asked, id, all, now).map_err(bad_metadata)?;
        Ok(Client {
            first_party,
            ..client
        })
    }
}

fn bad_metadata(bad: BadMetadata) -> Problem {
    let field = match bad.field {
        "client_name" => "/name",
        "redirect_uris" => "/redirectUris",
        "post_logout_redirect_uris" => "/postLogoutRedirectUris",
        "grant_types" => "/grantTypes",
        "token_endpoint_auth_method" => "/tokenEndpointAuthMethod",
        "client_uri" => "/clientUri",
        _ => "/scope",
    };
    Problem::unprocessable(field, bad.message)
}

/// Adds a client with a new secret, unless it is public.
pub async fn add(mut client: Client, by: &str, facts: &Facts) -> Result<(Client, Option<String>)> {
    let secret = (client.auth_method != AuthMethod::None).then(new_secret);
    client.secret_digest = secret.as_deref().map(secret::digest);
    let tx = sql::begin().await?;
    clients::insert(&tx, &client, by).await?;
    let entry = Entry {
        kind: "client.registered",
        user_id: None,
        client_id: Some(&client.id),
    };
    audit::write(&tx, entry, facts, json!({ "by": by, "name": client.name })).await?;
    tx.commit().await?;
    Ok((client, secret))
}

/// `POST /api/clients`
pub async fn create(
    user: User,
    facts: Facts,
    Json(form): Json<ClientForm>,
) -> Result<NoStore<Created<ClientView>>> {
    let client = form.examine(&uuid_v7(), facts.now)?;
    let (client, secret) = add(client, &subject(&user), &facts).await?;
    Ok(NoStore(Created::at(
        format!("/api/clients/{}", client.id),
        ClientView::new(client, secret),
    )))
}

/// `GET /api/clients`
pub async fn list(page: Query<PageQuery>) -> Result<Json<Page<ClientView>>> {
    let before = page
        .cursor::<(i64, String)>()?
        .unwrap_or((i64::MAX, String::new()));
    let found = clients::list(before, page.limit_plus_one()).await?;
    let page = page.page(found, |client| (client.created_at, client.id.clone()));
    Ok(Json(page.map(|client| ClientView::new(client, None))))
}

async fn find(id: &str) -> Result<Client> {
    clients::by_id(id)
        .await?
        .ok_or_else(|| Problem::not_found("client", id))
}

/// `GET /api/clients/{id}`
pub async fn show(Path(id): Path<String>) -> Result<Json<ClientView>> {
    Ok(Json(ClientView::new(find(&id).await?, None)))
}

/// `PUT /api/clients/{id}`: the secret stays; a client does not change between public and confidential.
pub async fn replace(
    user: User,
    facts: Facts,
    Path(id): Path<String>,
    Json(form): Json<ClientForm>,
) -> Result<Json<ClientView>> {
    let present = find(&id).await?;
    let mut client = form.examine(&id, present.created_at)?;
    if (client.auth_method == AuthMethod::None) == present.is_confidential() {
        let message = "cannot change between a secret and none: register another client";
        return Err(Problem::unprocessable("/tokenEndpointAuthMethod", message));
    }
    client.secret_digest = present.secret_digest;
    write(&client, "client.updated", &subject(&user), &facts).await?;
    Ok(Json(ClientView::new(client, None)))
}

async fn write(client: &Client, kind: &'static str, by: &str, facts: &Facts) -> Result<()> {
    let tx = sql::begin().await?;
    if !clients::update(&tx, client, facts.now).await? {
        return Err(Problem::not_found("client", &client.id));
    }
    let entry = Entry {
        kind,
        user_id: None,
        client_id: Some(&client.id),
    };
    audit::write(&tx, entry, facts, json!({ "by": by })).await?;
    Ok(tx.commit().await?)
}

/// `POST /api/clients/{id}/secret`: the old secret ends at once.
pub async fn renew_secret(
    user: User,
    facts: Facts,
    Path(id): Path<String>,
) -> Result<NoStore<Json<ClientView>>> {
    let mut client = find(&id).await?;
    if !client.is_confidential() {
        return Err(Problem::conflict("a public client has no secret"));
    }
    let secret = new_secret();
    client.secret_digest = Some(secret::digest(&secret));
    write(&client, "client.secret-renewed", &subject(&user), &facts).await?;
    Ok(NoStore(Json(ClientView::new(client, Some(secret)))))
}

/// `DELETE /api/clients/{id}`: with everything that was issued to it.
pub async fn delete(user: User, facts: Facts, Path(id): Path<String>) -> Result<NoContent> {
    let tx = sql::begin().await?;
    let mut tokens = grants::revoke(&tx, Which::OfClient(&id), facts.now).await?;
    tokens.extend(grants::own_tokens(&tx, &id, facts.now).await?);
    if !clients::delete(&tx, &id).await? {
        return Err(Problem::not_found("client", &id));
    }
    let entry = Entry {
        kind: "client.deleted",
        user_id: None,
        client_id: Some(&id),
    };
    audit::write(&tx, entry, &facts, json!({ "by": subject(&user) })).await?;
    let doomed = end::doom(&tx, tokens).await?;
    tx.commit().await?;
    end::finish(doomed).await;
    Ok(NoContent)
}

/// How long and how often an initial access token may be used.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InitialTokenForm {
    /// Seconds; an hour when absent.
    #[garde(inner(range(min = 60, max = INITIAL_TOKEN_S_MAX)))]
    expires_in: Option<i64>,
    /// Clients that may be registered with it; one when absent.
    #[garde(inner(range(min = 1, max = 1_000)))]
    uses: Option<u32>,
}

/// A token that lets its bearer register clients (RFC 7591 §3).
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InitialToken {
    initial_access_token: String,
    expires_in: i64,
    uses: u32,
}

/// `POST /api/clients/initial-access-tokens`
pub async fn initial_token(
    user: User,
    facts: Facts,
    Json(form): Json<InitialTokenForm>,
) -> Result<NoStore<Created<InitialToken>>> {
    let (expires_in, uses) = (form.expires_in.unwrap_or(3_600), form.uses.unwrap_or(1));
    let id = uuid_v7();
    let mut claims = Claims::new(
        format!("client:registration-{id}"),
        facts.now_s(),
        expires_in,
    );
    claims.id.clone_from(&id);
    claims.resources = vec!["exprsn-auth/oauth/register".to_owned()];
    claims.permissions = Permissions::WRITE;
    claims.uses_max = Some(uses);
    claims.extra = json!({ INITIAL_TOKEN_CLAIM: true }).to_string();
    let token = ca::mint(claims)
        .await
        .map_err(|e| Problem::fault("minting an initial access token", format!("{e:?}")))?;
    let tx = sql::begin().await?;
    let entry = Entry {
        kind: "initial-access-token.issued",
        user_id: None,
        client_id: None,
    };
    audit::write(
        &tx,
        entry,
        &facts,
        json!({ "by": subject(&user), "id": id, "uses": uses }),
    )
    .await?;
    tx.commit().await?;
    Ok(NoStore(Created::new(InitialToken {
        initial_access_token: token,
        expires_in,
        uses,
    })))
}
