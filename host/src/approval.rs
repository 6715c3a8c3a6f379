//! What the operator answers to what a component asks for, and what follows from it.
//!
//! **Invariant:** what is approved lies within what was asked for, and what was asked for and not answered is not approved.

use crate::{
    ca::CA_SERVICE,
    capability::Grants,
    component::ComponentFile,
    name::{self, ServiceName},
    narrow,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt};

const AS_REQUESTED: &str = "as-requested";
const REFUSED: &str = "refused";

/// The operator's answer to a requested grant.
#[derive(Clone, Debug, PartialEq)]
pub enum Approval {
    /// Granted with the scope that the manifest asks for.
    AsRequested,
    /// Not granted.
    Refused,
    /// Granted with less, written in the grant's own shape: `{ produce = ["a"] }`.
    Narrowed(Map<String, Value>),
}

/// Answers, by capability.
pub type Approvals = BTreeMap<String, Approval>;

impl<'de> Deserialize<'de> for Approval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) if text == AS_REQUESTED => Ok(Self::AsRequested),
            Value::String(text) if text == REFUSED => Ok(Self::Refused),
            Value::Object(scope) => Ok(Self::Narrowed(scope)),
            other => Err(serde::de::Error::custom(format!(
                "{other} is no answer: write \"{AS_REQUESTED}\", \"{REFUSED}\", or less than was asked for as a table"
            ))),
        }
    }
}

impl Serialize for Approval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AsRequested => serializer.serialize_str(AS_REQUESTED),
            Self::Refused => serializer.serialize_str(REFUSED),
            Self::Narrowed(scope) => scope.serialize(serializer),
        }
    }
}

/// What a component may have.
#[derive(Clone, Debug, Default)]
pub struct Approved {
    /// With which scope.
    pub grants: Grants,
    /// Capabilities that it asked for, can do without, and was refused: linked, and answering `access-denied`.
    pub refused: Vec<&'static str>,
}

/// Why a component cannot have what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unapproved {
    /// These were asked for, and nobody has answered.
    Unanswered(Vec<&'static str>),
    /// This one was refused, and the component cannot do without; these interfaces of it are imported and exported.
    Refused {
        capability: &'static str,
        imports: Vec<String>,
        exports: Vec<String>,
    },
    /// The answer to this one is not less than was asked for, or not of its shape.
    NotNarrower { capability: String, reason: String },
    /// The authority's keys are lent to one service alone.
    Authority,
}

impl fmt::Display for Unapproved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered(names) => {
                write!(f, "it asks for {}, and nobody has answered", quoted(names))
            }
            Self::Refused {
                capability,
                imports,
                exports,
            } => {
                match (imports.as_slice(), exports.as_slice()) {
                    ([], []) => write!(f, "it asks for `{capability}`, which was refused")?,
                    ([], exports) => {
                        write!(f, "it exports {}, which was refused", exports.join(", "))?
                    }
                    (imports, _) => {
                        write!(f, "it imports {}, which was refused", imports.join(", "))?
                    }
                }
                write!(
                    f,
                    ", and its manifest does not say that it can do without (`optional = [\"{capability}\"]`)"
                )
            }
            Self::NotNarrower { capability, reason } => {
                write!(f, "the answer to `{capability}` does not fit: {reason}")
            }
            Self::Authority => write!(
                f,
                "it asks for `ca` with authority = true, which only {CA_SERVICE} may have"
            ),
        }
    }
}

impl std::error::Error for Unapproved {}

