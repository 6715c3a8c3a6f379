//! What guests see of the authority: `exprsn:ca/caller`, `tokens`, `signer` and `authority`.

use super::{Config, Grant};
use crate::{
    ca::{self, Algorithm, Authority, Claims, Rejection, Subject, pki, signer::SignError},
    capability::{Boot, Borrower, Capability},
    clock,
    invocation::{Invocation, Permission, Permissions, Principal, PrincipalKind},
    name::ServiceName,
    store::StoreState,
    telemetry::chain,
};
use std::{sync::Arc, time::Duration};
use wasmtime::{
    Result,
    component::{Accessor, HasSelf, Linker},
};

wasmtime::component::bindgen!({
    path: "../wit",
    world: "exprsn:ca/imports",
    imports: { default: trappable },
});

use exprsn::ca::{authority, caller, signer, tokens, types};

/// How often the operator's token is written anew.
const OPERATOR_TOKEN_INTERVAL: Duration = Duration::from_secs(6 * 3_600);
/// Data under an HMAC that is computed on the core's own thread; more goes elsewhere.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// What a function answers: a trap, or a value or error of the interface.
type Answer<T> = Result<Result<T, types::Error>>;

/// The `ca` capability.
#[derive(Debug)]
pub struct Ca {
    authority: Arc<Authority>,
}

/// What one service version holds.
#[derive(Clone, Debug)]
pub struct Lent {
    authority: Arc<Authority>,
    service: ServiceName,
    grant: Grant,
}

impl Capability for Ca {
    type Config = Config;
    type Grant = Grant;
    type Lent = Lent;

    async fn connect(boot: &Boot, _config: Config) -> Result<Self> {
        let weak = Arc::downgrade(&boot.authority);
        boot.background.spawn(async move {
            let mut interval = tokio::time::interval(OPERATOR_TOKEN_INTERVAL);
            // The first tick is at once, and the authority has written the token when it was opened.
            interval.tick().await;
            loop {
                interval.tick().await;
                let Some(authority) = weak.upgrade() else { return };
                if let Err(error) = authority.write_operator_token(clock::now_s()) {
                    tracing::error!("the operator's token could not be renewed: {error:?}");
                }
            }
        });
        Ok(Self { authority: boot.authority.clone() })
    }

    fn link(linker: &mut Linker<StoreState>, grant: &Grant) -> Result<()> {
        caller::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        if grant.verify || grant.revoke || grant.mint.is_some() {
            tokens::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        }
        if !grant.sign.is_empty() {
            signer::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        }
        if grant.authority {
            authority::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)?;
        }
        Ok(())
    }

    async fn lend(&self, borrower: &Borrower<'_>, grant: &Grant) -> Result<Lent> {
        Ok(Lent { authority: self.authority.clone(), service: borrower.name.clone(), grant: grant.clone() })
    }
}

fn lent<T>(accessor: &Accessor<T, HasSelf<StoreState>>) -> Lent {
    accessor.with(|mut access| access.get().service.lent.ca.clone().expect("linked only where granted"))
}

// === caller ===

impl caller::Host for StoreState {
    fn current(&mut self) -> Result<caller::Invocation> {
        Ok(described(&self.invocation, std::time::Instant::now()))
    }
}

fn described(invocation: &Invocation, now: std::time::Instant) -> caller::Invocation {
    caller::Invocation {
        caller: principal(&invocation.caller),
        user: invocation.user.as_deref().map(principal),
        address: invocation.address.map(|address| address.to_string()),
        trace_id: format!("{:032x}", invocation.trace.trace_id),
        path: invocation.path.iter().map(ServiceName::to_string).collect(),
        remaining_ms: u64::try_from(invocation.deadline.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX),
    }
}

fn principal(principal: &Principal) -> caller::Principal {
    caller::Principal {
        kind: match principal.kind {
            PrincipalKind::Anonymous => caller::Kind::Anonymous,
            PrincipalKind::User => caller::Kind::User,
            PrincipalKind::Service => caller::Kind::Service,
            PrincipalKind::Client => caller::Kind::Client,
            PrincipalKind::Operator => caller::Kind::Operator,
        },
        subject: principal.subject.to_string(),
        permissions: flags(principal.permissions),
        resources: principal.resources.to_vec(),
        token_id: principal.token_id.as_deref().map(str::to_owned),
        expires_at: principal.expires_at,
        extra: principal.extra.to_string(),
    }
}

