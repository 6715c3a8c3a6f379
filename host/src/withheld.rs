//! Live revocation: grants that the operator withholds from services which have them.
//!
//! **Invariant:** a withheld grant is refused from the very next call on, in instances that run already too. Where
//! nothing is withheld, asking costs two loads: no I/O, no lock, no allocation.

use crate::{
    mesh::{Destination, EgressPattern},
    name::{ServiceName, matches},
};
use arc_swap::ArcSwap;
use std::{
    borrow::Cow,
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::sync::watch;

/// Longest text of one withheld grant, in bytes.
pub const WITHHELD_BYTES_MAX: usize = 512;
/// What is told while this host does not hear the others.
pub const DEAF: &str = "this host has not heard from the platform for longer than [cluster] deaf_ms_max, and trusts nothing until it does";
/// Most grants withheld from one service.
pub const WITHHELD_MAX: usize = 256;

/// A withheld grant as on the command line: `*`, `sql`, `queue:timeline-fanout`, `egress:https://api.example.com:443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithheldGrant {
    text: String,
}

impl WithheldGrant {
    /// Parses what an operator wrote; the error says what it should look like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known = |kind: &str| {
            matches!(kind, "*" | "call" | "egress") || crate::capability::NAMES.contains(&kind)
        };
        if text.len() > WITHHELD_BYTES_MAX {
            return Err(format!(
                "a grant is at most {WITHHELD_BYTES_MAX} bytes long"
            ));
        }
        let (kind, scope) = parts(text);
        if !known(kind) || scope == Some("") || (kind == "*" && scope.is_some()) {
            return Err(format!(
                "`{text}` is no grant; write `sql`, `queue:<name>`, `events:<topic>`, `call:<service>`, \
                 `egress:<scheme>://<host>:<port>`, or `*` for all (capabilities: {})",
                crate::capability::NAMES.join(", ")
            ));
        }
        if let ("egress", Some(pattern)) = (kind, scope) {
            EgressPattern::parse(pattern)?;
        }
        Ok(Self {
            text: text.to_owned(),
        })
    }

    /// The text that was parsed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn covers(&self, kind: &str, scope: &str) -> bool {
        let (own, pattern) = parts(&self.text);
        match own {
            "*" => true,
            "http" => {
                kind == own || kind == "call" || (kind == "egress" && scope.starts_with("http"))
            }
            "sockets" => kind == own || (kind == "egress" && scope.starts_with('t')),
            own => kind == own && pattern.is_none_or(|pattern| covers_scope(own, pattern, scope)),
        }
    }
}

fn parts(text: &str) -> (&str, Option<&str>) {
    match text.split_once(':') {
        Some((kind, scope)) => (kind, Some(scope)),
        None => (text, None),
    }
}

fn covers_scope(kind: &str, pattern: &str, scope: &str) -> bool {
    if kind != "egress" {
        return matches(pattern, scope);
    }
    let destination = scope.parse().map_err(|error| format!("{error}"));
    let destination = destination.and_then(|uri| Destination::of_uri(&uri));
    match (EgressPattern::parse(pattern), destination) {
        (Ok(pattern), Ok(destination)) => pattern.withholds(&destination),
        // Both have been parsed before; what is not understood is not let through.
        _ => true,
    }
}

/// What is withheld from one service; its versions share it.
pub struct Withheld {
    /// Whether there is anything to ask for: a withheld grant, or the host is deaf.
    any: AtomicBool,
    grants: ArcSwap<Vec<WithheldGrant>>,
    /// This host cannot hear what is withheld.
    deaf: AtomicBool,
    changed: watch::Sender<()>,
}

impl Withheld {
    fn new(deaf: bool) -> Self {
        Self {
            any: AtomicBool::new(deaf),
            grants: ArcSwap::default(),
            deaf: AtomicBool::new(deaf),
            changed: watch::Sender::new(()),
        }
    }

    /// Whether nothing is known of what is withheld by now.
    pub fn is_deaf(&self) -> bool {
        self.deaf.load(Ordering::Acquire)
    }

