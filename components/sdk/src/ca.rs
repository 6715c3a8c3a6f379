//! Identity: who is calling, tokens, and keys that stay with the host.

use serde_json::{Map, Value};

use crate::bindings::exprsn::ca as host;
use crate::problem::Problem;

pub use host::caller::{Invocation, Kind, Principal};
pub use host::signer::Algorithm;
pub use host::tokens::{Rejection, Verdict};
pub use host::types::{Claims, Error, Permissions};

/// The invocation being handled; in a handler the extractor [`Caller`](crate::Caller) is shorter.
pub fn current() -> Invocation {
    host::caller::current()
}

/// Verifies a token, without counting a use.
pub async fn verify(token: &str) -> Result<Verdict, Error> {
    host::tokens::verify(token.to_owned()).await
}

/// Signs a token within the bounds of the grant `ca.mint`.
pub async fn mint(claims: Claims) -> Result<String, Error> {
    host::tokens::mint(claims).await
}

/// Revokes a token by its id until it expires, in every host.
pub async fn revoke(id: &str, expires_at: i64) -> Result<(), Error> {
    host::tokens::revoke(id.to_owned(), expires_at).await
}

/// Signs a JWT whose header says `typ`; `claims` is its payload.
pub async fn sign_jwt(
    key: &str,
    algorithm: Algorithm,
    typ: &str,
    claims: &Value,
) -> Result<String, Error> {
    host::signer::sign_jwt(
        key.to_owned(),
        algorithm,
        typ.to_owned(),
        claims.to_string(),
    )
    .await
}

/// The public keys under `key` as a JSON Web Key Set, the present one first.
pub async fn public_keys(key: &str, algorithm: Algorithm) -> Result<Value, Error> {
    json(host::signer::public_keys(key.to_owned(), algorithm).await?)
}

/// HMAC-SHA256 of `data` with a secret of this service.
pub async fn hmac(key: &str, data: impl Into<Vec<u8>>) -> Result<Vec<u8>, Error> {
    host::signer::hmac(key.to_owned(), data.into()).await
}

fn json(text: String) -> Result<Value, Error> {
    serde_json::from_str(&text).map_err(|error| Error::Unavailable(error.to_string()))
}

/// The certificate authority's own keys, which only exprsn-ca is given.
pub mod authority {
    use serde_json::Value;

    use super::{Claims, Error, host, json};
    use crate::{Body, Problem};

    pub use host::authority::{Admission, Certificate, Component, Decided, Revoked, Withheld};

    /// The root certificate.
    pub async fn root() -> Result<Certificate, Error> {
        host::authority::root().await
    }

    /// The intermediate certificate.
    pub async fn intermediate() -> Result<Certificate, Error> {
        host::authority::intermediate().await
    }

    /// Components that this host has admitted.
    pub async fn components() -> Result<Vec<Component>, Error> {
        host::authority::components().await
    }

    /// The same with all that is known of them, newest first.
    pub async fn admissions() -> Result<Vec<Admission>, Error> {
        host::authority::admissions().await
    }

    /// Takes a component file into the host's library; answers what it is and asks for.
    ///
    /// Unread, a request's body goes to the host without entering this component.
    pub async fn receive(file: Body) -> Result<Value, Problem> {
        let (stream, end) = crate::runtime::send_body(file);
        let stream = stream.unwrap_or_else(|| crate::bindings::wit_stream::new().1);
        let received = host::authority::receive(stream).await;
        if let Err(Error::LimitExceeded(what)) = received {
            return Err(Problem::new(http::StatusCode::PAYLOAD_TOO_LARGE).detail(what));
        }
        // What was cut off may be no component: that it was is told first.
        end.await.map_err(crate::body::incomplete)?;
        Ok(json(received?)?)
    }

    /// What a component in the library is and asks for.
    pub async fn inspect(digest: &str) -> Result<Value, Error> {
        json(host::authority::inspect(digest.to_owned()).await?)
    }

