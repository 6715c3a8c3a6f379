//! The `config` capability: `wasi:config/store`, the manifest's defaults overlaid by the operator's values.

use super::{Boot, Borrower, Capability};
use crate::store::StoreState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use wasmtime::{
    Result,
    component::{HasSelf, Linker},
};

wasmtime::component::bindgen!({
    path: "../wit/deps/wasi-config",
    world: "wasi:config/imports",
    imports: { default: trappable },
});

use wasi::config::store;

/// Nothing to configure.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {}

/// `[grants.config]`: no scope, a service reads its own values only.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {}

/// The capability.
pub struct ConfigStore;

/// The values of one service.
#[derive(Debug)]
pub struct Lent(BTreeMap<String, String>);

impl Capability for ConfigStore {
    type Config = Config;
    type Grant = Grant;
    type Lent = Lent;

    async fn connect(_boot: &Boot, _config: Config) -> Result<Self> {
        Ok(Self)
    }

    fn link(linker: &mut Linker<StoreState>, _grant: &Grant) -> Result<()> {
        store::add_to_linker::<_, HasSelf<StoreState>>(linker, |state| state)
    }

    async fn lend(&self, borrower: &Borrower<'_>, _grant: &Grant) -> Result<Lent> {
        Ok(Lent(borrower.config.clone()))
    }
}

/// The values, while the grant is in force.
fn values(state: &StoreState) -> Result<&BTreeMap<String, String>, store::Error> {
    let service = &state.service;
    service.check("config", "").map_err(store::Error::Upstream)?;
    Ok(&service.lent.config.as_ref().expect("a grant in force is lent").0)
}

impl store::Host for StoreState {
    fn get(&mut self, key: String) -> Result<Result<Option<String>, store::Error>> {
        Ok(values(self).map(|values| values.get(&key).cloned()))
    }

    fn get_all(&mut self) -> Result<Result<Vec<(String, String)>, store::Error>> {
        let listed = |values: &BTreeMap<String, String>| values.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(values(self).map(listed))
    }
}