    fn set_deaf(&self, deaf: bool) {
        self.deaf.store(deaf, Ordering::Release);
        self.any
            .store(deaf || !self.grants.load().is_empty(), Ordering::Release);
        self.announce();
    }

    /// Whether anything is withheld at all.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// What is withheld now, as text.
    pub fn list(&self) -> Vec<String> {
        self.grants
            .load()
            .iter()
            .map(|grant| grant.text.clone())
            .collect()
    }

    /// The withheld grant that covers `scope` of `kind`; none if it may be used.
    pub fn covering(&self, kind: &str, scope: &str) -> Option<String> {
        let grants = self.grants.load();
        let covering = grants.iter().find(|grant| grant.covers(kind, scope))?;
        Some(covering.text.clone())
    }

    fn set(&self, grants: Vec<WithheldGrant>) {
        let any = !grants.is_empty();
        self.grants.store(Arc::new(grants));
        self.any.store(any || self.is_deaf(), Ordering::Release);
        self.announce();
    }

    /// Changes whenever the service may have become able, or unable, to do something.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Tells those who wait for [`Withheld::changes`].
    pub fn announce(&self) {
        self.changed.send_replace(());
    }
}

impl fmt::Debug for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

/// What is withheld from every service, by name. Outlives versions, so that a swap gives nothing back.
#[derive(Debug, Default)]
pub struct WithheldGrants {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    services: HashMap<ServiceName, Arc<Withheld>>,
    deaf: bool,
}

impl WithheldGrants {
    /// The entry of a service, made empty at first use.
    pub fn of(&self, service: &ServiceName) -> Arc<Withheld> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let deaf = known.deaf;
        known
            .services
            .entry(service.clone())
            .or_insert_with(|| Arc::new(Withheld::new(deaf)))
            .clone()
    }

    /// Says whether this host hears what is withheld. While it does not, everything is: what it knows may be wrong.
    pub fn set_deaf(&self, deaf: bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.deaf = deaf;
        for withheld in known.services.values() {
            withheld.set_deaf(deaf);
        }
    }

    /// Replaces what is withheld from a service, in force at once. The error names the text that is no grant.
    pub fn set(&self, service: &ServiceName, grants: &[String]) -> Result<(), String> {
        if grants.len() > WITHHELD_MAX {
            return Err(format!(
                "at most {WITHHELD_MAX} grants of one service are withheld one by one; withhold `*`"
            ));
        }
        let parsed = grants.iter().map(|text| WithheldGrant::parse(text));
        let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
        self.of(service).set(parsed);
        Ok(())
    }
}

/// Which grants of one service version are in force: not refused at its admission, and not withheld since.
#[derive(Debug)]
pub struct InForce {
    service: ServiceName,
    /// Optional grants that the operator refused: linked, but never lent.
    refused: Vec<&'static str>,
    withheld: Arc<Withheld>,
}

impl InForce {
    /// The grants of a version of `service`, of which `refused` were asked for in vain.
    pub fn new(service: ServiceName, refused: Vec<&'static str>, withheld: Arc<Withheld>) -> Self {
        Self {
            service,
            refused,
            withheld,
        }
    }

    /// Whether this host cannot hear what is withheld.
    pub fn is_deaf(&self) -> bool {
        self.withheld.is_deaf()
    }

    /// Whether `scope` of `kind` may be used now; the error is the text of the interface's `access-denied`.
    #[inline]
    pub fn check(&self, kind: &'static str, scope: &str) -> Result<(), String> {
        self.check_lazily(kind, || Cow::Borrowed(scope))
    }

