//! OAuth clients: their metadata (RFC 7591), and how one proves who it is (RFC 6749 §2.3).

use super::form::{self, Parameters};
use super::redirect;
use super::scope::{Scope, Scopes};
use super::secret;
use data_encoding::BASE64;

/// Most redirect URIs of one client.
pub const REDIRECT_URIS_MAX: usize = 20;
/// Most characters of a client's name.
pub const NAME_CHARS_MAX: usize = 100;

/// A way to obtain tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantType {
    AuthorizationCode,
    RefreshToken,
    ClientCredentials,
}

impl GrantType {
    pub const ALL: [Self; 3] = [
        Self::AuthorizationCode,
        Self::RefreshToken,
        Self::ClientCredentials,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::RefreshToken => "refresh_token",
            Self::ClientCredentials => "client_credentials",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|g| g.as_str() == text)
    }
}

/// How a client authenticates at the token endpoint, as RFC 7591 names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMethod {
    None,
    SecretBasic,
    SecretPost,
}

impl AuthMethod {
    pub const ALL: [Self; 3] = [Self::SecretBasic, Self::SecretPost, Self::None];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SecretBasic => "client_secret_basic",
            Self::SecretPost => "client_secret_post",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|m| m.as_str() == text)
    }
}

/// A registered client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub id: String,
    pub name: String,
    /// SHA-256 of the secret; a public client has none.
    pub secret_digest: Option<String>,
    pub auth_method: AuthMethod,
    pub redirect_uris: Vec<String>,
    pub post_logout_redirect_uris: Vec<String>,
    pub grant_types: Vec<GrantType>,
    /// What it may ask for at most.
    pub scopes: Scopes,
    /// Belongs to the platform's operator: nobody is asked for consent.
    pub first_party: bool,
    pub client_uri: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub created_at: i64,
}

impl Client {
    pub fn may(&self, grant: GrantType) -> bool {
        self.grant_types.contains(&grant)
    }

    /// Whether it can keep a secret, and has one.
    pub fn is_confidential(&self) -> bool {
        self.secret_digest.is_some()
    }

    /// The redirect URI of a request: the one asked for if it is registered, or the only one there is.
    pub fn redirect_uri<'a>(&'a self, asked: Option<&'a str>) -> Result<&'a str, &'static str> {
        match (asked, self.redirect_uris.as_slice()) {
            (Some(asked), registered) if registered.iter().any(|r| redirect::matches(r, asked)) => {
                Ok(asked)
            }
            (Some(_), _) => Err("redirect_uri is not registered for this client"),
            (None, [only]) => Ok(only),
            (None, _) => Err("redirect_uri is missing"),
        }
    }
}

/// What a client asks to be registered with, from RFC 7591's document or the administration's.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub name: Option<String>,
    pub redirect_uris: Vec<String>,
    pub post_logout_redirect_uris: Vec<String>,
    pub grant_types: Option<Vec<String>>,
    pub response_types: Option<Vec<String>>,
    pub auth_method: Option<String>,
    pub scope: Option<String>,
    pub client_uri: Option<String>,
}

/// Why metadata were refused. The field is RFC 7591's name of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMetadata {
    pub field: &'static str,
    pub message: String,
}

fn bad(field: &'static str, message: impl Into<String>) -> BadMetadata {
    BadMetadata {
        field,
        message: message.into(),
    }
}

/// Checks what was asked for and fills in RFC 7591's defaults. `allowed` bounds the scopes; the secret is the caller's affair.
pub fn examine(asked: &Asked, id: &str, allowed: Scopes, now: i64) -> Result<Client, BadMetadata> {
    let grant_types = examine_grant_types(asked)?;
    let auth_method = examine_auth_method(asked, &grant_types)?;
    examine_uris("redirect_uris", &asked.redirect_uris)?;
    examine_uris(
        "post_logout_redirect_uris",
        &asked.post_logout_redirect_uris,
    )?;
    if grant_types.contains(&GrantType::AuthorizationCode) && asked.redirect_uris.is_empty() {
        return Err(bad(
            "redirect_uris",
            "must have one at least for authorization_code",
        ));
    }
    if let Some(uri) = &asked.client_uri
        && !(uri.starts_with("https://") && redirect::check(uri).is_ok())
    {
        return Err(bad("client_uri", "must be an https URI"));
    }
    Ok(Client {
        id: id.to_owned(),
        name: examine_name(asked, id)?,
        secret_digest: None,
        auth_method,
        redirect_uris: asked.redirect_uris.clone(),
        post_logout_redirect_uris: asked.post_logout_redirect_uris.clone(),
        scopes: examine_scope(asked, &grant_types, allowed)?,
        grant_types,
        first_party: false,
        client_uri: asked.client_uri.clone(),
        created_at: now,
    })
}