/// The permissions in their two spellings.
const FLAGS: [(Permission, types::Permissions); 6] = [
    (Permission::Read, types::Permissions::READ),
    (Permission::Write, types::Permissions::WRITE),
    (Permission::Append, types::Permissions::APPEND),
    (Permission::Update, types::Permissions::UPDATE),
    (Permission::Delete, types::Permissions::DELETE),
    (Permission::Admin, types::Permissions::ADMIN),
];

fn flags(permissions: Permissions) -> types::Permissions {
    let named = FLAGS.into_iter().filter(|(permission, _)| permissions.contains(*permission));
    named.fold(types::Permissions::empty(), |flags, (_, flag)| flags | flag)
}

fn permissions(flags: types::Permissions) -> Permissions {
    FLAGS.into_iter().filter(|(_, flag)| flags.contains(*flag)).map(|(permission, _)| permission).collect()
}

// === tokens ===

impl types::Host for StoreState {}
impl tokens::Host for StoreState {}

impl<T: Send + 'static> tokens::HostWithStore<T> for HasSelf<StoreState> {
    async fn verify(accessor: &Accessor<T, Self>, token: String) -> Answer<tokens::Verdict> {
        Ok(lent(accessor).verify(&token))
    }

    async fn mint(accessor: &Accessor<T, Self>, claims: types::Claims) -> Answer<String> {
        Ok(lent(accessor).mint(claims))
    }

    async fn revoke(accessor: &Accessor<T, Self>, id: String, expires_at: i64) -> Answer<()> {
        Ok(lent(accessor).revoke(&id, expires_at).await)
    }
}

impl Lent {
    fn verify(&self, token: &str) -> Result<tokens::Verdict, types::Error> {
        self.grant.allow_verify().map_err(types::Error::AccessDenied)?;
        let verdict = self.authority.tokens().examine(token, clock::now_s());
        Ok(tokens::Verdict {
            rejection: verdict.rejection.map(rejection),
            claims: verdict.token.map(|token| told_claims(&token.claims)),
        })
    }

    fn mint(&self, claims: types::Claims) -> Result<String, types::Error> {
        let (claims, now_s) = (read_claims(claims)?, clock::now_s());
        let tokens = self.authority.tokens();
        let covers = |wide: &ca::pattern::ResourcePattern<'_>, narrow: &ca::pattern::ResourcePattern<'_>| {
            wide.covers(narrow, |authority| tokens.resolve(authority).map(|name| name.to_string()))
        };
        self.grant.allow_mint(&claims, now_s, covers).map_err(types::Error::AccessDenied)?;
        tokens.mint(claims, now_s).map(|(token, _)| token).map_err(types::Error::Invalid)
    }

    async fn revoke(&self, id: &str, expires_at: i64) -> Result<(), types::Error> {
        self.grant.allow_revoke().map_err(types::Error::AccessDenied)?;
        if id.is_empty() || id.len() > ca::claims::ID_BYTES_MAX {
            let text = format!("`id` must be 1 to {} bytes", ca::claims::ID_BYTES_MAX);
            return Err(types::Error::Invalid(text));
        }
        let now_s = clock::now_s();
        let until = expires_at.min(now_s.saturating_add(ca::tokens::LIFETIME_S_MAX));
        self.authority.tokens().revoke(id, until, now_s).await.map_err(|error| fault("revoking a token", &error.into()))
    }
}

fn rejection(rejection: Rejection) -> tokens::Rejection {
    match rejection {
        Rejection::Malformed(_) => tokens::Rejection::Malformed,
        Rejection::BadSignature => tokens::Rejection::BadSignature,
        Rejection::Expired => tokens::Rejection::Expired,
        Rejection::NotYetValid => tokens::Rejection::NotYetValid,
        Rejection::Revoked => tokens::Rejection::Revoked,
        Rejection::Exhausted => tokens::Rejection::Exhausted,
        Rejection::WrongIssuer => tokens::Rejection::WrongIssuer,
    }
}

