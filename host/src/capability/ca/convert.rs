//! Between the types of the interface and the host's own.

use super::host::exprsn::ca::{authority, caller, signer, tokens, types};
use crate::{
    ca::{self, Algorithm, Claims, Rejection, Subject, pki},
    invocation::{Invocation, Permission, Permissions, Principal, PrincipalKind},
    name::ServiceName,
};

pub(super) fn described(invocation: &Invocation, now: std::time::Instant) -> caller::Invocation {
    caller::Invocation {
        caller: principal(&invocation.caller),
        user: invocation.user.as_deref().map(principal),
        address: invocation.address.map(|address| address.to_string()),
        trace_id: format!("{:032x}", invocation.trace.trace_id),
        path: invocation.path.iter().map(ServiceName::to_string).collect(),
        remaining_ms: u64::try_from(
            invocation
                .deadline
                .saturating_duration_since(now)
                .as_millis(),
        )
        .unwrap_or(u64::MAX),
    }
}

pub(super) fn principal(principal: &Principal) -> caller::Principal {
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
pub(crate) const FLAGS: [(Permission, types::Permissions); 6] = [
    (Permission::Read, types::Permissions::READ),
    (Permission::Write, types::Permissions::WRITE),
    (Permission::Append, types::Permissions::APPEND),
    (Permission::Update, types::Permissions::UPDATE),
    (Permission::Delete, types::Permissions::DELETE),
    (Permission::Admin, types::Permissions::ADMIN),
];

pub(super) fn flags(permissions: Permissions) -> types::Permissions {
    let named = FLAGS
        .into_iter()
        .filter(|(permission, _)| permissions.contains(*permission));
    named.fold(types::Permissions::empty(), |flags, (_, flag)| flags | flag)
}

pub(super) fn permissions(flags: types::Permissions) -> Permissions {
    FLAGS
        .into_iter()
        .filter(|(_, flag)| flags.contains(*flag))
        .map(|(permission, _)| permission)
        .collect()
}

pub(super) fn rejection(rejection: Rejection) -> tokens::Rejection {
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

pub(crate) fn read_claims(claims: types::Claims) -> Result<Claims, types::Error> {
    let invalid = |text: &str| types::Error::Invalid(text.to_owned());
    let subject = Subject::parse(&claims.subject).ok_or_else(|| {
        invalid("`subject` is none of user:<id>, service:<name>, client:<id>, operator:<name>")
    })?;
    let extra = if claims.extra.is_empty() {
        "{}"
    } else {
        &claims.extra
    };
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
        extra: ca::json_object(extra)
            .ok_or_else(|| invalid("`extra` is not a JSON object with each name once"))?,
    })
}

pub(crate) fn told_claims(claims: &Claims) -> types::Claims {
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

pub(super) fn algorithm(algorithm: signer::Algorithm) -> Algorithm {
    match algorithm {
        signer::Algorithm::EdDsa => Algorithm::EdDsa,
        signer::Algorithm::Es256 => Algorithm::Es256,
        signer::Algorithm::Rs256 => Algorithm::Rs256,
    }
}

pub(super) fn certificate(certificate: &pki::Certificate) -> authority::Certificate {
    authority::Certificate {
        serial: certificate.serial.clone(),
        subject: certificate.subject.clone(),
        not_before: certificate.not_before,
        not_after: certificate.not_after,
        pem: certificate.pem.clone(),
    }
}

pub(super) fn component(admission: ca::Admission) -> authority::Component {
    authority::Component {
        certificate: certificate(&admission.certificate),
        service: admission.service,
        version: admission.version,
        digest: admission.digest,
        grants: admission.grants,
        live: admission.live,
    }
}

pub(super) fn admission(admission: ca::Admission, live: bool) -> authority::Admission {
    authority::Admission {
        decided: match admission.decided {
            ca::Decided::Configuration => authority::Decided::Configuration,
            ca::Decided::Caller => authority::Decided::Caller,
        },
        refused: admission.refused.clone(),
        signer: admission.signer.clone(),
        component: component(ca::Admission { live, ..admission }),
    }
}
