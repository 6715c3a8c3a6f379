//! Grants withheld from services, remembered over restarts.

use super::{Authority, NotAdmitted, Withholding};
use crate::{
    clock,
    name::ServiceName,
    withheld::{WITHHELD_MAX, WithheldGrant},
};
use std::collections::BTreeMap;
use wasmtime::Result;

impl Authority {
    /// Replaces what is withheld from a service: remembered, then in force at the next call.
    pub async fn withhold(
        &self,
        service: &ServiceName,
        grants: Vec<Withholding>,
    ) -> Result<(), NotAdmitted> {
        if grants.len() > WITHHELD_MAX {
            return Err(NotAdmitted::Invalid(format!(
                "at most {WITHHELD_MAX} grants of one service are withheld one by one; withhold `*`"
            )));
        }
        for one in &grants {
            WithheldGrant::parse(&one.grant).map_err(NotAdmitted::Invalid)?;
        }
        let texts: Vec<String> = grants.iter().map(|one| one.grant.clone()).collect();
        let remembered = self
            .ledger
            .withhold(service.as_str(), grants, clock::now_s());
        remembered.await.map_err(wasmtime::Error::from)?;
        tracing::info!(%service, withheld = ?texts, "what is withheld has changed");
        self.withheld
            .set(service, &texts)
            .map_err(NotAdmitted::Invalid)
    }

    /// What is withheld from which service.
    pub async fn withheld_grants(&self) -> Result<Vec<(String, Withholding)>> {
        Ok(self.ledger.withheld().await?)
    }

    /// Puts in force what an earlier run of the host has left.
    pub(super) fn recall_withheld(&self, withheld: Vec<(String, String)>) {
        let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (service, grant) in withheld {
            services.entry(service).or_default().push(grant);
        }
        for (service, grants) in services {
            let set = ServiceName::parse(&service)
                .and_then(|service| self.withheld.set(&service, &grants));
            if let Err(error) = set {
                // Whatever it means, nothing of it is given back.
                tracing::error!(
                    service,
                    "a withheld grant cannot be read, so all are: {error}"
                );
                if let Ok(service) = ServiceName::parse(&service) {
                    let _ = self.withheld.set(&service, &["*".to_owned()]);
                }
            }
        }
    }
}
