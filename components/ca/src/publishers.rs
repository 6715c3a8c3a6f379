//! Publishers whose signature on a component is trusted.

use crate::audit;
use exprsn_sdk::prelude::*;

/// Hexadecimal digits of a public key.
const KEY_DIGITS: usize = 64;

/// A trusted publisher.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all(serialize = "camelCase"))]
pub struct Publisher {
    pub name: String,
    /// The public key (Ed25519), lower-case hex.
    pub key: String,
    /// Seconds since the Unix epoch.
    trusted_at: i64,
    trusted_by: String,
}

/// All publishers, by name.
#[derive(Serialize, JsonSchema)]
pub struct Publishers {
    items: Vec<Publisher>,
}

/// A publisher that is to be trusted.
#[derive(Deserialize, JsonSchema, Validate)]
#[serde(deny_unknown_fields)]
pub struct NewPublisher {
    /// What it is called here.
    #[garde(length(chars, min = 1, max = 100))]
    name: String,
    /// The public key (Ed25519), 64 lower-case hexadecimal digits.
    #[garde(custom(is_key))]
    key: String,
}

fn is_key(text: &str, _: &()) -> garde::Result {
    let digits = text
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if digits && text.len() == KEY_DIGITS {
        return Ok(());
    }
    Err(garde::Error::new(format!(
        "must be {KEY_DIGITS} lower-case hexadecimal digits"
    )))
}

/// Every trusted publisher.
pub async fn all() -> Result<Vec<Publisher>> {
    let text =
        "SELECT name, public_key AS key, trusted_at, trusted_by FROM publishers ORDER BY name";
    Ok(sql::query_as(text, params![]).await?)
}

/// `GET /api/publishers`
pub async fn list() -> Result<Json<Publishers>> {
    Ok(Json(Publishers {
        items: all().await?,
    }))
}

/// `POST /api/publishers`
pub async fn trust(caller: Caller, Json(new): Json<NewPublisher>) -> Result<Created<Publisher>> {
    let by = caller.principal().full_subject();
    let publisher = Publisher {
        name: new.name,
        key: new.key,
        trusted_at: now_s(),
        trusted_by: by.clone(),
    };
    let tx = sql::begin().await?;
    let text = "INSERT INTO publishers (public_key, name, trusted_at, trusted_by) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
    let values = params![publisher.key, publisher.name, publisher.trusted_at, by];
    if tx.execute(text, values).await? == 0 {
        return Err(Problem::conflict(
            "a publisher of this name or with this key is trusted already; remove it first",
        ));
    }
    let details = json!({ "name": publisher.name });
    audit::append(&tx, &by, "publisher.trusted", &publisher.key, &details).await?;
    tx.commit().await?;
    Ok(Created::at(
        format!("/api/publishers/{}", publisher.key),
        publisher,
    ))
}

/// `DELETE /api/publishers/{key}`
///
/// What was admitted stays admitted: its certificates can be revoked.
pub async fn remove(caller: Caller, Path(key): Path<String>) -> Result<NoContent> {
    #[derive(Deserialize)]
    struct Removed {
        name: String,
    }
    let by = caller.principal().full_subject();
    let tx = sql::begin().await?;
    let text = "DELETE FROM publishers WHERE public_key = $1 RETURNING name";
    let removed: Option<Removed> = tx.query_one_as(text, params![key]).await?;
    let removed = removed.ok_or_else(|| Problem::not_found("publisher", &key))?;
    audit::append(
        &tx,
        &by,
        "publisher.removed",
        &key,
        &json!({ "name": removed.name }),
    )
    .await?;
    tx.commit().await?;
    Ok(NoContent)
}

#[cfg(test)]
mod tests {
    use super::is_key;

    #[test]
    fn keys_are_lower_case_hex() {
        assert!(is_key(&"ab".repeat(32), &()).is_ok());
        for bad in ["", "ab", &"AB".repeat(32), &"xy".repeat(32)] {
            assert!(is_key(bad, &()).is_err(), "{bad}");
        }
    }
}
