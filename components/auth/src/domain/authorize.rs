//! The authorization request: is it good, and what comes next (OAuth 2.1 §4.1, OpenID Connect Core §3.1.2).

use super::client::{Client, GrantType};
use super::form::Parameters;
use super::pkce;
use super::scope::{Scope, Scopes};

/// Most characters of `state` and of `nonce`.
const OPAQUE_CHARS_MAX: usize = 2_048;

/// What a client may ask for in `prompt`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    pub none: bool,
    pub login: bool,
    pub consent: bool,
}

/// A request that is good for this client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub client_id: String,
    pub redirect_uri: String,
    pub scopes: Scopes,
    pub state: Option<String>,
    pub nonce: Option<String>,
    pub code_challenge: String,
    pub prompt: Prompt,
    /// Seconds since the person last proved who they are, at most.
    pub max_age: Option<i64>,
    pub login_hint: Option<String>,
    pub id_token_hint: Option<String>,
}

/// Why a request is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Client or redirect URI are in doubt: tell the person, and send nobody anywhere (RFC 6749 §4.1.2.1).
    Page(String),
    /// Tell the client.
    Redirect(Answer),
}

/// An error for the client, in the query of its redirect URI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub redirect_uri: String,
    pub state: Option<String>,
    pub error: &'static str,
    pub description: String,
}

/// Examines the parameters of a request by `client`, which was looked up by `client_id`.
pub fn examine(parameters: &Parameters, client: &Client) -> Result<Request, Refusal> {
    let asked = parameters.get("redirect_uri");
    let redirect_uri = client
        .redirect_uri(asked)
        .map_err(|m| Refusal::Page(m.to_owned()))?;
    examine_rest(parameters, client, redirect_uri).map_err(|(error, description)| {
        Refusal::Redirect(Answer {
            redirect_uri: redirect_uri.to_owned(),
            state: parameters.get("state").map(str::to_owned),
            error,
            description: description.to_owned(),
        })
    })
}

type Fault = (&'static str, &'static str);

fn examine_rest(
    parameters: &Parameters,
    client: &Client,
    redirect_uri: &str,
) -> Result<Request, Fault> {
    let get = |name| parameters.get(name).map(str::to_owned);
    examine_response(parameters)?;
    if !client.may(GrantType::AuthorizationCode) {
        return Err((
            "unauthorized_client",
            "the client may not use authorization_code",
        ));
    }
    let too_long = |name| {
        parameters
            .get(name)
            .is_some_and(|v| v.len() > OPAQUE_CHARS_MAX)
    };
    if too_long("state") || too_long("nonce") {
        return Err(("invalid_request", "state or nonce is too long"));
    }
    Ok(Request {
        client_id: client.id.clone(),
        redirect_uri: redirect_uri.to_owned(),
        scopes: examine_scopes(parameters, client)?,
        state: get("state"),
        nonce: get("nonce"),
        code_challenge: examine_challenge(parameters)?,
        prompt: examine_prompt(parameters.get("prompt").unwrap_or(""))?,
        max_age: examine_max_age(parameters.get("max_age"))?,
        login_hint: get("login_hint"),
        id_token_hint: get("id_token_hint"),
    })
}

fn examine_response(parameters: &Parameters) -> Result<(), Fault> {
    match parameters.get("response_type") {
        Some("code") => {}
        Some(_) => return Err(("unsupported_response_type", "response_type must be code")),
        None => return Err(("invalid_request", "response_type is missing")),
    }
    if parameters
        .get("response_mode")
        .is_some_and(|mode| mode != "query")
    {
        return Err(("invalid_request", "response_mode must be query"));
    }
    if parameters.get("request").is_some() {
        return Err(("request_not_supported", "request objects are not supported"));
    }
    if parameters.get("request_uri").is_some() {
        return Err(("request_uri_not_supported", "request_uri is not supported"));
    }
    Ok(())
}

fn examine_challenge(parameters: &Parameters) -> Result<String, Fault> {
    let challenge = parameters.get("code_challenge").ok_or((
        "invalid_request",
        "code_challenge is missing: PKCE is required",
    ))?;
    if parameters.get("code_challenge_method") != Some("S256") {
        return Err(("invalid_request", "code_challenge_method must be S256"));
    }
    if !pkce::is_challenge(challenge) {
        return Err((
            "invalid_request",
            "code_challenge is not a SHA-256 in base64url",
        ));
    }
    Ok(challenge.to_owned())
}

fn examine_scopes(parameters: &Parameters, client: &Client) -> Result<Scopes, Fault> {
    let scopes = match parameters.get("scope") {
        Some(text) => Scopes::parse(text).and(client.scopes),
        None => client
            .scopes
            .without(Scope::OpenId)
            .without(Scope::OfflineAccess),
    };
    if scopes.is_empty() {
        return Err(("invalid_scope", "none of the scopes is open to this client"));
    }
    Ok(scopes)
}