fn quoted(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// What of a component's requests the answers approve.
pub fn approve(file: &ComponentFile, answers: &Approvals) -> Result<Approved, Unapproved> {
    let asked = file.manifest.grants.names();
    if let Some((unknown, _)) = answers.iter().find(|(name, answer)| {
        matches!(answer, Approval::Narrowed(_)) && !asked.contains(&name.as_str())
    }) {
        return Err(Unapproved::NotNarrower {
            capability: unknown.clone(),
            reason: "the component does not ask for it".to_owned(),
        });
    }
    let unanswered: Vec<_> = asked
        .iter()
        .copied()
        .filter(|name| !answers.contains_key(*name))
        .collect();
    if !unanswered.is_empty() {
        return Err(Unapproved::Unanswered(unanswered));
    }
    let mut approved = Approved {
        grants: file.manifest.grants.clone(),
        refused: Vec::new(),
    };
    for name in asked {
        match &answers[name] {
            Approval::AsRequested => {}
            Approval::Refused if file.manifest.is_optional(name) => approved.refused.push(name),
            Approval::Refused => {
                return Err(Unapproved::Refused {
                    capability: name,
                    imports: owned(file.imports_of(name)),
                    exports: owned(file.exports_of(name)),
                });
            }
            Approval::Narrowed(scope) => {
                let narrowed = narrowed(&file.manifest.grants, name, scope).map_err(|reason| {
                    Unapproved::NotNarrower {
                        capability: name.to_owned(),
                        reason,
                    }
                })?;
                approved.grants.take(&narrowed, name);
            }
        }
    }
    let refused = approved.refused.clone();
    approved.grants.retain(|name| !refused.contains(&name));
    approved.check_authority(&file.manifest.name)?;
    Ok(approved)
}

fn owned(names: Vec<&str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// The grant that a table says, if what was asked for covers it.
fn narrowed(asked: &Grants, name: &str, scope: &Map<String, Value>) -> Result<Grants, String> {
    let read = |value: Value| serde_json::from_value::<Grants>(value);
    let one = Map::from_iter([(name.to_owned(), Value::Object(scope.clone()))]);
    let narrowed = read(Value::Object(one)).map_err(|error| error.to_string())?;
    let told = |grants: &Grants| {
        let value = serde_json::to_value(grants).map_err(|error| error.to_string())?;
        Ok::<_, String>(value.get(name).cloned().unwrap_or_default())
    };
    narrow::check(&told(asked)?, &told(&narrowed)?)?;
    Ok(narrowed)
}

impl Approved {
    /// What an admission's certificate says of a component: what it asks for and the certificate does not name was refused.
    pub fn certified(file: &ComponentFile, grants: &str) -> Result<Self, String> {
        let grants: Grants = serde_json::from_str(grants)
            .map_err(|error| format!("the grants in its certificate cannot be read: {error}"))?;
        let granted = grants.names();
        let mut refused = file.manifest.grants.names();
        refused.retain(|name| !granted.contains(name));
        if let Some(name) = refused.iter().find(|name| !file.manifest.is_optional(name)) {
            return Err(format!(
                "its certificate does not grant `{name}`, which it needs"
            ));
        }
        let approved = Self { grants, refused };
        approved
            .check_authority(&file.manifest.name)
            .map_err(|error| error.to_string())?;
        Ok(approved)
    }

    /// Whose interfaces are linked: all that were asked for, with the scope asked for.
    ///
    /// What was refused and can be done without is there and denies; what was narrowed is bounded by what is lent.
    pub fn linked(&self, file: &ComponentFile) -> Grants {
        let mut linked = file.manifest.grants.clone();
        if let Some(ca) = &mut linked.ca {
            // Not even for denying: the interface of the authority's keys is in one service's linker alone.
            ca.authority &= self.grants.ca.as_ref().is_some_and(|ca| ca.authority);
        }
        linked
    }

    fn check_authority(&self, name: &ServiceName) -> Result<(), Unapproved> {
        let authority = self.grants.ca.as_ref().is_some_and(|grant| grant.authority);
        if authority && name.as_str() != CA_SERVICE {
            return Err(Unapproved::Authority);
        }
        Ok(())
    }

    /// Takes out of a manifest the queues, schedules and subscriptions that were not approved: nothing comes of them.
    pub fn restrict(&self, manifest: &mut crate::manifest::Manifest) {
        let covers =
            |patterns: &[String], name: &str| patterns.iter().any(|one| name::matches(one, name));
        let consume = self
            .grants
            .queue
            .as_ref()
            .map(|grant| grant.consume.clone());
        let consume = consume.unwrap_or_default();
        let subscribe = self
            .grants
            .events
            .as_ref()
            .map(|grant| grant.subscribe.clone());
        let subscribe = subscribe.unwrap_or_default();
        manifest
            .queues
            .retain(|queue| covers(&consume, &queue.name));
        manifest
            .schedules
            .retain(|schedule| covers(&consume, &schedule.queue));
        manifest
            .subscriptions
            .retain(|subscription| covers(&subscribe, &subscription.topic));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::path::Path;

    const MANIFEST: &str = r#"
        name = "exprsn-notes"
        version = "1.0.0"
        port = 3021
        optional = ["cache"]
        [grants.cache]
        [grants.sql]
        [grants.queue]
        produce = ["a", "b-*"]
        consume = ["a"]
        [grants.http]
        call = [{ service = "exprsn-herald", methods = ["GET"], paths = ["/api/*"] }]
        [[queue]]
        name = "a"
        [[schedule]]
        cron = "* * * * *"
        queue = "a"
        name = "tick"
    "#;

    fn file(manifest: &str) -> ComponentFile {
        let bytes = crate::component::tests::component(manifest);
        ComponentFile::parse(Path::new("notes.wasm"), bytes).unwrap()
    }

    fn answers(change: Value) -> Approvals {
        let mut answers = json!({ "cache": "as-requested", "http": "as-requested", "queue": "as-requested", "sql": "as-requested" });
        for (name, answer) in change.as_object().unwrap() {
            answers[name] = answer.clone();
        }
        serde_json::from_value(answers).unwrap()
    }

    fn told(grants: &Grants) -> Value {
        serde_json::to_value(grants).unwrap()
    }

    #[test]
    fn what_is_approved_lies_within_what_was_asked_for() {
        let file = file(MANIFEST);
        let all = approve(&file, &answers(json!({}))).unwrap();
        assert_eq!(told(&all.grants), told(&file.manifest.grants));
        let less =
            json!({ "queue": { "produce": ["b-1"] }, "http": { "call": [] }, "cache": "refused" });
        let less = approve(&file, &answers(less)).unwrap();
        assert_eq!(less.refused, ["cache"]);
        assert_eq!(less.grants.names(), ["http", "queue", "sql"]);
        assert_eq!(
            told(&less.grants)["queue"],
            json!({ "produce": ["b-1"], "consume": [], "manage": [] })
        );
        assert_eq!(
            less.linked(&file).names(),
            ["cache", "http", "queue", "sql"],
            "what was refused denies"
        );

        let mut manifest = file.manifest.clone();
        all.restrict(&mut manifest);
        assert_eq!((manifest.queues.len(), manifest.schedules.len()), (1, 1));
        less.restrict(&mut manifest);
        assert_eq!(
            (manifest.queues.len(), manifest.schedules.len()),
            (0, 0),
            "it may not consume"
        );
    }

    #[test]
    fn what_is_left_out_of_a_narrower_grant_is_no_default_that_widens_it() {
        let call = |call: Value| {
            approve(
                &file(MANIFEST),
                &answers(json!({ "http": { "call": [call] } })),
            )
        };
        let good = json!({ "service": "exprsn-herald", "methods": ["GET"], "paths": ["/api/x"] });
        assert!(call(good).is_ok());
        // Without `methods` a call grant means any.
        let wider = call(json!({ "service": "exprsn-herald", "paths": ["/api/x"] })).unwrap_err();
        assert!(
            wider.to_string().contains("more than was asked for"),
            "{wider}"
        );
    }

    #[test]
    fn refusals_say_what_is_missing() {
        let check = |change: Value, expected: &str| {
            let error = approve(&file(MANIFEST), &answers(change))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(
            json!({ "sql": "refused" }),
            "it asks for `sql`, which was refused",
        );
        check(
            json!({ "queue": { "produce": ["c"] } }),
            "`queue` does not fit: produce: \"c\" is more",
        );
        check(json!({ "queue": { "prodce": [] } }), "prodce");
        check(
            json!({ "events": { "publish": [] } }),
            "does not ask for it",
        );
        let unanswered = approve(&file(MANIFEST), &Approvals::new()).unwrap_err();
        assert_eq!(
            unanswered,
            Unapproved::Unanswered(vec!["cache", "http", "queue", "sql"])
        );
        let imported = Unapproved::Refused {
            capability: "sql",
            imports: vec!["exprsn:sql/database@1.0.0".to_owned()],
            exports: Vec::new(),
        };
        assert!(
            imported
                .to_string()
                .starts_with("it imports exprsn:sql/database@1.0.0, which was refused")
        );
        assert!(
            serde_json::from_value::<Approval>(json!(true))
                .unwrap_err()
                .to_string()
                .contains("as-requested")
        );
    }

    #[test]
    fn the_authority_is_lent_to_one_service_alone() {
        let asks = "name = \"exprsn-x\"\nversion = \"1\"\nport = 1\n[grants.ca]\nverify = true\nauthority = true\n";
        let answered = |answer: Value, manifest: &str| {
            let answers = serde_json::from_value(json!({ "ca": answer })).unwrap();
            approve(&file(manifest), &answers)
        };
        assert_eq!(
            answered(json!("as-requested"), asks).unwrap_err(),
            Unapproved::Authority
        );
        let without = answered(json!({ "verify": true }), asks).unwrap();
        assert!(!without.linked(&file(asks)).ca.unwrap().authority);
        let ca = asks.replace("exprsn-x", CA_SERVICE);
        let with = answered(json!("as-requested"), &ca).unwrap();
        assert!(with.linked(&file(&ca)).ca.unwrap().authority);
    }

    #[test]
    fn a_certificate_grants_what_it_names() {
        let file = file(MANIFEST);
        let certified = Approved::certified(
            &file,
            r#"{"sql":{"ddl":false},"queue":{"produce":["a"]},"http":{}}"#,
        )
        .unwrap();
        assert_eq!(
            (certified.refused.as_slice(), certified.grants.names()),
            (&["cache"][..], vec!["http", "queue", "sql"])
        );
        assert!(
            Approved::certified(&file, "{}")
                .unwrap_err()
                .contains("which it needs")
        );
        assert!(Approved::certified(&file, "?").is_err());
    }
}