    /// Admits a component of the library, with answers to what it asks for or those of platform.toml.
    pub async fn admit(digest: &str, answers: Option<&Value>) -> Result<Admission, Error> {
        let answers = answers.map(Value::to_string);
        host::authority::admit(digest.to_owned(), answers).await
    }

    /// Replaces what is withheld from a service, at once.
    pub async fn withhold(service: &str, grants: Vec<Withheld>) -> Result<(), Error> {
        host::authority::withhold(service.to_owned(), grants).await
    }

    /// What is withheld from which service.
    pub async fn withheld_grants() -> Result<Vec<(String, Withheld)>, Error> {
        host::authority::withheld_grants().await
    }

    /// A certificate revocation list signed by the intermediate, PEM.
    pub async fn sign_crl(
        number: u64,
        revoked: Vec<Revoked>,
        next_update: i64,
    ) -> Result<String, Error> {
        host::authority::sign_crl(number, revoked, next_update).await
    }

    /// The token-signing keys as a JSON Web Key Set.
    pub async fn jwks() -> Result<Value, Error> {
        json(host::authority::jwks().await?)
    }

    /// Signs any token.
    pub async fn sign_token(claims: Claims) -> Result<String, Error> {
        host::authority::sign_token(claims).await
    }
}

impl Claims {
    /// Claims of a subject (`user:<id>`) from `now_s` on, for `lifetime_s` seconds; no permission yet, any resource.
    pub fn new(subject: impl Into<String>, now_s: i64, lifetime_s: i64) -> Self {
        Self {
            id: String::new(),
            subject: subject.into(),
            audience: Vec::new(),
            resources: vec!["*".to_owned()],
            permissions: Permissions::empty(),
            issued_at: now_s,
            not_before: now_s,
            expires_at: now_s + lifetime_s,
            uses_max: None,
            extra: "{}".to_owned(),
        }
    }

    /// The further claims.
    pub fn extra(&self) -> Map<String, Value> {
        serde_json::from_str(&self.extra).unwrap_or_default()
    }
}

impl Principal {
    /// Who it is as a token names it: `service:exprsn-timeline`, `user:1f…`.
    pub fn full_subject(&self) -> String {
        let kind = match self.kind {
            Kind::Anonymous => "anonymous",
            Kind::User => "user",
            Kind::Service => "service",
            Kind::Client => "client",
            Kind::Operator => "operator",
        };
        format!("{kind}:{}", self.subject)
    }

    /// The token's further claims.
    pub fn extra(&self) -> Map<String, Value> {
        serde_json::from_str(&self.extra).unwrap_or_default()
    }
}

impl Kind {
    /// Its name, as it stands before the colon of a token's subject.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::User => "user",
            Self::Service => "service",
            Self::Client => "client",
            Self::Operator => "operator",
        }
    }
}

impl Permissions {
    /// The names of the flags: `["read", "write"]`.
    pub fn names(self) -> Vec<&'static str> {
        NAMES
            .into_iter()
            .filter(|(_, flag)| self.contains(*flag))
            .map(|(name, _)| name)
            .collect()
    }

    /// The flag of a name; none for a name that is no permission.
    pub fn named(name: &str) -> Option<Self> {
        NAMES
            .into_iter()
            .find(|(n, _)| *n == name)
            .map(|(_, flag)| flag)
    }
}

const NAMES: [(&str, Permissions); 6] = [
    ("read", Permissions::READ),
    ("write", Permissions::WRITE),
    ("append", Permissions::APPEND),
    ("update", Permissions::UPDATE),
    ("delete", Permissions::DELETE),
    ("admin", Permissions::ADMIN),
];

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::AccessDenied(what) => Problem::forbidden(what),
            Error::Unavailable(_) => Problem::unavailable(1),
            Error::LimitExceeded(_) => Problem::too_many(1),
            Error::Invalid(what) => {
                Problem::new(http::StatusCode::UNPROCESSABLE_ENTITY).detail(what)
            }
            Error::NotFound => Problem::new(http::StatusCode::NOT_FOUND),
        }
    }
}