    /// The same for a scope that costs something to write down.
    #[inline]
    pub fn check_lazily<'a>(
        &self,
        kind: &'static str,
        scope: impl FnOnce() -> Cow<'a, str>,
    ) -> Result<(), String> {
        if self.refused.is_empty() && !self.withheld.is_any() {
            return Ok(());
        }
        self.refuse(kind, &scope())
    }

    #[cold]
    fn refuse(&self, kind: &'static str, scope: &str) -> Result<(), String> {
        let capability = match kind {
            "call" => "http",
            "egress" if scope.starts_with('t') => "sockets",
            "egress" => "http",
            kind => kind,
        };
        let service = &self.service;
        if self.refused.contains(&capability) {
            return Err(format!(
                "`{capability}` was refused to {service} when it was admitted"
            ));
        }
        if self.withheld.is_deaf() {
            return Err(DEAF.to_owned());
        }
        match self.withheld.covering(kind, scope) {
            None => Ok(()),
            Some(grant) => Err(format!(
                "`{grant}` of {service} was revoked; its operator restores it with `exprsn component restore {service}{}`",
                if grant == "*" {
                    String::new()
                } else {
                    format!(" --grant {grant}")
                }
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> ServiceName {
        ServiceName::parse("exprsn-a").unwrap()
    }

    #[test]
    fn a_withheld_grant_covers_what_it_names() {
        let check = |grant: &str, kind: &str, scope: &str| {
            WithheldGrant::parse(grant).unwrap().covers(kind, scope)
        };
        assert!(check("*", "sql", "") && check("*", "*", ""));
        assert!(check("sql", "sql", "") && !check("sql", "queue", "sql"));
        assert!(
            check("queue:mail-*", "queue", "mail-out") && !check("queue:mail", "queue", "mails")
        );
        assert!(!check("queue:mail", "queue", ""));
        assert!(check("http", "call", "exprsn-b") && check("http", "egress", "https://a.b:443"));
        assert!(
            !check("http", "egress", "tcp://a.b:25") && check("sockets", "egress", "tcp://a.b:25")
        );
        assert!(
            check("call:exprsn-b", "call", "exprsn-b")
                && !check("call:exprsn-b", "call", "exprsn-c")
        );
        assert!(check("egress:https://a.b", "egress", "https://a.b:443"));
        assert!(!check("egress:https://a.b", "egress", "https://a.b:8443"));
        assert!(check("egress:https://*.b", "egress", "https://a.b:443"));
    }

    #[test]
    fn nonsense_is_told() {
        for text in ["", "sqll", "queue:", "*:a", "egress:a.b"] {
            assert!(WithheldGrant::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn withholding_and_restoring_take_effect_on_the_next_check() {
        let grants = WithheldGrants::default();
        let in_force = InForce::new(name(), Vec::new(), grants.of(&name()));
        assert_eq!(in_force.check("sql", ""), Ok(()));
        grants.set(&name(), &["sql".to_owned()]).unwrap();
        let error = in_force.check("sql", "").unwrap_err();
        assert!(
            error.contains("exprsn component restore exprsn-a --grant sql"),
            "{error}"
        );
        assert_eq!(in_force.check("queue", "mail"), Ok(()));
        grants.set(&name(), &[]).unwrap();
        assert_eq!(in_force.check("sql", ""), Ok(()));
    }

    #[test]
    fn a_deaf_host_lends_nothing_until_it_hears_again() {
        let grants = WithheldGrants::default();
        let in_force = InForce::new(name(), Vec::new(), grants.of(&name()));
        let mut changes = grants.of(&name()).changes();
        grants.set_deaf(true);
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        let later = ServiceName::parse("exprsn-later").unwrap();
        let later = InForce::new(later.clone(), Vec::new(), grants.of(&later));
        for one in [&in_force, &later] {
            assert_eq!(one.check("sql", ""), Err(DEAF.to_owned()));
        }
        grants.set(&name(), &[]).unwrap();
        assert!(in_force.check("sql", "").is_err(), "still deaf");
        grants.set_deaf(false);
        assert!(changes.has_changed().unwrap());
        assert_eq!(in_force.check("sql", ""), Ok(()));
        assert_eq!(later.check("sql", ""), Ok(()));
    }

    #[test]
    fn what_was_refused_stays_refused() {
        let grants = WithheldGrants::default();
        let in_force = InForce::new(name(), vec!["http"], grants.of(&name()));
        for (kind, scope) in [
            ("http", ""),
            ("call", "exprsn-b"),
            ("egress", "https://a.b:443"),
        ] {
            assert!(in_force.check(kind, scope).is_err(), "{kind}");
        }
        assert_eq!(in_force.check("sql", ""), Ok(()));
    }
}
