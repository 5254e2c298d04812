//! Tokens for the REST interface. Only their SHA-256 is kept: they are random, so nothing slower is needed.

use rusqlite::{OptionalExtension as _, params};

use super::{Store, StoreError};

/// Most tokens.
const MOST: u32 = 100;

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To look.
    Read,
    /// To change, too.
    Write,
}

impl Scope {
    /// As it is stored and shown.
    #[must_use]
    pub fn as_label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// Reads [`Scope::as_label`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Read, Self::Write].into_iter().find(|scope| scope.as_label() == text)
    }
}

/// One token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// What it is for.
    pub name: String,
    /// What it allows.
    pub scope: Scope,
    /// When it was made, in seconds since 1970.
    pub created_unix: i64,
    /// When it was last used.
    pub last_used_unix: Option<i64>,
}

impl Store {
    /// All tokens, by name.
    ///
    /// # Errors
    /// The database.
    pub fn api_tokens(&self) -> Result<Vec<ApiToken>, StoreError> {
        self.with(|db| {
            let mut query =
                db.prepare("SELECT name, scope, created_unix, last_used_unix FROM api_token ORDER BY name")?;
            let rows = query.query_map([], read)?;
            rows.collect()
        })
    }

    /// Adds a token by its hash; says whether that was possible: the name is free, and there is room.
    ///
    /// # Errors
    /// The database.
    pub fn add_api_token(
        &self,
        hash: &str,
        name: &str,
        scope: Scope,
        now_unix: i64,
    ) -> Result<bool, StoreError> {
        self.with(|db| {
            db.execute(
                "INSERT OR IGNORE INTO api_token(hash, name, scope, created_unix)
                 SELECT ?1, ?2, ?3, ?4 WHERE (SELECT count(*) FROM api_token) < ?5",
                params![hash, name, scope.as_label(), now_unix, MOST],
            )
        })
        .map(|added| added > 0)
    }

    /// The token of this hash, if there is one; notes that it was used.
    ///
    /// # Errors
    /// The database.
    pub fn use_api_token(&self, hash: &str, now_unix: i64) -> Result<Option<ApiToken>, StoreError> {
        self.with(|db| {
            db.query_row(
                "UPDATE api_token SET last_used_unix = ?2 WHERE hash = ?1
                 RETURNING name, scope, created_unix, last_used_unix",
                params![hash, now_unix],
                read,
            )
            .optional()
        })
    }

    /// Removes a token; says whether there was one.
    ///
    /// # Errors
    /// The database.
    pub fn remove_api_token(&self, name: &str) -> Result<bool, StoreError> {
        self.with(|db| db.execute("DELETE FROM api_token WHERE name = ?1", [name])).map(|removed| removed > 0)
    }
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<ApiToken> {
    let scope: String = row.get(1)?;
    Ok(ApiToken {
        name: row.get(0)?,
        // The lesser one for what this program does not know.
        scope: Scope::parse(&scope).unwrap_or(Scope::Read),
        created_unix: row.get(2)?,
        last_used_unix: row.get(3)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests_support::Directory;

    #[test]
    fn a_token_is_found_by_its_hash_alone_and_its_use_is_noted() {
        let directory = Directory::new("tokens");
        let store = Store::open(directory.path()).unwrap();
        assert!(store.add_api_token("aa", "monitoring", Scope::Read, 100).unwrap());
        assert!(!store.add_api_token("bb", "monitoring", Scope::Write, 100).unwrap(), "a name that is taken");
        assert_eq!(store.use_api_token("bb", 150).unwrap(), None);
        let expected = ApiToken {
            name: "monitoring".to_owned(),
            scope: Scope::Read,
            created_unix: 100,
            last_used_unix: Some(150),
        };
        assert_eq!(store.use_api_token("aa", 150).unwrap(), Some(expected.clone()));
        assert_eq!(store.api_tokens().unwrap(), [expected]);
        assert!(store.remove_api_token("monitoring").unwrap());
        assert!(!store.remove_api_token("monitoring").unwrap());
        assert_eq!(store.use_api_token("aa", 160).unwrap(), None);
    }
}