fn read_claims(claims: types::Claims) -> Result<Claims, types::Error> {
    let invalid = |text: &str| types::Error::Invalid(text.to_owned());
    let subject = Subject::parse(&claims.subject)
        .ok_or_else(|| invalid("`subject` is none of user:<id>, service:<name>, client:<id>, operator:<name>"))?;
    let extra = if claims.extra.is_empty() { "{}" } else { &claims.extra };
    Ok(Claims {
        id: claims.id,
        subject,
        audience: claims.audience,
        resources: claims.resources,
        permissions: permissions(claims.permissions),
        issued_at: claims.issued_at,
        not_before: claims.not_before,
        expires_at: claims.expires_at,
        uses_max: claims.uses_max,
        extra: ca::json_object(extra).ok_or_else(|| invalid("`extra` is not a JSON object with each name once"))?,
    })
}

fn told_claims(claims: &Claims) -> types::Claims {
    types::Claims {
        id: claims.id.clone(),
        subject: claims.subject.to_string(),
        audience: claims.audience.clone(),
        resources: claims.resources.clone(),
        permissions: flags(claims.permissions),
        issued_at: claims.issued_at,
        not_before: claims.not_before,
        expires_at: claims.expires_at,
        uses_max: claims.uses_max,
        extra: serde_json::Value::Object(claims.extra.clone()).to_string(),
    }
}

/// The host's own fault: its log gets the chain, the guest the fact.
fn fault(doing: &str, error: &wasmtime::Error) -> types::Error {
    tracing::error!("{doing}: {}", chain(error));
    types::Error::Unavailable(format!("{doing} failed on the host"))
}

// === signer ===

impl signer::Host for StoreState {}

impl<T: Send + 'static> signer::HostWithStore<T> for HasSelf<StoreState> {
    async fn sign_jwt(
        accessor: &Accessor<T, Self>,
        key: String,
        algorithm: signer::Algorithm,
        typ: String,
        claims: String,
    ) -> Answer<String> {
        let (lent, algorithm) = (lent(accessor), self::algorithm(algorithm));
        let quick = algorithm != Algorithm::Rs256 && lent.authority.signer().has_ring(&lent.service, &key, algorithm);
        Ok(lent
            .sign(key, quick, move |signer, service, key| {
                signer.sign_jwt(service, key, algorithm, &typ, &claims, clock::now_s())
            })
            .await)
    }

    async fn public_keys(accessor: &Accessor<T, Self>, key: String, algorithm: signer::Algorithm) -> Answer<String> {
        let (lent, algorithm) = (lent(accessor), self::algorithm(algorithm));
        let quick = lent.authority.signer().has_ring(&lent.service, &key, algorithm);
        Ok(lent
            .sign(key, quick, move |signer, service, key| signer.public_keys(service, key, algorithm, clock::now_s()))
            .await)
    }

    async fn hmac(accessor: &Accessor<T, Self>, key: String, data: Vec<u8>) -> Answer<Vec<u8>> {
        let lent = lent(accessor);
        let quick = data.len() <= INLINE_BYTES_MAX && lent.authority.signer().has_secret(&lent.service, &key);
        Ok(lent.sign(key, quick, move |signer, service, key| signer.hmac(service, key, &data)).await)
    }
}

fn algorithm(algorithm: signer::Algorithm) -> Algorithm {
    match algorithm {
        signer::Algorithm::EdDsa => Algorithm::EdDsa,
        signer::Algorithm::Es256 => Algorithm::Es256,
        signer::Algorithm::Rs256 => Algorithm::Rs256,
    }
}

impl Lent {
    /// Uses a key of this service: here if it is `quick`, else where nothing waits for it.
    async fn sign<R: Send + 'static>(
        &self,
        key: String,
        quick: bool,
        work: impl FnOnce(&ca::Signer, &ServiceName, &str) -> Result<R, SignError> + Send + 'static,
    ) -> Result<R, types::Error> {
        self.grant.allow_sign(&key).map_err(types::Error::AccessDenied)?;
        let (signer, service) = (self.authority.signer().clone(), self.service.clone());
        let outcome = if quick {
            work(&signer, &service, &key)
        } else {
            let elsewhere = tokio::task::spawn_blocking(move || work(&signer, &service, &key)).await;
            elsewhere.unwrap_or_else(|error| Err(SignError::Fault(error.into())))
        };
        outcome.map_err(|error| match error {
            SignError::Invalid(text) => types::Error::Invalid(text),
            SignError::Limit(text) => types::Error::LimitExceeded(text),
            SignError::Fault(error) => fault("signing", &error),
        })
    }
}

