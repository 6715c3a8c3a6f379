//! What a host asks of another host itself: enrolment, certificates, and what the operator asks of the platform's hosts.

use super::{Cluster, Kind, enrol};
use crate::{
    ca::{Candidate, HostCertificate, pki::HostRequest},
    clock,
    invocation::PrincipalKind,
    problem::Problem,
    telemetry::chain,
};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use exprsn_backends::shared::Invitation;
use http::{Method, StatusCode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::sync::Arc;
use wasmtime::error::Context as _;

/// Largest question, in bytes.
pub const QUESTION_BYTES_MAX: usize = 256 << 10;
/// Largest answer, in bytes.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Longest validity of an invitation, in seconds.
const INVITATION_S_MAX: i64 = 366 * 86_400;
/// Most uses of an invitation.
const INVITATION_USES_MAX: i32 = 100_000;
/// Serial numbers kept of one host's certificates: those of a year and more.
const SERIALS_MAX: usize = 64;
const SECRET_BYTES: usize = 32;

/// Who asks.
pub struct Asker<'a> {
    /// The host whose certificate the connection shows.
    pub host: Option<&'a HostCertificate>,
    /// The bearer token of the request.
    pub token: Option<&'a str>,
}

/// An answer in JSON, or why there is none.
pub type Answer = Result<Value, Problem>;

/// What a host that joins sends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Enrol {
    pub id: String,
    pub secret: String,
    pub host: String,
    pub csr: String,
    pub trust_domain: String,
}

/// What it gets.
#[derive(Debug, Serialize, Deserialize)]
pub struct Enrolled {
    /// Its certificate and those of its issuers, PEM.
    pub chain: String,
    pub intermediate: String,
    pub root: String,
    /// What secrets in the shared memory are sealed with; base64.
    pub seal: String,
}

/// Another certificate of a host.
#[derive(Debug, Serialize, Deserialize)]
pub struct Renewed {
    pub chain: String,
}

#[derive(Debug, Deserialize)]
struct Renew {
    csr: String,
}

#[derive(Debug, Deserialize)]
struct Listener {
    names: Vec<String>,
    days: i64,
    csr: String,
}

#[derive(Debug, Deserialize)]
struct Invite {
    #[serde(default)]
    services: Vec<String>,
    uses: i32,
    valid_s: i64,
}

#[derive(Debug, Deserialize)]
struct Remove {
    host: String,
}

impl Cluster {
    /// Answers what a host or an operator asks this host itself.
    pub async fn answer(
        self: &Arc<Self>,
        method: &Method,
        path: &str,
        asker: &Asker<'_>,
        body: &[u8],
    ) -> Answer {
        match (method, path) {
            (&Method::POST, "/enrol") => self.enrol(parsed(body)?).await,
            (&Method::POST, "/renew") => self.renew(host(asker)?, &parsed(body)?).await,
            (&Method::POST, "/admit") => self.admit(host(asker)?, parsed(body)?).await,
            (&Method::POST, "/listener") => {
                host(asker)?;
                self.certify_listener(&parsed(body)?)
            }
            (&Method::POST, "/invite") => {
                self.operator(asker).await?;
                self.invite(parsed(body)?).await
            }
            (&Method::GET, "/hosts") => {
                self.operator(asker).await?;
                self.beat().await;
                Ok(self.list())
            }
            (&Method::POST, "/remove") => {
                self.operator(asker).await?;
                self.remove(&parsed::<Remove>(body)?.host).await
            }
            _ => Err(Problem::new(
                StatusCode::NOT_FOUND,
                "no-route",
                format!("hosts have no route {method} {path}"),
            )),
        }
    }

    async fn operator(&self, asker: &Asker<'_>) -> Result<(), Problem> {
        let refused =
            |detail: String| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
        let token = asker
            .token
            .ok_or_else(|| refused("the operator's token is needed".to_owned()))?;
        let principal = self
            .authority
            .authenticate(token, clock::now_s())
            .await
            .map_err(|refusal| refused(refusal.to_string()))?;
        match principal.kind {
            PrincipalKind::Operator => Ok(()),
            _ => Err(forbidden("this is for the operator".to_owned())),
        }
    }