fn examine_name(asked: &Asked, id: &str) -> Result<String, BadMetadata> {
    let name = asked.name.as_deref().map_or(id, str::trim);
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX {
        return Err(bad("client_name", "must have 1 to 100 characters"));
    }
    super::names::check_shown(name).map_err(|m| bad("client_name", m))?;
    Ok(name.to_owned())
}

fn examine_grant_types(asked: &Asked) -> Result<Vec<GrantType>, BadMetadata> {
    let Some(words) = &asked.grant_types else {
        return Ok(vec![GrantType::AuthorizationCode]);
    };
    let mut grants = Vec::new();
    for word in words {
        let grant = GrantType::parse(word)
            .ok_or_else(|| bad("grant_types", format!("{word} is not supported")))?;
        if !grants.contains(&grant) {
            grants.push(grant);
        }
    }
    if grants.is_empty() {
        return Err(bad("grant_types", "must have one at least"));
    }
    let other = asked.response_types.iter().flatten().find(|r| *r != "code");
    match other {
        Some(other) => Err(bad("response_types", format!("{other} is not supported"))),
        None => Ok(grants),
    }
}

fn examine_auth_method(asked: &Asked, grants: &[GrantType]) -> Result<AuthMethod, BadMetadata> {
    const FIELD: &str = "token_endpoint_auth_method";
    let word = asked
        .auth_method
        .as_deref()
        .unwrap_or(AuthMethod::SecretBasic.as_str());
    let method =
        AuthMethod::parse(word).ok_or_else(|| bad(FIELD, format!("{word} is not supported")))?;
    if method == AuthMethod::None && grants.contains(&GrantType::ClientCredentials) {
        return Err(bad(FIELD, "must not be none for client_credentials"));
    }
    Ok(method)
}

fn examine_uris(field: &'static str, uris: &[String]) -> Result<(), BadMetadata> {
    if uris.len() > REDIRECT_URIS_MAX {
        return Err(bad(field, format!("must have at most {REDIRECT_URIS_MAX}")));
    }
    for uri in uris {
        redirect::check(uri).map_err(|m| bad(field, format!("{uri:?} {m}")))?;
    }
    Ok(())
}

fn examine_scope(
    asked: &Asked,
    grants: &[GrantType],
    allowed: Scopes,
) -> Result<Scopes, BadMetadata> {
    let Some(text) = &asked.scope else {
        let sign_in = Scopes::parse("openid profile email");
        let refresh = grants.contains(&GrantType::RefreshToken);
        return Ok(if refresh {
            sign_in.with(Scope::OfflineAccess)
        } else {
            sign_in
        });
    };
    let scopes = Scopes::parse_strict(text)
        .map_err(|word| bad("scope", format!("{word:?} is not a scope")))?;
    if scopes.within(allowed) {
        Ok(scopes)
    } else {
        Err(bad("scope", format!("may be {allowed} at most")))
    }
}

/// What a request says about the client that makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub id: String,
    pub secret: Option<String>,
    /// They came in the `Authorization` header, so a refusal answers with `WWW-Authenticate` (RFC 6749 §5.2).
    pub basic: bool,
}

/// Reads a client's credentials from the `Authorization` header or the form; using both is an error (RFC 6749 §2.3).
pub fn credentials(
    authorization: Option<&str>,
    form: &Parameters,
) -> Result<Credentials, &'static str> {
    let basic = authorization.and_then(|value| {
        let (scheme, rest) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("basic").then_some(rest.trim())
    });
    let Some(encoded) = basic else {
        let id = form
            .get("client_id")
            .ok_or("the request does not say which client makes it")?;
        let secret = form.get("client_secret").map(str::to_owned);
        return Ok(Credentials {
            id: id.to_owned(),
            secret,
            basic: false,
        });
    };
    if form.get("client_secret").is_some() {
        return Err("the client authenticates in two ways at once");
    }
    let (id, secret) = decode_basic(encoded).ok_or("the Authorization header is malformed")?;
    if form.get("client_id").is_some_and(|other| other != id) {
        return Err("client_id differs from the Authorization header");
    }
    Ok(Credentials {
        id,
        secret: Some(secret),
        basic: true,
    })
}

