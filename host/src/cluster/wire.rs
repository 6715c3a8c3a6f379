//! A call on its way to another host: who calls, in whose right, for how long yet.
//!
//! It travels as one header beside the request, whose own headers are the guest's alone. Hosts believe each other as far as
//! their certificates go: a host speaks for the services that it was invited with.

use crate::{
    invocation::{Permissions, Principal, PrincipalKind, TraceContext, Trigger},
    listener::{Arrival, Authority},
    name::ServiceName,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde::{Deserialize, Serialize};
use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// The header that carries an [`Envelope`].
pub const ENVELOPE: &str = "exprsn-envelope";
/// The header of an answer to what was not begun: it can be tried elsewhere, whatever it is.
pub const UNTOUCHED: &str = "exprsn-untouched";
/// Largest envelope, in bytes of base64.
pub const ENVELOPE_BYTES_MAX: usize = 32 << 10;

/// A call's circumstances.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// The service that is called.
    pub to: String,
    /// The service that calls.
    pub from: String,
    /// What the request's URI names.
    pub authority: String,
    user: Option<Identity>,
    /// The permissions of the call grant; none where the user's own right counts.
    granted: Option<Permissions>,
    address: Option<IpAddr>,
    trace: String,
    path: Vec<String>,
    /// Microseconds that are left: clocks of hosts differ, spans do not.
    left_us: u64,
}

/// A principal in words.
#[derive(Debug, Serialize, Deserialize)]
struct Identity {
    kind: String,
    subject: String,
    permissions: Permissions,
    resources: Vec<String>,
    token_id: Option<String>,
    expires_at: Option<i64>,
    extra: String,
}

impl Identity {
    fn of(principal: &Principal) -> Self {
        Self {
            kind: principal.kind.as_str().to_owned(),
            subject: principal.subject.to_string(),
            permissions: principal.permissions,
            resources: principal.resources.to_vec(),
            token_id: principal.token_id.as_deref().map(str::to_owned),
            expires_at: principal.expires_at,
            extra: principal.extra.to_string(),
        }
    }

    fn into_principal(self) -> Option<Arc<Principal>> {
        use PrincipalKind as Kind;
        let kinds = [Kind::User, Kind::Service, Kind::Client, Kind::Operator];
        let kind = kinds.into_iter().find(|kind| kind.as_str() == self.kind)?;
        Some(Arc::new(Principal {
            kind,
            subject: self.subject.into(),
            permissions: self.permissions,
            resources: self.resources.into(),
            token_id: self.token_id.map(Into::into),
            expires_at: self.expires_at,
            extra: self.extra.into(),
        }))
    }
}

impl Envelope {
    /// What of a call to `to` another host has to know.
    pub fn of(to: &ServiceName, authority: &str, arrival: &Arrival) -> Self {
        Self {
            to: to.to_string(),
            from: arrival.caller.subject.to_string(),
            authority: authority.to_owned(),
            user: arrival.user.as_deref().map(Identity::of),
            granted: match arrival.authority {
                Authority::Granted(permissions) => Some(permissions),
                Authority::OfUser => None,
            },
            address: arrival.address,
            trace: arrival.trace.cause().to_header(),
            path: arrival.path.iter().map(ToString::to_string).collect(),
            left_us: left_us(arrival.deadline),
        }
    }

    /// The header's value.
    pub fn seal(&self) -> String {
        BASE64.encode(serde_json::to_vec(self).expect("an envelope is text and numbers"))
    }

    /// Reads a header's value; none where it is none.
    pub fn open(text: &str) -> Option<Self> {
        if text.len() > ENVELOPE_BYTES_MAX {
            return None;
        }
        serde_json::from_slice(&BASE64.decode(text).ok()?).ok()
    }

    /// How the call arrives here; none where a name in it is none.
    pub fn arrival(self, now: Instant) -> Option<Arrival> {
        let from = ServiceName::parse(&self.from).ok()?;
        let path: Option<Vec<ServiceName>> = self
            .path
            .iter()
            .map(|name| ServiceName::parse(name).ok())
            .collect();
        let user = match self.user {
            Some(user) => Some(user.into_principal()?),
            None => None,
        };
        Some(Arrival {
            caller: Principal::service(&from),
            user,
            authority: self.granted.map_or(Authority::OfUser, Authority::Granted),
            address: self.address,
            trace: TraceContext::parse(&self.trace)?.child(),
            path: path?.into(),
            deadline: now + Duration::from_micros(self.left_us.min(MAX_LEFT_US)),
            trigger: Trigger::Http,
        })
    }
}

/// No invocation lasts longer, whatever a host says.
const MAX_LEFT_US: u64 = 86_400_000_000;

fn left_us(deadline: Instant) -> u64 {
    let left = deadline.saturating_duration_since(Instant::now());
    u64::try_from(left.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invocation::Permission;

    #[test]
    fn a_call_arrives_as_it_was_made() {
        let service = |name: &str| ServiceName::parse(name).unwrap();
        let user = Principal {
            kind: PrincipalKind::User,
            subject: "42".into(),
            permissions: Permissions::NONE.with(Permission::Read),
            resources: Arc::new(["*".to_owned()]),
            token_id: Some("t".into()),
            expires_at: Some(7),
            extra: r#"{"name":"ä"}"#.into(),
        };
        let now = Instant::now();
        let arrival = Arrival {
            caller: Principal::service(&service("exprsn-a")),
            user: Some(Arc::new(user)),
            authority: Authority::Granted(Permissions::NONE.with(Permission::Append)),
            address: Some([10, 0, 0, 1].into()),
            trace: TraceContext::new_root().child(),
            path: Arc::new([service("exprsn-a")]),
            deadline: now + Duration::from_secs(2),
            trigger: Trigger::Http,
        };
        let sealed = Envelope::of(&service("exprsn-b"), "b:3014", &arrival).seal();
        let opened = Envelope::open(&sealed).unwrap();
        assert_eq!(
            (opened.to.as_str(), opened.from.as_str()),
            ("exprsn-b", "exprsn-a")
        );
        assert_eq!(opened.authority, "b:3014");
        let there = opened.arrival(now).unwrap();
        assert_eq!(there.caller.subject, arrival.caller.subject);
        let (user, other) = (there.user.unwrap(), arrival.user.unwrap());
        assert_eq!((&user.subject, &user.extra), (&other.subject, &other.extra));
        assert_eq!(user.resources, other.resources);
        assert_eq!(there.trace.cause(), arrival.trace.cause());
        assert_ne!(there.trace.span_id, arrival.trace.span_id);
        assert_eq!(there.path, arrival.path);
        let left = there.deadline - now;
        assert!(left <= Duration::from_secs(2) && left > Duration::from_millis(1_900));
        assert!(
            matches!(there.authority, Authority::Granted(granted) if granted.contains(Permission::Append))
        );
    }

    #[test]
    fn what_is_no_envelope_is_refused() {
        for text in ["", "%", "e30", &"A".repeat(ENVELOPE_BYTES_MAX + 1)] {
            assert!(Envelope::open(text).is_none(), "{text}");
        }
    }
}