    async fn enrol(&self, asked: Enrol) -> Answer {
        let now_s = clock::now_s();
        if !self.authority.issues() {
            return Err(not_the_seat());
        }
        if !super::config::is_host_name(&asked.host) {
            return Err(bad(format!("`{}` can be no host's name", asked.host)));
        }
        if asked.trust_domain != self.identity.trust_domain() {
            return Err(bad(format!(
                "the joining host has [platform] trust_domain `{}`, and this platform's is `{}`",
                asked.trust_domain,
                self.identity.trust_domain()
            )));
        }
        let secret = BASE64.decode(&asked.secret).unwrap_or_default();
        let hash = digest(&SHA256, &secret);
        let accepted = self.shared.accept(&asked.id, hash.as_ref(), now_s).await;
        let accepted = accepted.map_err(|error| unavailable(&error))?;
        let invitation = accepted.ok_or_else(|| {
            tracing::warn!(
                host = asked.host,
                invitation = asked.id,
                "an enrolment was refused"
            );
            forbidden(
                "the invitation is not good: it was used, has expired, or was never made here"
                    .to_owned(),
            )
        })?;
        let services = match invitation.services.is_empty() {
            true => "*".to_owned(),
            false => invitation.services.join(","),
        };
        let chain = self.certify(&asked.host, &services, &asked.csr).await?;
        tracing::info!(host = asked.host, services, "a host was enrolled");
        let enrolled = Enrolled {
            chain,
            intermediate: self.authority.intermediate().pem.clone(),
            root: self.authority.root().pem.clone(),
            seal: BASE64.encode(self.identity.seal().map_err(|error| failed(&error))?),
        };
        Ok(json!(enrolled))
    }

    async fn renew(&self, host: &HostCertificate, asked: &Renew) -> Answer {
        let services = host
            .services
            .as_ref()
            .map_or_else(|| "*".to_owned(), |all| all.join(","));
        let chain = self.certify(&host.host, &services, &asked.csr).await?;
        Ok(json!(Renewed { chain }))
    }

    /// A host's certificate with those of its issuers.
    async fn certify(&self, host: &str, services: &str, csr: &str) -> Result<String, Problem> {
        if !self.authority.issues() {
            return Err(not_the_seat());
        }
        let asked = HostRequest {
            host,
            services,
            csr,
            days: i64::from(self.config.certificate_days),
        };
        let issued = self.authority.issue_host(asked, clock::now_s());
        let issued = issued.map_err(|error| bad(chain(&error)))?;
        // On record before it is handed out, so that it can be revoked.
        let mut serials = self.serials(host).await?;
        serials.push(issued.serial.clone());
        let surplus = serials.len().saturating_sub(SERIALS_MAX);
        serials.drain(..surplus);
        let noted = self
            .memory
            .tell(Kind::Host.change(host, Some(&serials)))
            .await;
        noted.map_err(|error| unavailable(&error))?;
        Ok(super::identity::chain_of(&issued, &self.authority))
    }

    /// Serial numbers of the certificates that were signed for a host.
    async fn serials(&self, host: &str) -> Result<Vec<String>, Problem> {
        let known = self.shared.get(Kind::Host.as_str(), host).await;
        let known = known.map_err(|error| unavailable(&error))?;
        Ok(known
            .and_then(|known| serde_json::from_slice(&known).ok())
            .unwrap_or_default())
    }

    async fn admit(&self, host: &HostCertificate, candidate: Candidate) -> Answer {
        if !self.authority.issues() {
            return Err(not_the_seat());
        }
        let admitted = self.authority.admit_for(host, candidate).await;
        Ok(json!(admitted.map_err(|error| bad(chain(&error)))?))
    }

    fn certify_listener(&self, asked: &Listener) -> Answer {
        if !self.authority.issues() {
            return Err(not_the_seat());
        }
        let signed =
            self.authority
                .issue_listener_for(&asked.names, asked.days, &asked.csr, clock::now_s());
        Ok(json!(signed.map_err(|error| bad(chain(&error)))?))
    }