/// Id and secret were form-encoded, joined by a colon and then put into base64 (RFC 6749 §2.3.1).
fn decode_basic(encoded: &str) -> Option<(String, String)> {
    let bytes = BASE64.decode(encoded.as_bytes()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (id, secret) = text.split_once(':')?;
    Some((form::decode(id)?, form::decode(secret)?))
}

/// Whether the credentials are the client's. A confidential client must give its secret, and a public one has none to give.
pub fn authentic(client: &Client, offered: &Credentials) -> bool {
    match (&client.secret_digest, &offered.secret) {
        (Some(stored), Some(secret)) => secret::same(stored, &secret::digest(secret)),
        (None, None) => true,
        // Some libraries send an empty secret for a public client.
        (None, Some(secret)) => secret.is_empty(),
        (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked {
            redirect_uris: vec!["https://a.example/cb".into()],
            ..Asked::default()
        }
    }

    fn all() -> Scopes {
        Scope::ALL.into_iter().collect()
    }

    #[test]
    fn fills_in_the_defaults_of_the_rfc() {
        let client = examine(&asked(), "c1", all(), 7).expect("enough");
        assert_eq!(client.grant_types, [GrantType::AuthorizationCode]);
        assert_eq!(client.auth_method, AuthMethod::SecretBasic);
        assert_eq!(client.scopes.to_string(), "openid profile email");
        assert_eq!((client.name.as_str(), client.first_party), ("c1", false));
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        let check = |change: fn(&mut Asked), field: &str| {
            let mut asked = asked();
            change(&mut asked);
            assert_eq!(
                examine(&asked, "c1", Scopes::parse("openid read"), 7).map_err(|e| e.field),
                Err(field)
            );
        };
        check(|a| a.redirect_uris.clear(), "redirect_uris");
        check(
            |a| a.redirect_uris.push("javascript:x".into()),
            "redirect_uris",
        );
        check(
            |a| a.redirect_uris = vec!["https://a.example/".into(); 21],
            "redirect_uris",
        );
        check(
            |a| a.post_logout_redirect_uris.push("http://a.example/".into()),
            "post_logout_redirect_uris",
        );
        check(
            |a| a.grant_types = Some(vec!["password".into()]),
            "grant_types",
        );
        check(|a| a.grant_types = Some(vec![]), "grant_types");
        check(
            |a| {
                a.grant_types = Some(vec!["authorization_code".into()]);
                a.response_types = Some(vec!["token".into()]);
            },
            "response_types",
        );
        check(
            |a| a.auth_method = Some("private_key_jwt".into()),
            "token_endpoint_auth_method",
        );
        check(
            |a| {
                a.auth_method = Some("none".into());
                a.grant_types = Some(vec!["client_credentials".into()]);
            },
            "token_endpoint_auth_method",
        );
        check(|a| a.scope = Some("openid write".into()), "scope");
        check(|a| a.scope = Some("openid bogus".into()), "scope");
        check(|a| a.name = Some(" ".into()), "client_name");
        check(|a| a.client_uri = Some("javascript:x".into()), "client_uri");
    }

    #[test]
    fn reads_basic_credentials_form_encoded() {
        let none = Parameters::default();
        let header = format!("Basic {}", BASE64.encode(b"my%3Aid:s%2Bcret+x"));
        let read = credentials(Some(&header), &none).expect("well formed");
        assert_eq!(
            (read.id.as_str(), read.secret.as_deref(), read.basic),
            ("my:id", Some("s+cret x"), true)
        );
        assert!(credentials(Some("Basic !!"), &none).is_err());
        assert!(credentials(None, &none).is_err());
    }

    #[test]
    fn reads_form_credentials_and_refuses_two_ways() {
        let form = Parameters::parse("client_id=c1&client_secret=s").expect("well formed");
        let read = credentials(Some("Bearer x"), &form).expect("well formed");
        assert_eq!(
            (read.id.as_str(), read.secret.as_deref(), read.basic),
            ("c1", Some("s"), false)
        );
        let header = format!("basic {}", BASE64.encode(b"c1:s"));
        assert!(credentials(Some(&header), &form).is_err());
        let other = Parameters::parse("client_id=c2").expect("well formed");
        assert!(credentials(Some(&header), &other).is_err());
    }

    #[test]
    fn a_secret_proves_and_its_absence_does_not() {
        let mut client = examine(&asked(), "c1", all(), 7).expect("enough");
        let with = |secret: Option<&str>| Credentials {
            id: "c1".into(),
            secret: secret.map(Into::into),
            basic: false,
        };
        assert!(authentic(&client, &with(None)), "public");
        assert!(
            !authentic(&client, &with(Some("guess"))),
            "public clients have no secret"
        );
        client.secret_digest = Some(secret::digest("right"));
        assert!(authentic(&client, &with(Some("right"))));
        assert!(!authentic(&client, &with(Some("wrong"))));
        assert!(!authentic(&client, &with(None)));
    }

    #[test]
    fn chooses_the_redirect_uri() {
        let mut client = examine(&asked(), "c1", all(), 7).expect("enough");
        assert_eq!(client.redirect_uri(None), Ok("https://a.example/cb"));
        assert!(client.redirect_uri(Some("https://b.example/cb")).is_err());
        client.redirect_uris.push("http://127.0.0.1/cb".into());
        assert!(client.redirect_uri(None).is_err());
        assert_eq!(
            client.redirect_uri(Some("http://127.0.0.1:9/cb")),
            Ok("http://127.0.0.1:9/cb")
        );
    }
}