// === authority ===

impl authority::Host for StoreState {}

impl<T: Send + 'static> authority::HostWithStore<T> for HasSelf<StoreState> {
    async fn root(accessor: &Accessor<T, Self>) -> Answer<authority::Certificate> {
        Ok(lent(accessor).authority().map(|authority| certificate(authority.root())))
    }

    async fn intermediate(accessor: &Accessor<T, Self>) -> Answer<authority::Certificate> {
        Ok(lent(accessor).authority().map(|authority| certificate(authority.intermediate())))
    }

    async fn components(accessor: &Accessor<T, Self>) -> Answer<Vec<authority::Component>> {
        let lent = lent(accessor);
        let authority = match lent.authority() {
            Ok(authority) => authority,
            Err(error) => return Ok(Err(error)),
        };
        let admissions = authority.admissions().await.map_err(|error| fault("listing components", &error));
        Ok(admissions.map(|all| all.into_iter().map(component).collect()))
    }

    async fn sign_crl(
        accessor: &Accessor<T, Self>,
        number: u64,
        revoked: Vec<authority::Revoked>,
        next_update: i64,
    ) -> Answer<String> {
        Ok(lent(accessor).sign_crl(number, revoked, next_update).await)
    }

    async fn jwks(accessor: &Accessor<T, Self>) -> Answer<String> {
        Ok(lent(accessor).authority().map(|authority| authority.tokens().jwks().to_string()))
    }

    async fn sign_token(accessor: &Accessor<T, Self>, claims: types::Claims) -> Answer<String> {
        Ok(lent(accessor).sign_token(claims))
    }
}

impl Lent {
    fn authority(&self) -> Result<&Authority, types::Error> {
        self.grant.allow_authority().map_err(types::Error::AccessDenied)?;
        Ok(&self.authority)
    }

    fn sign_token(&self, claims: types::Claims) -> Result<String, types::Error> {
        let tokens = self.authority()?.tokens();
        tokens.mint(read_claims(claims)?, clock::now_s()).map(|(token, _)| token).map_err(types::Error::Invalid)
    }

    async fn sign_crl(&self, number: u64, revoked: Vec<authority::Revoked>, next_update: i64) -> Result<String, types::Error> {
        let authority = self.authority()?;
        if revoked.len() > ca::REVOKED_CERTIFICATES_MAX {
            let text = format!("a revocation list holds at most {} certificates", ca::REVOKED_CERTIFICATES_MAX);
            return Err(types::Error::LimitExceeded(text));
        }
        if let Some(bad) = revoked.iter().find(|entry| !pki::is_serial(&entry.serial)) {
            return Err(types::Error::Invalid(format!("`{}` is no serial number", bad.serial)));
        }
        if next_update <= clock::now_s() {
            return Err(types::Error::Invalid("`next-update` is past".to_owned()));
        }
        let entries = revoked.into_iter().map(|entry| (entry.serial, entry.at)).collect();
        match authority.sign_crl(number, entries, next_update).await {
            Ok(Some(pem)) => Ok(pem),
            Ok(None) => Err(types::Error::Invalid(format!("a list with number {number} or a higher one was signed before"))),
            Err(error) => Err(fault("signing a revocation list", &error)),
        }
    }
}

fn certificate(certificate: &pki::Certificate) -> authority::Certificate {
    authority::Certificate {
        serial: certificate.serial.clone(),
        subject: certificate.subject.clone(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        pem: certificate.pem.clone(),
    }
}

fn component(admission: ca::Admission) -> authority::Component {
    authority::Component {
        certificate: certificate(&admission.certificate),
        service: admission.service,
        version: admission.version,
        digest: admission.digest,
        grants: admission.grants,
        live: admission.live,
    }
}
