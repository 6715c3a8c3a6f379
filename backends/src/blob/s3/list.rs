//! Pages of a container, in the order of its names.
//!
//! Keys are in that order but for names too long to be spelt, of which a group that begins alike is read whole and sorted.
//! What S3 lists has no media types, so each object of a page is asked for.

use super::{
    key::{self, Named},
    shared::{PAGE_KEYS, Shared, page},
};
use crate::blob::{
    backend::{Error, Info, Listing, Place, Result},
    name::{ContainerName, ObjectName},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};

/// Objects asked for at once.
const ASKED_MAX: usize = 16;
/// Long names of one container that begin alike. Each is asked for whenever they are listed.
const GROUP_MAX: usize = 10_000;
const DOING: &str = "listing objects";

/// One listing under way.
struct Lister<'a> {
    shared: &'a Shared,
    container: &'a ContainerName,
    folder: String,
    prefix: &'a str,
    after: Option<&'a ObjectName>,
    /// Names in order; what is known of long ones.
    found: Vec<(ObjectName, Option<Info>)>,
    /// The group that is being gathered, and the ends of its keys.
    group: String,
    gathered: Vec<String>,
}

/// At most `limit` objects after `after` whose names begin with `prefix`.
pub(super) async fn list(
    shared: &Shared,
    container: &ContainerName,
    prefix: &str,
    after: Option<&ObjectName>,
    limit: usize,
) -> Result<Listing> {
    shared.require(container, DOING).await?;
    let mut lister = Lister {
        shared,
        container,
        folder: shared.folder(container),
        prefix,
        after,
        found: Vec::new(),
        group: String::new(),
        gathered: Vec::new(),
    };
    lister.gather(limit.saturating_add(1)).await?;
    let more = lister.found.len() > limit;
    lister.found.truncate(limit);
    let last = lister.found.last().map(|(name, _)| name.clone());
    Ok(Listing {
        objects: lister.describe().await?,
        next: last.filter(|_| more),
    })
}

impl Lister<'_> {
    /// Finds up to `wanted` names, or a group more.
    async fn gather(&mut self, wanted: usize) -> Result<()> {
        let prefix = format!("{}{}", self.folder, key::of_prefix(self.prefix));
        let after = self.after.map(key::before_next);
        let after = after.map_or(String::new(), |end| format!("{}{end}", self.folder));
        let mut token: Option<String> = None;
        while self.found.len() < wanted {
            let keys = (wanted - self.found.len()).clamp(2, PAGE_KEYS);
            let page = page(&self.shared.client, &prefix, &after, token.as_deref(), keys).await;
            let page = page.map_err(|fault| fault.into_error(DOING))?;
            for entry in page.contents {
                self.add(&entry.key).await?;
            }
            token = page.next_continuation_token;
            if !page.is_truncated || token.is_none() {
                return self.end_group().await;
            }
        }
        Ok(())
    }

    async fn add(&mut self, key: &str) -> Result<()> {
        let Some(end) = key.strip_prefix(&self.folder) else {
            return Ok(());
        };
        match key::named(end) {
            Some(Named::Spelt(name)) => {
                self.end_group().await?;
                self.take(name, None);
            }
            Some(Named::Digest { group }) => {
                if group != self.group {
                    self.end_group().await?;
                    self.group = group;
                }
                self.gathered.push(end.to_owned());
                if self.gathered.len() > GROUP_MAX {
                    return Err(Error::LimitExceeded(format!(
                        "more than {GROUP_MAX} long names begin alike, which S3 cannot list in order"
                    )));
                }
            }
            None => {
                tracing::warn!(service = %self.shared.service, key, "what is no object is left alone");
            }
        }
        Ok(())
    }

    fn take(&mut self, name: ObjectName, info: Option<Info>) {
        let wanted =
            name.as_str().starts_with(self.prefix) && self.after.is_none_or(|after| name > *after);
        if wanted {
            self.found.push((name, info));
        }
    }

    /// Sorts the long names that begin alike.
    async fn end_group(&mut self) -> Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let ends = std::mem::take(&mut self.gathered);
        let (shared, folder) = (self.shared, &self.folder);
        let asked = stream::iter(ends)
            .map(|end| async move { shared.client.stat_long(folder, &end).await })
            .buffer_unordered(ASKED_MAX)
            .try_filter_map(|info| std::future::ready(Ok(info)));
        let infos: Result<Vec<Info>, _> = asked.try_collect().await;
        let mut infos = infos.map_err(|fault| fault.into_error(DOING))?;
        infos.sort_by(|one, other| one.name.cmp(&other.name));
        for info in infos {
            self.take(info.name.clone(), Some(info));
        }
        Ok(())
    }

    /// Asks for what the list did not say; what has gone meanwhile is left out.
    async fn describe(self) -> Result<Vec<Info>> {
        let (shared, container) = (self.shared, self.container);
        let asked = stream::iter(self.found)
            .map(|(name, info)| async move {
                if info.is_some() {
                    return Ok(info);
                }
                let container = container.clone();
                shared.stat(&Place { container, name }).await
            })
            .buffered(ASKED_MAX)
            .try_filter_map(|info| std::future::ready(Ok(info)));
        let infos: Result<Vec<Info>, _> = asked.try_collect().await;
        infos.map_err(|fault| fault.into_error(DOING))
    }
}