    async fn invite(&self, asked: Invite) -> Answer {
        if !self.authority.issues() {
            return Err(not_the_seat());
        }
        if !(1..=INVITATION_USES_MAX).contains(&asked.uses) {
            return Err(bad(format!(
                "an invitation is good for 1 to {INVITATION_USES_MAX} uses"
            )));
        }
        if !(1..=INVITATION_S_MAX).contains(&asked.valid_s) {
            return Err(bad(format!(
                "an invitation is valid for 1 to {INVITATION_S_MAX} seconds"
            )));
        }
        let services: Result<Vec<_>, _> = asked
            .services
            .iter()
            .map(|name| crate::name::ServiceName::parse_short(name).map(|name| name.to_string()))
            .collect();
        let services = services.map_err(bad)?;
        let secret: [u8; SECRET_BYTES] = rand::random();
        let id = uuid::Uuid::now_v7().to_string();
        let expires_at = clock::now_s() + asked.valid_s;
        let invitation = Invitation {
            id: id.clone(),
            secret_hash: digest(&SHA256, &secret).as_ref().to_vec(),
            services: services.clone(),
            uses_left: asked.uses,
            expires_at,
        };
        let made = self.shared.invite(invitation).await;
        made.map_err(|error| unavailable(&error))?;
        let root =
            enrol::fingerprint(&self.authority.root().pem).map_err(|error| failed(&error))?;
        let invited = enrol::Invited {
            at: self.config.advertised(),
            host: self.name.clone(),
            root,
            id,
            secret: BASE64.encode(secret),
        };
        Ok(json!({
            "token": invited.seal(), "at": invited.at, "services": services, "uses": asked.uses, "expiresAt": expires_at,
        }))
    }

    fn list(&self) -> Value {
        let hosts = self.directory.hosts();
        let shown = hosts.iter().map(|(name, address, state)| {
            json!({
                "name": name, "address": address, "self": *name == self.name, "seat": state.seat,
                "draining": state.draining, "revision": state.revision, "load": state.load, "version": state.version,
                "startedAt": state.started_at, "services": state.services,
            })
        });
        json!({ "hosts": shown.collect::<Vec<_>>() })
    }

    /// Revokes what a host was certified with, and bars it from renewing: it has to be invited anew.
    async fn remove(&self, host: &str) -> Answer {
        if host == self.name {
            return Err(bad("a host does not remove itself: stop it".to_owned()));
        }
        let serials = self.serials(host).await?;
        if serials.is_empty() {
            let detail = format!("no host {host} has joined");
            return Err(Problem::new(StatusCode::NOT_FOUND, "not-found", detail));
        }
        let now_s = clock::now_s();
        let mut changes: Vec<_> = serials
            .iter()
            .map(|serial| Kind::RevokedCertificate.change(serial, Some(&now_s)))
            .collect();
        changes.push(Kind::Host.change::<()>(host, None));
        let told = self.memory.tell_all(changes).await;
        told.map_err(|error| unavailable(&error))?;
        let left = self.shared.leave(host).await;
        left.map_err(|error| unavailable(&error))?;
        tracing::warn!(host, "a host was removed");
        Ok(json!({ "removed": host, "certificates": serials.len() }))
    }
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .context("reading the question")
        .map_err(|error| bad(chain(&error)))
}

fn host<'a>(asker: &Asker<'a>) -> Result<&'a HostCertificate, Problem> {
    let detail = "a host's certificate is needed: mutual TLS";
    asker
        .host
        .ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail))
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-request", detail)
}

fn forbidden(detail: String) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
}

fn not_the_seat() -> Problem {
    let detail = "this host joined others: ask the one that holds the certificate authority's keys (`exprsn host list` shows it)";
    Problem::new(StatusCode::CONFLICT, "not-the-seat", detail)
}

fn unavailable(error: &dyn std::error::Error) -> Problem {
    tracing::warn!(%error, "the shared memory could not be asked");
    let detail = "the memory that hosts share cannot be reached now";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail).retry_after(1)
}

fn failed(error: &wasmtime::Error) -> Problem {
    tracing::error!(error = chain(error), "a host could not be answered");
    let detail = "the host failed; the operator finds why in the log";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "host-failed", detail)
}
