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