fn examine_prompt(text: &str) -> Result<Prompt, Fault> {
    let mut prompt = Prompt::default();
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        match word {
            "none" => prompt.none = true,
            // There is one account per browser: choosing another is logging in again.
            "login" | "select_account" => prompt.login = true,
            "consent" => prompt.consent = true,
            _ => return Err(("invalid_request", "prompt has an unknown value")),
        }
    }
    if prompt.none && (prompt.login || prompt.consent) {
        return Err(("invalid_request", "prompt=none goes with nothing else"));
    }
    Ok(prompt)
}

fn examine_max_age(text: Option<&str>) -> Result<Option<i64>, Fault> {
    let parsed = text.map(|t| t.parse::<u32>().map(i64::from)).transpose();
    parsed.map_err(|_| ("invalid_request", "max_age must be a number of seconds"))
}

/// What is known about the person at the browser. Instants in seconds since the Unix epoch.
#[derive(Clone, Debug)]
pub struct Present {
    pub user_id: String,
    /// When the person last proved who they are.
    pub authenticated_at_s: i64,
    /// What the person has allowed this client before.
    pub consented: Scopes,
}

/// How the present request of the browser came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The person has just logged in for this very request.
    pub logged_in: bool,
    /// The person has just agreed to this very request.
    pub agreed: bool,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Login,
    Consent,
    IssueCode,
    /// `prompt=none`, and it cannot be done without asking (OpenID Connect Core §3.1.2.6).
    Refuse(&'static str),
}

