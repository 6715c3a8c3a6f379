//! What a user wants to be told, on which channel, and when not.

use exprsn_sdk::prelude::*;

use crate::model::{Channel, EVERY_TYPE, NewQuietHours, Preference, Preferences};
use crate::quiet::QuietHours;

#[derive(Deserialize)]
struct Row {
    #[serde(rename = "type")]
    kind: String,
    channel: Channel,
    enabled: i64,
}

/// The caller's preferences.
pub async fn list(user: User) -> Result<Json<Preferences>> {
    of(&user.id).await.map(Json)
}

async fn of(user_id: &str) -> Result<Preferences> {
    let rows: Vec<Row> = sql::query_as(
        "SELECT type, channel, enabled FROM preferences WHERE user_id = $1 ORDER BY type, channel",
        params![user_id],
    )
    .await?;
    let preferences = rows.into_iter().map(|row| Preference {
        kind: row.kind,
        channel: row.channel,
        enabled: row.enabled != 0,
    });
    Ok(Preferences {
        preferences: preferences.collect(),
    })
}

/// Replaces the caller's preferences.
pub async fn replace(user: User, Json(new): Json<Preferences>) -> Result<Json<Preferences>> {
    let tx = sql::begin().await?;
    tx.execute(
        "DELETE FROM preferences WHERE user_id = $1",
        params![user.id],
    )
    .await?;
    for preference in &new.preferences {
        tx.execute(
            "INSERT INTO preferences (user_id, type, channel, enabled) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (user_id, type, channel) DO UPDATE SET enabled = excluded.enabled",
            params![
                user.id,
                preference.kind,
                preference.channel.as_str(),
                i64::from(preference.enabled)
            ],
        )
        .await?;
    }
    tx.commit().await?;
    of(&user.id).await.map(Json)
}

/// Whether a user wants this type on this channel, by the preferences given.
pub fn wants(preferences: &Preferences, kind: &str, channel: Channel) -> bool {
    let enabled = |wanted: &str| {
        let of_type = preferences
            .preferences
            .iter()
            .find(|p| p.kind == wanted && p.channel == channel);
        of_type.map(|preference| preference.enabled)
    };
    enabled(kind)
        .or_else(|| enabled(EVERY_TYPE))
        .unwrap_or(true)
}

/// A user's preferences and quiet hours, as the live stream needs them.
pub async fn settings(user_id: &str) -> Result<(Preferences, Option<QuietHours>)> {
    Ok((of(user_id).await?, quiet_of(user_id).await?))
}

/// The caller's quiet hours.
pub async fn quiet_hours(user: User) -> Result<Json<QuietHours>> {
    quiet_of(&user.id)
        .await?
        .map(Json)
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND).detail("no quiet hours are set"))
}

async fn quiet_of(user_id: &str) -> Result<Option<QuietHours>> {
    let text =
        "SELECT utc_offset_minutes, start_minute, end_minute FROM quiet_hours WHERE user_id = $1";
    Ok(sql::query_one_as(text, params![user_id]).await?)
}

/// Sets the caller's quiet hours.
pub async fn set_quiet_hours(
    user: User,
    Json(new): Json<NewQuietHours>,
) -> Result<Json<QuietHours>> {
    sql::execute(
        "INSERT INTO quiet_hours (user_id, utc_offset_minutes, start_minute, end_minute) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (user_id) DO UPDATE SET utc_offset_minutes = excluded.utc_offset_minutes, \
             start_minute = excluded.start_minute, end_minute = excluded.end_minute",
        params![user.id, new.utc_offset_minutes, new.start_minute, new.end_minute],
    )
    .await?;
    let NewQuietHours {
        utc_offset_minutes,
        start_minute,
        end_minute,
    } = new;
    Ok(Json(QuietHours {
        utc_offset_minutes,
        start_minute,
        end_minute,
    }))
}

/// Does away with the caller's quiet hours.
pub async fn clear_quiet_hours(user: User) -> Result<NoContent> {
    sql::execute(
        "DELETE FROM quiet_hours WHERE user_id = $1",
        params![user.id],
    )
    .await?;
    Ok(NoContent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_types_own_preference_goes_before_that_for_all() {
        let preference = |kind: &str, enabled| Preference {
            kind: kind.to_owned(),
            channel: Channel::Webhook,
            enabled,
        };
        let set = Preferences {
            preferences: vec![preference("*", false), preference("like", true)],
        };
        assert!(wants(&set, "like", Channel::Webhook));
        assert!(!wants(&set, "follow", Channel::Webhook));
        assert!(wants(&set, "follow", Channel::Inbox));
    }
}