/// Decides what comes next. `hinted` is the user of a valid `id_token_hint`.
pub fn next(
    request: &Request,
    client: &Client,
    present: Option<&Present>,
    hinted: Option<&str>,
    done: Progress,
    now_s: i64,
) -> Step {
    let ask = |step, error| {
        if request.prompt.none {
            Step::Refuse(error)
        } else {
            step
        }
    };
    let Some(present) = present else {
        return ask(Step::Login, "login_required");
    };
    let stale = request
        .max_age
        .is_some_and(|max| now_s - present.authenticated_at_s > max);
    let another = hinted.is_some_and(|user| user != present.user_id);
    if another || (!done.logged_in && !done.agreed && (request.prompt.login || stale)) {
        return ask(Step::Login, "login_required");
    }
    let known = client.first_party || request.scopes.within(present.consented);
    if !done.agreed && (request.prompt.consent || !known) {
        return ask(Step::Consent, "consent_required");
    }
    Step::IssueCode
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::client::{Asked, examine as examine_client};
    use crate::domain::form::encode;

    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    fn client() -> Client {
        let asked = Asked {
            redirect_uris: vec!["https://a.example/cb".into(), "http://127.0.0.1/cb".into()],
            scope: Some("openid profile offline_access read".into()),
            ..Asked::default()
        };
        examine_client(&asked, "c1", Scope::ALL.into_iter().collect(), 0).expect("a good client")
    }

    fn parameters(changes: &[(&str, &str)]) -> Parameters {
        let mut all = vec![
            ("response_type", "code"),
            ("client_id", "c1"),
            ("redirect_uri", "https://a.example/cb"),
            ("scope", "openid profile"),
            ("state", "s1"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
        ];
        all.retain(|(name, _)| changes.iter().all(|(changed, _)| changed != name));
        all.extend(changes);
        let pairs: Vec<String> = all
            .iter()
            .map(|(n, v)| format!("{}={}", encode(n), encode(v)))
            .collect();
        Parameters::parse(&pairs.join("&")).expect("well formed")
    }

    fn request(changes: &[(&str, &str)]) -> Request {
        examine(&parameters(changes), &client()).expect("a good request")
    }

    #[test]
    fn accepts_a_good_request_and_ignores_unknown_scopes() {
        let r = request(&[
            ("scope", "openid email bogus read"),
            ("nonce", "n"),
            ("max_age", "60"),
        ]);
        assert_eq!(
            r.scopes.to_string(),
            "openid read",
            "email is not open to this client"
        );
        assert_eq!(
            (r.state.as_deref(), r.nonce.as_deref(), r.max_age),
            (Some("s1"), Some("n"), Some(60))
        );
    }

    #[test]
    fn sends_nobody_to_an_unregistered_address() {
        for uri in ["https://evil.example/cb", "https://a.example/cb/", ""] {
            let refused = examine(&parameters(&[("redirect_uri", uri)]), &client());
            assert!(
                matches!(refused, Err(Refusal::Page(_))),
                "{uri}: {refused:?}"
            );
        }
    }

    #[test]
    fn tells_the_client_what_is_wrong() {
        for (changes, error) in [
            (
                vec![("response_type", "token")],
                "unsupported_response_type",
            ),
            (vec![("response_type", "")], "invalid_request"),
            (vec![("response_mode", "fragment")], "invalid_request"),
            (vec![("code_challenge", "")], "invalid_request"),
            (vec![("code_challenge", "short")], "invalid_request"),
            (vec![("code_challenge_method", "plain")], "invalid_request"),
            (vec![("code_challenge_method", "")], "invalid_request"),
            (vec![("scope", "bogus")], "invalid_scope"),
            (vec![("prompt", "none login")], "invalid_request"),
            (vec![("prompt", "dance")], "invalid_request"),
            (vec![("max_age", "soon")], "invalid_request"),
            (vec![("max_age", "-1")], "invalid_request"),
            (vec![("request", "ey")], "request_not_supported"),
            (
                vec![("request_uri", "https://a.example/r")],
                "request_uri_not_supported",
            ),
        ] {
            match examine(&parameters(&changes), &client()) {
                Err(Refusal::Redirect(answer)) => {
                    assert_eq!(
                        (answer.error, answer.state.as_deref()),
                        (error, Some("s1")),
                        "{changes:?}"
                    );
                }
                other => panic!("{changes:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_client_without_the_grant_is_told_so() {
        let mut client = client();
        client.grant_types = vec![GrantType::ClientCredentials];
        let refused = examine(&parameters(&[]), &client);
        assert!(matches!(refused, Err(Refusal::Redirect(a)) if a.error == "unauthorized_client"));
    }

    fn step(changes: &[(&str, &str)], present: Option<(i64, &str)>, done: Progress) -> Step {
        let present = present.map(|(at, consented)| Present {
            user_id: "u1".into(),
            authenticated_at_s: at,
            consented: Scopes::parse(consented),
        });
        next(
            &request(changes),
            &client(),
            present.as_ref(),
            None,
            done,
            1_000,
        )
    }

    #[test]
    fn asks_for_login_then_consent_then_issues() {
        let start = Progress::default();
        assert_eq!(step(&[], None, start), Step::Login);
        assert_eq!(step(&[], Some((900, "")), start), Step::Consent);
        assert_eq!(step(&[], Some((900, "openid")), start), Step::Consent);
        assert_eq!(
            step(&[], Some((900, "openid profile")), start),
            Step::IssueCode
        );
        assert_eq!(
            step(
                &[],
                Some((900, "")),
                Progress {
                    agreed: true,
                    ..start
                }
            ),
            Step::IssueCode
        );
    }

    #[test]
    fn asks_again_when_the_client_wants_so() {
        let start = Progress::default();
        let logged_in = Progress {
            logged_in: true,
            ..start
        };
        let known = Some((900, "openid profile"));
        assert_eq!(step(&[("prompt", "login")], known, start), Step::Login);
        assert_eq!(
            step(&[("prompt", "login")], known, logged_in),
            Step::IssueCode
        );
        assert_eq!(step(&[("prompt", "consent")], known, start), Step::Consent);
        assert_eq!(step(&[("max_age", "99")], known, start), Step::Login);
        assert_eq!(step(&[("max_age", "100")], known, start), Step::IssueCode);
        assert_eq!(step(&[("max_age", "0")], known, logged_in), Step::IssueCode);
    }

    #[test]
    fn never_asks_under_prompt_none() {
        let none = [("prompt", "none")];
        let start = Progress::default();
        assert_eq!(step(&none, None, start), Step::Refuse("login_required"));
        assert_eq!(
            step(&none, Some((900, "")), start),
            Step::Refuse("consent_required")
        );
        assert_eq!(
            step(&none, Some((900, "openid profile")), start),
            Step::IssueCode
        );
        let stale = [("prompt", "none"), ("max_age", "10")];
        assert_eq!(
            step(&stale, Some((900, "openid profile")), start),
            Step::Refuse("login_required")
        );
    }

    #[test]
    fn first_party_clients_need_no_consent_and_hints_bind_the_person() {
        let mut client = client();
        client.first_party = true;
        let present = Present {
            user_id: "u1".into(),
            authenticated_at_s: 900,
            consented: Scopes::NONE,
        };
        let decide = |hinted| {
            next(
                &request(&[]),
                &client,
                Some(&present),
                hinted,
                Progress::default(),
                1_000,
            )
        };
        assert_eq!(decide(None), Step::IssueCode);
        assert_eq!(decide(Some("u1")), Step::IssueCode);
        assert_eq!(decide(Some("u2")), Step::Login);
    }
}
